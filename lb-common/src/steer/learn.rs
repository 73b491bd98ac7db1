//! What a third packet teaches: the client echoes the server's key, and the key hashes to the connection's token.
//!
//! A client may echo any key, for the server does not check it. So one handshake teaches one token, only a handshake
//! that this balancer saw begin teaches at all, and no token is ever taken from the backend that holds it.

use super::{arrival::Arrival, may_make_entry};
use crate::{
    ids::{BackendId, Tick},
    limits::HANDSHAKE_WINDOW_BYTES,
    mptcp::{Capable, Version},
    packet::Packet,
    reason::Reason,
    share::{self, Event},
    tables::{Holder, InsertError, Tables, TokenEntry, TokenKey, Ways, state},
};

/// Learns the token of the connection that this packet completes, for the backend that the packet goes to. Nothing where
/// the server would not take the option either.
#[inline(always)]
pub(super) fn from_third_packet<P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    arrival: &Arrival,
    capable: Capable,
    backend: BackendId,
) -> Option<Reason> {
    if !arrival.service.ways.has(Ways::LEARN) || !backend.is_some() {
        return None;
    }
    let version = capable.accepted(arrival.tcp.payload_len)?;
    let (sender, receiver) = capable.keys(packet, &arrival.tcp)?;
    if sender == [0; 8] {
        return None;
    }
    match handshake(tables, arrival, version) {
        Handshake::Begun => {}
        Handshake::Unseen if arrival.service.ways.has(Ways::LEARN_UNSEEN) => {}
        Handshake::Unseen => return Some(Reason::LearnUnseen),
        Handshake::Taught => return Some(Reason::LearnRepeated),
    }
    if !may_make_entry(packet, tables, &arrival.ip) {
        return Some(Reason::LearnOverBudget);
    }
    let token = T::derive_token(version, receiver);
    let key = TokenKey::new(arrival.service.pool, token);
    let holder = Holder { flow: arrival.flow, since: tables.now(), backend, state: Holder::OPEN };
    let reason = hold(tables, &key, holder);
    if reason == Reason::Learned {
        share::tell(tables, &Event::learned(&key, &holder));
    }
    if reason != Reason::LearnFull {
        note_taught(tables, arrival);
    }
    Some(reason)
}

enum Handshake {
    Begun,
    Taught,
    Unseen,
}

#[inline(always)]
fn handshake<T: Tables>(tables: &mut T, arrival: &Arrival, version: Version) -> Handshake {
    let begun = match version {
        Version::V0 => state::BEGUN_V0,
        Version::V1 => state::BEGUN_V1,
    };
    let Some(pending) = tables.pending(arrival.flow).and_then(|bucket| bucket.find(arrival.flow)) else {
        return Handshake::Unseen;
    };
    let since_syn = arrival.tcp.sequence.wrapping_sub(pending.sequence.wrapping_add(1));
    match pending.state {
        _ if since_syn > HANDSHAKE_WINDOW_BYTES => Handshake::Unseen,
        state::TAUGHT => Handshake::Taught,
        state if state == begun => Handshake::Begun,
        _ => Handshake::Unseen,
    }
}

#[inline(always)]
fn note_taught<T: Tables>(tables: &mut T, arrival: &Arrival) {
    if let Some(pending) = tables.pending(arrival.flow).and_then(|bucket| bucket.find(arrival.flow)) {
        pending.state = state::TAUGHT;
    }
}

/// Enters a connection as holder of a token. A race with another CPU for a new entry is lost once at most.
#[inline(always)]
pub(crate) fn hold<T: Tables>(tables: &mut T, key: &TokenKey, holder: Holder) -> Reason {
    if let Some(entry) = tables.token(key) {
        return entry.admit(holder);
    }
    match tables.insert_token(key, TokenEntry::held_by(holder)) {
        Ok(()) => Reason::Learned,
        Err(InsertError::Full) => Reason::LearnFull,
        Err(InsertError::Exists) => tables.token(key).map_or(Reason::LearnFull, |entry| entry.admit(holder)),
    }
}

impl TokenEntry {
    /// An entry with one holder.
    #[inline(always)]
    pub const fn held_by(holder: Holder) -> Self {
        const VACANT: Holder =
            Holder { flow: crate::ids::FlowHash(0), since: Tick(0), backend: BackendId::NONE, state: 0 };
        Self { holders: [holder, VACANT] }
    }

    /// The backend of the connection, unless two backends have one of this name.
    #[inline(always)]
    pub const fn backend(&self) -> Option<BackendId> {
        match (self.holders[0].is_some(), self.holders[1].is_some()) {
            (true, false) => Some(self.holders[0].backend),
            (false, true) if self.holders[1].state != Holder::CROWD => Some(self.holders[1].backend),
            _ => None,
        }
    }

    /// Another connection claims the token. On the same backend it is the same connection, or its successor: a host's
    /// tokens are unique. Another backend makes the token ambiguous; it never takes it over.
    #[inline(always)]
    pub fn admit(&mut self, claim: Holder) -> Reason {
        for holder in &mut self.holders {
            if holder.is_some() && holder.backend == claim.backend && holder.state != Holder::CROWD {
                *holder = claim;
                return if self.backend().is_some() { Reason::Learned } else { Reason::LearnAmbiguous };
            }
        }
        for holder in &mut self.holders {
            if !holder.is_some() {
                *holder = claim;
                return if self.backend().is_some() { Reason::Learned } else { Reason::LearnAmbiguous };
            }
        }
        self.holders[1].state = Holder::CROWD;
        Reason::LearnAmbiguous
    }
}
