//! Packets of the balancer's own health checks: which backend the mark of one names, and the decision to send it there.
//!
//! A check is an ordinary connection of the balancer's kernel to a VIP. Its packets get the tunnel that a client's would
//! get. No ring is asked: the mark alone decides, so that a backend out of service can be checked too.

use crate::{
    flow::{Ports, WireAddress as _},
    hash::SipKey,
    ids::{BackendId, FlowHash},
    packet::Packet,
    reason::Reason,
    steer::Forward,
    tables::Backend,
    wire::{
        WireError, ethernet,
        ip::{Header, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
    },
};

/// Low bits of a mark that name the backend; those above tell that it is a check's.
pub const ID_BITS: u32 = 13;
/// The same as a mask.
pub const ID_MASK: u32 = (1 << ID_BITS) - 1;
const _: () = assert!(crate::limits::BACKENDS_MAX <= ID_MASK);

/// The mark of packets that check a backend.
#[inline(always)]
pub const fn mark_of(base: u32, id: BackendId) -> u32 {
    base | id.0 as u32
}

/// The backend that a packet with this mark checks; none, if it is no check's.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "thirteen bits")]
pub const fn backend_of(base: u32, mark: u32) -> Option<BackendId> {
    let id = mark & ID_MASK;
    if base != 0 && mark & !ID_MASK == base && id != 0 { Some(BackendId(id as u16)) } else { None }
}

/// The way of a check's packet, with the spread that a client's flow of the same 5-tuple would have. Nothing for what the
/// kernel sends for no connection.
#[inline(always)]
pub fn forward<'t, P: Packet>(packet: &P, key: &SipKey, id: BackendId, backend: &'t Backend) -> Option<Forward<'t>> {
    let ethertype: [u8; 2] = packet.load(ethernet::HEADER_LEN - 2)?;
    let (ip, flow) = match u16::from_be_bytes(ethertype) {
        ethernet::IPV4 => outline::<Ipv4, P>(packet, key).ok()?,
        ethernet::IPV6 => outline::<Ipv6, P>(packet, key).ok()?,
        _ => return None,
    };
    Some(Forward { reason: Reason::Ring, id, backend, flow, ip })
}

#[inline(always)]
fn outline<H: Header, P: Packet>(packet: &P, key: &SipKey) -> Result<(Ip, FlowHash), WireError> {
    let header = H::load(packet, ethernet::HEADER_LEN)?;
    let ip = header.outline(packet)?;
    let ports: [u8; 4] = packet.load(P::in_headers(ip.payload)).ok_or(WireError::Truncated)?;
    let [a, b, c, d] = ports;
    let ports = Ports { source: u16::from_be_bytes([a, b]), destination: u16::from_be_bytes([c, d]) };
    Ok((ip, header.source().flow_hash(key, header.destination(), ports, ip.protocol)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_names_its_backend_and_no_other_mark_names_one() {
        const BASE: u32 = 0x5745_0000;
        for id in [1, 2, 4095, 4096].map(BackendId) {
            assert_eq!(backend_of(BASE, mark_of(BASE, id)), Some(id));
            assert_eq!(backend_of(BASE, mark_of(0x5747_0000, id)), None);
            assert_eq!(backend_of(BASE, id.0.into()), None, "an operator's small mark is not ours");
            assert_eq!(backend_of(0, id.0.into()), None, "without a base there are no checks");
        }
        assert_eq!(backend_of(BASE, BASE), None);
    }
}
