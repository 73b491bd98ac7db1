//! Datagrams in pieces: only the first has ports, so where it went is remembered for the others.
//!
//! A piece that comes before the first is dropped: nobody knows its flow yet.

use super::{
    Choice,
    arrival::{Arrival, Subject},
};
use crate::{
    flow::WireAddress as _,
    hash::SipKey,
    ids::{FlowHash, VipId},
    packet::Packet,
    reason::Reason,
    recent::Recent,
    tables::{Tables, state},
    wire::{
        ip::{Family, Fragment, Header, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
    },
};

/// Finds the backend that has the first piece of the datagram that this is a later one of.
#[inline(always)]
pub(super) fn read_later<T: Tables, H: Header>(
    tables: &mut T,
    arrival: &mut Arrival,
    header: &H,
) -> Result<Subject, Reason> {
    let globals = tables.globals().ok_or(Reason::FragmentUnknown)?;
    let (key, former_key, rotation) = (*globals.key(), *globals.former_key(), globals.rotation);
    let (from, to) = (header.source(), header.destination());
    let named_by = |key: &SipKey| from.datagram_hash(key, to, arrival.ip.datagram, arrival.ip.protocol);
    let mut datagram = named_by(&key);
    if rotation.is_under_way() && !is_known(tables, datagram) {
        datagram = named_by(&former_key);
    }
    let first = tables.fragments(datagram).and_then(|bucket| bucket.find(datagram)).ok_or(Reason::FragmentUnknown)?;
    arrival.service.vip = VipId(first.state & !state::PIECES);
    arrival.first_at = first.backend;
    arrival.flow = datagram;
    Ok(Subject::Piece)
}

#[inline(always)]
fn is_known<T: Tables>(tables: &mut T, datagram: FlowHash) -> bool {
    tables.fragments(datagram).is_some_and(|bucket| bucket.find(datagram).is_some())
}

/// Remembers where the first piece of a datagram goes.
#[inline(always)]
pub(super) fn note_first<P: Packet, T: Tables>(packet: &P, tables: &mut T, arrival: &Arrival, choice: &Choice) {
    if arrival.ip.fragment != Fragment::First {
        return;
    }
    let (Ok((backend, _)), Some(datagram)) = (*choice, datagram_of(packet, tables, &arrival.ip)) else { return };
    let first =
        Recent::new(datagram, arrival.ip.datagram, tables.now(), backend, state::PIECES | arrival.service.vip.0);
    if let Some(bucket) = tables.fragments(datagram) {
        bucket.insert(first);
    }
}

#[inline(always)]
fn datagram_of<P: Packet, T: Tables>(packet: &P, tables: &T, ip: &Ip) -> Option<FlowHash> {
    let key = tables.globals()?.key();
    let at = P::in_headers(ip.header);
    match ip.family {
        Family::V4 => {
            let header = Ipv4::load(packet, at).ok()?;
            Some(header.source().datagram_hash(key, header.destination(), ip.datagram, ip.protocol))
        }
        Family::V6 => {
            let header = Ipv6::load(packet, at).ok()?;
            Some(header.source().datagram_hash(key, header.destination(), ip.datagram, ip.protocol))
        }
    }
}
