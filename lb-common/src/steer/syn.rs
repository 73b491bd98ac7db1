//! A client opens a TCP connection or a further subflow of an MPTCP one.
//!
//! A SYN proves nothing, so it never makes or ends an entry that live connections need: what it asks for waits in the
//! pending or the embryonic table until an ACK confirms it. Nor does it touch the entry of a flow that is alive.

use super::{Choice, arrival::Arrival, by_ring, serves, slot_of};
use crate::{
    ids::{BackendId, Token},
    limits::LIVE_FLOW_TICKS,
    mptcp::{Options, Version},
    packet::Packet,
    reason::Reason,
    recent::Recent,
    stateless::Bearer,
    tables::{Exception, FlowEntry, Tables, TokenKey, UnknownJoin, Ways, state},
};

#[inline(always)]
pub(super) fn choose<P: Packet, T: Tables>(packet: &P, tables: &mut T, arrival: &Arrival) -> Choice {
    if arrival.service.ways.any() {
        let options = Options::unpack(P::merged(packet.mptcp_options(&arrival.tcp).pack()));
        match (options.capable, options.join) {
            (None, Some(join)) => {
                if let Some(token) = join.token(packet, &arrival.tcp) {
                    return choose_join(tables, arrival, &TokenKey::new(arrival.service.pool, token));
                }
            }
            // A server answers plain TCP to a SYN with both options.
            (Some(_), Some(_)) | (None, None) => note_handshake(tables, arrival, None),
            (Some(capable), None) => note_handshake(tables, arrival, capable.offered()),
        }
    }
    choose_new(tables, arrival, Reason::RingNew)
}

/// A new connection goes to the slot's owner, whatever entry an ended one on the same 5-tuple has left. While one lives
/// there, its server judges: it challenges the client (RFC 5961, 4), who resets the connection if he knows nothing of it,
/// and whose SYN finds it closed when he sends it again.
#[inline(always)]
fn choose_new<T: Tables>(tables: &mut T, arrival: &Arrival, reason: Reason) -> Choice {
    let slot = slot_of(tables, arrival);
    let contested = match former(tables, arrival) {
        Former::Same(backend) | Former::Live(backend) => return Ok((backend, Reason::Flow)),
        Former::Ended => true,
        Former::None => false,
    };
    // A client may have had the answer to its first SYN by the time that the second one is here.
    if slot.is_in_transition()
        && let Some(backend) = asked_before(tables, arrival)
    {
        return Ok((backend, reason));
    }
    if slot.owner().is_some() && (contested || !slot.answers_for(slot.owner())) {
        await_confirmation(tables, arrival, slot.owner(), Exception::Moved);
    }
    by_ring(slot.owner(), reason)
}

/// Who was asked by the same SYN before, when the slot was another's.
#[inline(always)]
fn asked_before<T: Tables>(tables: &mut T, arrival: &Arrival) -> Option<BackendId> {
    let &mut Recent { sequence, backend, .. } = tables.embryonic(arrival.flow)?.find(arrival.flow)?;
    (sequence == arrival.tcp.sequence && serves(tables, backend)).then_some(backend)
}

#[inline(always)]
fn choose_join<T: Tables>(tables: &mut T, arrival: &Arrival, key: &TokenKey) -> Choice {
    let Some(named) = named(tables, arrival, key) else {
        return match arrival.service.unknown_join {
            UnknownJoin::HASH => choose_new(tables, arrival, Reason::JoinUnknownHashed),
            UnknownJoin::RESET => Err(Reason::JoinUnknownReset),
            _ => Err(Reason::JoinUnknown),
        };
    };
    let (backend, reason) = named?;
    if !may_join(tables, key.token) {
        return Err(Reason::JoinOverBudget);
    }
    let ring_answers = slot_of(tables, arrival).answers_for(backend);
    match former(tables, arrival) {
        // A live flow's entry stays; only a server can tell whether this client is another.
        Former::Live(_) => {}
        Former::None | Former::Same(_) if ring_answers => {}
        _ => await_confirmation(tables, arrival, backend, Exception::Joined),
    }
    Ok((backend, reason))
}

/// Whether a token may bring one more join for now.
#[inline(always)]
fn may_join<T: Tables>(tables: &mut T, token: Token) -> bool {
    let now = tables.now();
    let Some(limit) = tables.globals().map(|globals| globals.joins_per_token) else { return false };
    tables.join_budget(token).is_none_or(|budget| budget.spend(now, limit))
}

/// Whom a join's token names, if anybody: first by what is known of the connection, then by the token itself.
#[inline(always)]
fn named<T: Tables>(tables: &mut T, arrival: &Arrival, key: &TokenKey) -> Option<Choice> {
    if arrival.service.ways.may_know_tokens()
        && let Some(entry) = tables.token(key)
    {
        return Some(entry.backend().map(|backend| (backend, Reason::JoinToken)).ok_or(Reason::JoinAmbiguous));
    }
    if !arrival.service.ways.has(Ways::TOKEN) {
        return None;
    }
    match tables.named_by(key.pool, key.token) {
        Bearer::NOBODY => None,
        bearer => {
            let serving = bearer.backend().filter(|&backend| serves(tables, backend));
            Some(serving.map(|backend| (backend, Reason::JoinStateless)).ok_or(Reason::JoinStatelessGone))
        }
    }
}

/// Whose the entry of a SYN's 5-tuple is.
enum Former {
    /// There is none.
    None,
    /// This very connection's: the SYN has come before.
    Same(BackendId),
    /// Another connection's that is alive, as far as its packets tell.
    Live(BackendId),
    /// Another's that has closed, fallen silent or lost its backend: this SYN's may succeed it.
    Ended,
}

/// Looks for the entry of this 5-tuple, and marks that of an ended connection as possibly succeeded.
#[inline(always)]
fn former<T: Tables>(tables: &mut T, arrival: &Arrival) -> Former {
    if !tables.may_have_entry(arrival.flow) {
        return Former::None;
    }
    let now = tables.now();
    let Some(&mut FlowEntry { sequence, seen, backend, state }) = tables.entry(arrival.flow) else {
        return Former::None;
    };
    if sequence == arrival.tcp.sequence {
        return Former::Same(backend);
    }
    if state & FlowEntry::CLOSED == 0 && now.since(seen) < LIVE_FLOW_TICKS && serves(tables, backend) {
        return Former::Live(backend);
    }
    if let Some(entry) = tables.entry(arrival.flow) {
        entry.state |= FlowEntry::CONTESTED;
    }
    Former::Ended
}

#[inline(always)]
fn await_confirmation<T: Tables>(tables: &mut T, arrival: &Arrival, backend: BackendId, kind: Exception) {
    let state = if kind == Exception::Joined { state::JOINING } else { state::OPENING };
    let embryo = Recent::new(arrival.flow, arrival.tcp.sequence, tables.now(), backend, state);
    let embryo = embryo.with_data(arrival.tcp.payload_len);
    if let Some(bucket) = tables.embryonic(arrival.flow) {
        bucket.push(embryo);
    }
}

/// Remembers that an MPTCP handshake has begun, or that this flow has fallen back to plain TCP.
#[inline(always)]
fn note_handshake<T: Tables>(tables: &mut T, arrival: &Arrival, offered: Option<Version>) {
    if !arrival.service.ways.has(Ways::LEARN) {
        return;
    }
    let begun = match offered {
        Some(Version::V0) => state::BEGUN_V0,
        Some(Version::V1) => state::BEGUN_V1,
        None => {
            if tables.may_be_pending()
                && let Some(bucket) = tables.pending(arrival.flow)
            {
                bucket.remove(arrival.flow);
            }
            return;
        }
    };
    let handshake = Recent::new(arrival.flow, arrival.tcp.sequence, tables.now(), BackendId::NONE, begun);
    tables.note_pending();
    if let Some(bucket) = tables.pending(arrival.flow) {
        bucket.insert(handshake);
    }
}
