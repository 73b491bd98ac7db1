//! A frame's way, told to somebody who is on call and new here: what it is, what it was for, who decided, what stays of it in
//! the tables, and where it went.

use super::{
    decide::Decided,
    frames::Frame,
    line::Action,
    packet::Read,
    plan::Names,
    witness::{Asked, Memory, buckets},
};
use lb_common::{
    host::HostTables,
    ids::BackendId,
    reason::{self, Reason},
    recent::{Recent, bucket_of},
    stateless::Bearer,
    tables::{Exception, Tables as _, state},
};

/// All that is known of a frame's way.
pub(super) struct Way<'w> {
    /// The frame's number.
    pub(super) number: u64,
    pub(super) frame: &'w Frame,
    /// Its bytes.
    pub(super) bytes: &'w [u8],
    /// Nanoseconds since the first frame.
    pub(super) since_ns: Option<u64>,
    pub(super) read: Read,
    pub(super) decided: Decided,
    pub(super) by_host: Decided,
    pub(super) asked: Asked,
}

/// The story of a frame. `tables` are as it left them.
pub(super) fn tell(way: &Way<'_>, tables: &HostTables, names: &Names) -> Vec<String> {
    let Way { number, frame, read, decided, by_host, asked, .. } = way;
    let time = way.since_ns.map_or_else(String::new, |since| format!(" at {}", seconds(since)));
    let mut story = vec![format!("frame {number}{time}: {}, {} bytes", read.what, way.bytes.len())];
    story.extend(frame.note.clone());
    if let Some((vip, pool)) = names.vips.get(&decided.vip) {
        story.push(format!("for VIP {vip}, served by pool {pool}"));
        story.extend(by_token(asked, names));
        story.extend(by_itself(asked, names));
        story.extend(by_entry(asked, names));
        story.extend(by_slot(decided.reason, asked, names));
    }
    story.push(why(decided.reason));
    if decided.reason == Reason::NotVip && read.source.is_some_and(|source| tables.services(&source).is_some()) {
        story.push("a server's packet to its client: on the wire it goes past the balancer".to_owned());
    }
    if matches!(
        decided.reason,
        Reason::JoinUnknown | Reason::JoinUnknownHashed | Reason::JoinUnknownReset | Reason::LearnUnseen
    ) {
        story
            .push("a connection that began before the capture, or before the balancer, has taught no token".to_owned());
    }
    story.extend(remembered(way, tables, names));
    story.push(ending(decided, names));
    if decided != by_host {
        let reason = by_host.reason.as_str();
        story.push(format!("the host's decision would be {reason}: the two must agree, please report this frame"));
    }
    story
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:06} s", nanos / 1_000_000_000, nanos % 1_000_000_000 / 1000)
}

fn why(reason: Reason) -> String {
    format!("{}: {}", reason.as_str(), reason.explanation().trim())
}

fn by_token(asked: &Asked, names: &Names) -> Option<String> {
    let (token, found) = asked.token?;
    Some(match found {
        None => format!("token {token} is not known so far"),
        Some(entry) => match entry.backend() {
            Some(backend) => format!("token {token} names a connection on {}", names.backend(backend)),
            None => format!("token {token} is ambiguous: connections on two backends hold it"),
        },
    })
}

/// What a token says itself, where it was asked.
fn by_itself(asked: &Asked, names: &Names) -> Option<String> {
    let (token, _) = asked.token?;
    Some(match asked.named? {
        Bearer::NOBODY => {
            format!("by itself token {token} names no backend: its epoch has no secret, or nobody has its id")
        }
        Bearer::GONE => format!("by itself token {token} names a backend that has left the pool"),
        bearer => format!("by itself token {token} names {}", names.backend(bearer.backend()?)),
    })
}

fn by_entry(asked: &Asked, names: &Names) -> Option<String> {
    let entry = asked.entry?;
    Some(format!("the flow has an entry, which names {}", names.backend(entry.backend)))
}

/// The slot, where it had a say.
fn by_slot(reason: Reason, asked: &Asked, names: &Names) -> Option<String> {
    let (number, slot) = asked.slot?;
    if !slot.owner().is_some() {
        return Some(format!("slot {number} of the pool's ring has no owner"));
    }
    let owner = names.backend(slot.owner());
    let asks_no_ring = matches!(
        reason,
        Reason::JoinToken | Reason::JoinStateless | Reason::Joined | Reason::Flow | Reason::QuicServer
    );
    let aside = if asks_no_ring { "; the ring does not decide here" } else { "" };
    Some(if slot.is_in_transition() {
        let previous = names.backend(slot.previous());
        format!("slot {number} of the pool's ring is in transition, from {previous} to {owner}{aside}")
    } else {
        format!("slot {number} of the pool's ring is {owner}'s{aside}")
    })
}

/// What the frame has left in the tables.
fn remembered(way: &Way<'_>, tables: &HostTables, names: &Names) -> Vec<String> {
    let Way { decided, asked, read, .. } = way;
    let mut told = Vec::new();
    if let (Reason::Learned, Some(token), Some(backend)) = (decided.reason, read.token, decided.backend) {
        told.push(format!("learned: token {token} names this connection, on {}", names.backend(backend)));
    }
    if let Some((kind, backend)) = asked.entered {
        let table = match kind {
            Exception::Joined => "joined",
            Exception::Moved => "moved",
            Exception::Pinned => "pinned",
        };
        told.push(format!("entered: the flow is in the table of {table} flows, at {}", names.backend(backend)));
    }
    for &(memory, flow, before) in &asked.memories {
        let all = buckets(tables, memory);
        let index = bucket_of(flow, u32::try_from(all.len()).unwrap_or(1));
        let after = all.get(index as usize).and_then(|bucket| bucket.of(flow)).copied();
        if after != before
            && let Some(now) = after
        {
            told.extend(note(memory, &now, names));
        }
    }
    told
}

fn note(memory: Memory, now: &Recent, names: &Names) -> Option<String> {
    let backend = |id: BackendId| names.backend(id);
    match (memory, now.kind()) {
        (Memory::Pending, state::BEGUN_V0 | state::BEGUN_V1) => {
            Some("noted: an MPTCP handshake has begun; its third packet may teach a token".to_owned())
        }
        (Memory::Embryonic, state::JOINING) => Some(format!(
            "noted: the ring names another, so the ACK of this join makes an entry at {}",
            backend(now.backend)
        )),
        (Memory::Embryonic, state::OPENING) => {
            Some(format!("noted: the ACK of this SYN makes an entry at {}", backend(now.backend)))
        }
        (Memory::Datagrams, _) => Some(format!("noted: the flow of datagrams stays at {}", backend(now.backend))),
        (Memory::Fragments, _) => Some(format!("noted: the other pieces go to {} too", backend(now.backend))),
        (Memory::Closing, _) => {
            Some("noted: the flow ends; its token, if it has taught one, lingers 10 minutes".to_owned())
        }
        _ => None,
    }
}

fn ending(decided: &Decided, names: &Names) -> String {
    let len = decided.out.as_ref().map_or(0, Vec::len);
    match (decided.action, decided.backend, decided.reason.action()) {
        (Action::Tx, Some(id), _) => {
            format!("=> sent to {}, {len} bytes, by the interface that it came by", to(id, names))
        }
        (Action::Redirect, Some(id), _) => format!("=> sent to {}, {len} bytes, by another interface", to(id, names)),
        (Action::Tx | Action::Redirect, None, reason::Action::Reply) => {
            format!("=> answered to the client, {len} bytes")
        }
        (Action::Tx | Action::Redirect, None, _) => format!("=> sent, {len} bytes"),
        (Action::Pass, ..) => "=> passed to the host untouched".to_owned(),
        (Action::Drop, ..) => "=> dropped".to_owned(),
    }
}

fn to(id: BackendId, names: &Names) -> String {
    match names.backends.get(&id) {
        Some((name, address)) => format!("{name} ({address})"),
        None => names.backend(id),
    }
}
