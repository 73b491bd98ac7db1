//! UDP, and QUIC on it. A datagram proves nothing and opens nothing, so its flow goes by the ring, or by the server id in
//! its QUIC connection id, and none has an entry.
//!
//! Only in a slot in transition is a flow remembered, in a table that strangers may overwrite: one that was seen before the
//! change, or soon after it, stays with the previous owner until it falls silent; one that begins later, or with a QUIC
//! Initial, is the new owner's.

use super::{Choice, arrival::Arrival, by_ring, serves, slot_of};
use crate::{
    ids::{BackendId, Tick},
    limits::DATAGRAM_IDLE_TICKS,
    packet::Packet,
    reason::Reason,
    recent::Recent,
    tables::{Slot, Tables, state},
    wire::quic,
};

#[inline(always)]
pub(super) fn choose<P: Packet, T: Tables>(packet: &P, tables: &mut T, arrival: &Arrival) -> Choice {
    let id_len = arrival.service.quic_id_len;
    if id_len > 0
        && let Some(key) = quic::server(packet, &arrival.udp, arrival.service.pool, id_len)
        && let Some(backend) = tables.quic_server(&key)
        && serves(tables, backend)
    {
        return Ok((backend, Reason::QuicServer));
    }
    let slot = slot_of(tables, arrival);
    if slot.is_in_transition() {
        let begins = id_len > 0 && quic::begins(packet, &arrival.udp);
        return choose_in_transition(tables, arrival, slot, begins);
    }
    by_ring(slot.owner(), Reason::Ring)
}

#[inline(always)]
fn choose_in_transition<T: Tables>(tables: &mut T, arrival: &Arrival, slot: Slot, begins: bool) -> Choice {
    let now = tables.now();
    if let Some(backend) = remembered(tables, arrival, now) {
        return Ok((backend, Reason::Datagram));
    }
    let keeps = slot.keeps_datagrams() && !begins;
    let (backend, reason) = if keeps { (slot.previous(), Reason::RingPrevious) } else { (slot.owner(), Reason::Ring) };
    let flow = Recent::new(arrival.flow, 0, now, backend, state::DATAGRAM);
    if let Some(bucket) = tables.datagrams(arrival.flow) {
        bucket.insert(flow);
    }
    by_ring(backend, reason)
}

/// The backend that a flow has been at of late, if it still serves.
#[inline(always)]
fn remembered<T: Tables>(tables: &mut T, arrival: &Arrival, now: Tick) -> Option<BackendId> {
    let flow = tables.datagrams(arrival.flow)?.find(arrival.flow)?;
    if now.since(flow.at) > DATAGRAM_IDLE_TICKS {
        return None;
    }
    flow.at = now;
    let id = flow.backend;
    if serves(tables, id) { Some(id) } else { None }
}
