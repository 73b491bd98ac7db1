//! The steering decision: one function from a packet and the tables to a backend, or to the reason why there is none.
//!
//! It is generic over the packet cursor and the tables, so that the kernel and the tests run the same code. It writes to
//! no packet and counts nothing: the caller does both, once, by what this returns.

mod arrival;
mod datagram;
mod endpoint;
mod established;
mod fragment;
mod icmp;
pub(crate) mod learn;
mod scope;
mod syn;

use crate::{
    encap,
    flow::WireAddress as _,
    ids::{BackendId, FlowHash, VipId},
    packet::Packet,
    reason::Reason,
    tables::{Backend, Slot, Tables},
    wire::{
        ip::{Family, Header as _, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
    },
};
pub use arrival::Arrival;
use arrival::Subject;
pub use scope::{All, Common, Icmp, Kind, Scope, Transport};

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
    pub verdict: Result<Forward<'t>, Refusal>,
}

/// Why a packet goes to no backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The longest packet that the path would have taken, in bytes, where this one was too long.
    pub path_mtu: u16,
}

impl From<Reason> for Refusal {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self { reason, path_mtu: 0 }
    }
}

/// A backend and why.
type Choice = Result<(BackendId, Reason), Reason>;

/// A choice in one word: the backend, the reason's index, and whether there is a backend.
#[inline(always)]
const fn pack(choice: Choice) -> u64 {
    match choice {
        Ok((id, reason)) => id.0 as u64 | (reason.index() as u64) << 16 | 1 << 32,
        Err(reason) => (reason.index() as u64) << 16,
    }
}

/// The inverse of [`pack`].
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "sixteen bits each")]
fn unpack(word: u64) -> Choice {
    let reason = Reason::from_index((word >> 16) as u32 & 0xffff).unwrap_or(Reason::NoBackend);
    if word >> 32 != 0 { Ok((BackendId(word as u16), reason)) } else { Err(reason) }
}

/// Decides what becomes of a frame, and updates the tables by what it teaches.
#[inline(always)]
pub fn steer<'t, P: Packet, T: Tables>(packet: &P, tables: &'t mut T) -> Decision<'t> {
    let mut arrival = Arrival::UNREAD;
    let Ok(decision) = steer_within::<All, P, T>(packet, tables, &mut arrival);
    decision
}

/// The same for the packets of a scope; what was in `arrival` before does not matter.
///
/// # Errors
/// The packet is beyond it; nothing has happened then.
#[inline(always)]
pub fn steer_within<'t, S: Scope, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t mut T,
    arrival: &mut Arrival,
) -> Result<Decision<'t>, S::Beyond> {
    let subject = arrival::read::<S, P, T>(packet, tables, arrival)?;
    Ok(decide(packet, tables, arrival, subject))
}

#[inline(always)]
fn decide<'t, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t mut T,
    arrival: &Arrival,
    subject: Result<Subject, Reason>,
) -> Decision<'t> {
    let choice = match subject {
        Ok(Subject::Segment) if arrival.service.endpoint.is_some() => Ok(endpoint::choose(packet, arrival)),
        Ok(Subject::Segment) if arrival.tcp.opens() => syn::choose(packet, tables, arrival),
        Ok(Subject::Segment) => established::choose(packet, tables, arrival),
        Ok(Subject::Datagram) => datagram::choose(packet, tables, arrival),
        Ok(Subject::Error) => icmp::choose(tables, arrival),
        Ok(Subject::Piece) => Ok((arrival.first_at, Reason::FragmentLater)),
        Err(reason) => return Decision { vip: VipId::NONE, verdict: Err(reason.into()) },
    };
    fragment::note_first(packet, tables, arrival, &choice);
    let verdict = match unpack(P::merged(pack(choice))) {
        Ok((id, reason)) => send(tables, id, reason, arrival),
        Err(reason) => Err(reason.into()),
    };
    Decision { vip: arrival.service.vip, verdict }
}

/// The last word of a choice: the backend is there, and the packet fits the path to it.
#[inline(always)]
fn send<'t, T: Tables>(
    tables: &'t mut T,
    id: BackendId,
    reason: Reason,
    arrival: &Arrival,
) -> Result<Forward<'t>, Refusal> {
    let backend = tables.backend(id).ok_or(Reason::BackendGone)?;
    if !backend.is_reachable() {
        return Err(Reason::BackendGone.into());
    }
    if !encap::fits(backend, &arrival.ip) {
        let path_mtu = encap::path_mtu(backend);
        return Err(Refusal { reason: too_big(tables, reason), path_mtu });
    }
    let backend = tables.backend(id).ok_or(Reason::BackendGone)?;
    Ok(Forward { reason, id, backend, flow: arrival.flow, ip: arrival.ip })
}

/// The client is told, unless this CPU has told enough of them for now, or it would be an ICMP error about an ICMP error
/// or a later fragment (RFC 1122, 3.2.2).
#[inline(always)]
fn too_big<T: Tables>(tables: &mut T, reason: Reason) -> Reason {
    if matches!(reason, Reason::IcmpError | Reason::FragmentLater) {
        return Reason::TooBigQuiet;
    }
    let now = tables.now();
    let Some(limit) = tables.globals().map(|globals| globals.errors_per_cpu) else { return Reason::TooBigQuiet };
    let told = tables.error_budget().is_some_and(|budget| budget.spend(now, limit));
    if told { Reason::TooBig } else { Reason::TooBigQuiet }
}

/// The slot of a flow in its pool's ring.
#[inline(always)]
fn slot_of<T: Tables>(tables: &T, arrival: &Arrival) -> Slot {
    let slot = tables.slot(arrival.service.pool, arrival.slot).unwrap_or_default();
    if !arrival.rotation.is_under_way() {
        return slot;
    }
    let before = tables.slot(arrival.service.pool, arrival.former_slot).unwrap_or_default();
    slot.after(before, arrival.rotation)
}

/// Whether a backend takes packets at all.
#[inline(always)]
fn serves<T: Tables>(tables: &T, id: BackendId) -> bool {
    tables.backend(id).is_some_and(Backend::is_reachable)
}

/// The ring's answer, if the pool has backends at all.
#[inline(always)]
fn by_ring(backend: BackendId, reason: Reason) -> Choice {
    if backend.is_some() { Ok((backend, reason)) } else { Err(Reason::NoBackend) }
}

/// Whether the clients of the packet's network may make one more entry for now.
#[inline(always)]
fn may_make_entry<P: Packet, T: Tables>(packet: &P, tables: &mut T, ip: &Ip) -> bool {
    let now = tables.now();
    let Some(globals) = tables.globals() else { return false };
    let (key, limit) = (globals.key(), globals.entries_per_network);
    let header = P::in_headers(ip.header);
    let network = match ip.family {
        Family::V4 => Ipv4::load(packet, header).map(|header| header.source().network_hash(key)),
        Family::V6 => Ipv6::load(packet, header).map(|header| header.source().network_hash(key)),
    };
    let Ok(network) = network else { return false };
    tables.network_budget(network).is_none_or(|budget| budget.spend(now, limit))
}
