//! Every packet that does not open a connection: by its entry, if the flow is an exception, else by the ring.

use super::{Choice, arrival::Arrival, by_ring, learn, slot_of};
use crate::{
    ids::BackendId,
    mptcp::{Join, options::BOTH_KEYS_LEN},
    packet::Packet,
    reason::Reason,
    recent::Recent,
    tables::{FlowEntry, InsertError, Tables, Ways, state},
};

#[inline(always)]
pub(super) fn choose<P: Packet, T: Tables>(packet: &P, tables: &mut T, arrival: &Arrival) -> Choice {
    if tables.may_be_joined(arrival.flow)
        && let Some(choice) = choose_by_entry(tables, arrival)
    {
        return choice;
    }
    let ways = arrival.service.ways;
    if ways.has(Ways::LEARN) && arrival.tcp.closes() {
        note_closing(tables, arrival);
    }
    let backend = slot_of(tables, arrival).established();
    // A shorter option field holds neither both keys nor the ACK of a join.
    if ways.any() && arrival.tcp.options_len >= BOTH_KEYS_LEN && arrival.tcp.acknowledges() {
        let options = packet.mptcp_options(&arrival.tcp);
        if options.join.is_some_and(Join::confirms) {
            if let Some(choice) = confirm_join(tables, arrival) {
                return choice;
            }
        } else if let Some(capable) = options.capable {
            let reason = learn::from_third_packet(packet, tables, arrival, capable, backend);
            return by_ring(backend, reason.unwrap_or(Reason::Ring));
        }
    }
    by_ring(backend, Reason::Ring)
}

/// The backend of a flow that has an entry, unless the entry ends here because a confirmed successor has taken its place.
#[inline(always)]
fn choose_by_entry<T: Tables>(tables: &mut T, arrival: &Arrival) -> Option<Choice> {
    let now = tables.now();
    let entry = tables.joined(arrival.flow)?;
    if entry.state & FlowEntry::CONTESTED == 0 {
        entry.seen = now;
        if arrival.tcp.closes() {
            entry.state |= FlowEntry::CLOSED;
        }
        return Some(Ok((entry.backend, Reason::Flow)));
    }
    let live = entry.backend;
    let Some(backend) = take_embryo(tables, arrival) else {
        return Some(Ok((live, Reason::Flow)));
    };
    tables.remove_joined(arrival.flow);
    if slot_of(tables, arrival).established() == backend {
        return Some(Ok((backend, Reason::Ring)));
    }
    Some(insert(tables, arrival, backend))
}

/// The ACK of a join (RFC 8684, 3.2) makes the entry that its SYN asked for.
#[inline(always)]
fn confirm_join<T: Tables>(tables: &mut T, arrival: &Arrival) -> Option<Choice> {
    let backend = take_embryo(tables, arrival)?;
    Some(insert(tables, arrival, backend))
}

/// The backend chosen for the SYN that this packet confirms: it carries the very next sequence number, which nobody
/// knows who has not seen the SYN.
#[inline(always)]
fn take_embryo<T: Tables>(tables: &mut T, arrival: &Arrival) -> Option<BackendId> {
    let sequence = arrival.tcp.sequence;
    if !arrival.tcp.acknowledges() {
        return None;
    }
    let embryo = tables.embryonic(arrival.flow)?.find(arrival.flow)?;
    if embryo.sequence.wrapping_add(1) != sequence {
        return None;
    }
    embryo.state = 0;
    Some(embryo.backend)
}

#[inline(always)]
fn insert<T: Tables>(tables: &mut T, arrival: &Arrival, backend: BackendId) -> Choice {
    let entry = FlowEntry {
        sequence: arrival.tcp.sequence.wrapping_sub(1),
        seen: tables.now(),
        backend,
        state: FlowEntry::OPEN,
    };
    match tables.insert_joined(arrival.flow, entry) {
        Ok(()) | Err(InsertError::Exists) => Ok((backend, Reason::Joined)),
        Err(InsertError::Full) => Err(Reason::JoinedFull),
    }
}

/// Tells the controller that a flow ends; it knows whether the flow was the first of a connection.
#[inline(always)]
fn note_closing<T: Tables>(tables: &mut T, arrival: &Arrival) {
    let sign = Recent::new(arrival.flow, arrival.tcp.sequence, tables.now(), BackendId::NONE, state::CLOSING);
    if let Some(bucket) = tables.closing(arrival.flow) {
        bucket.insert(sign);
    }
}
