//! The steering decision: one function from a packet and the tables to a backend, or to the reason why there is none.
//!
//! It is generic over the packet cursor and the tables, so that the kernel and the tests run the same code. It writes to
//! no packet and counts nothing: the caller does both, once, by what this returns.

mod arrival;
mod established;
mod learn;
mod syn;

use crate::{
    encap,
    ids::{BackendId, FlowHash, VipId},
    packet::Packet,
    reason::Reason,
    tables::{Backend, Slot, Tables},
    wire::ip::Ip,
};
use arrival::Arrival;

/// A packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward<'t> {
    /// Why this backend.
    pub reason: Reason,
    /// The backend's name.
    pub id: BackendId,
    /// How to reach it.
    pub backend: &'t Backend,
    /// The flow, whose hash spreads tunnels.
    pub flow: FlowHash,
    /// The packet to be sent.
    pub ip: Ip,
}

/// What was decided for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'t> {
    /// The VIP that it was for.
    pub vip: VipId,
    /// Where it goes, or why it goes nowhere.
    pub verdict: Result<Forward<'t>, Reason>,
}

/// A backend and why.
type Choice = Result<(BackendId, Reason), Reason>;

/// Decides what becomes of a frame, and updates the tables by what it teaches.
#[inline(always)]
pub fn steer<'t, P: Packet, T: Tables>(packet: &P, tables: &'t mut T) -> Decision<'t> {
    let arrival = match arrival::read(packet, tables) {
        Ok(arrival) => arrival,
        Err(reason) => return Decision { vip: VipId::NONE, verdict: Err(reason) },
    };
    let choice = if arrival.tcp.opens() {
        syn::choose(packet, tables, &arrival)
    } else {
        established::choose(packet, tables, &arrival)
    };
    let verdict = choice.and_then(|choice| send(tables, &arrival, choice));
    Decision { vip: arrival.service.vip, verdict }
}

/// The last word of a choice: the backend is there, and the packet fits the path to it.
#[inline(always)]
fn send<'t, T: Tables>(
    tables: &'t T,
    arrival: &Arrival,
    (id, reason): (BackendId, Reason),
) -> Result<Forward<'t>, Reason> {
    let backend = tables.backend(id).ok_or(Reason::BackendGone)?;
    if !backend.is_reachable() {
        return Err(Reason::BackendGone);
    }
    if !encap::fits(backend, &arrival.ip) {
        return Err(Reason::TooBig);
    }
    Ok(Forward { reason, id, backend, flow: arrival.flow, ip: arrival.ip })
}

/// The slot of a flow in its pool's ring.
#[inline(always)]
fn slot_of<T: Tables>(tables: &T, arrival: &Arrival) -> Slot {
    tables.slot(arrival.service.pool, arrival.flow.slot()).unwrap_or_default()
}

/// The ring's answer, if the pool has backends at all.
#[inline(always)]
fn by_ring(backend: BackendId, reason: Reason) -> Choice {
    if backend.is_some() { Ok((backend, reason)) } else { Err(Reason::NoBackend) }
}
