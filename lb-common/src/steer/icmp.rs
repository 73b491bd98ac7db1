//! ICMP for a VIP. An error is about a packet that a backend has sent with the VIP's address: it goes to that backend,
//! by the flow in its quotation. An echo request is answered; everything else is the host's.

use super::{Choice, arrival::Arrival, by_ring, slot_of};
use crate::{
    flow::Ports,
    packet::Packet,
    reason::Reason,
    tables::Tables,
    wire::{
        icmp::{self, Kind},
        ip::{Fragment, Header, Ip},
    },
};

/// What the packet in an error's quotation names: it went from the VIP to the client, its flow goes the other way.
pub(super) struct Quoted<A> {
    pub(super) client: A,
    pub(super) ports: Ports,
    pub(super) protocol: u8,
}

/// Reads an ICMP message, and the flow that it is about if it is an error.
#[inline(always)]
pub(super) fn read<P: Packet, H: Header>(packet: &P, header: &H, ip: &Ip) -> Result<Quoted<H::Address>, Reason> {
    if ip.fragment != Fragment::Whole {
        return Err(Reason::IcmpOther);
    }
    match icmp::kind(packet, ip.family, ip.payload).map_err(|_| Reason::MalformedIcmp)? {
        Kind::EchoRequest => return Err(Reason::EchoAnswered),
        Kind::Other => return Err(Reason::IcmpOther),
        Kind::Error => {}
    }
    let quoted = H::load(packet, ip.payload + icmp::HEADER_LEN).map_err(|_| Reason::MalformedIcmp)?;
    let outline = quoted.outline(packet).map_err(|_| Reason::MalformedIcmp)?;
    if quoted.source() != header.destination() || outline.fragment == Fragment::Later {
        return Err(Reason::IcmpUnrelated);
    }
    let [s0, s1, d0, d1] = packet.load(outline.payload).ok_or(Reason::MalformedIcmp)?;
    let ports = Ports { source: u16::from_be_bytes([d0, d1]), destination: u16::from_be_bytes([s0, s1]) };
    Ok(Quoted { client: quoted.destination(), ports, protocol: outline.protocol })
}

/// The backend of the flow that an error is about.
#[inline(always)]
pub(super) fn choose<T: Tables>(tables: &mut T, arrival: &Arrival) -> Choice {
    if arrival.service.endpoint.is_some() {
        return Ok((arrival.service.endpoint, Reason::IcmpError));
    }
    if tables.may_have_entry(arrival.flow)
        && let Some(entry) = tables.entry(arrival.flow)
    {
        return Ok((entry.backend, Reason::IcmpError));
    }
    let slot = slot_of(tables, arrival);
    if slot.is_in_transition()
        && let Some(flow) = tables.datagrams(arrival.flow).and_then(|bucket| bucket.find(arrival.flow))
    {
        return Ok((flow.backend, Reason::IcmpError));
    }
    by_ring(slot.established(), Reason::IcmpError)
}
