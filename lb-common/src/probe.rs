//! Packets of the balancer's own health checks: which backend the mark of one names, and the decision to send it there.
//!
//! A check is an ordinary connection of the balancer's kernel to a VIP. Its packets get the tunnel that a client's would
//! get. No ring is asked: the mark alone decides, so that a backend out of service can be checked too.
//!
//! A client of MPTCP echoes the server's key in its third packet, and so a check tells the token that the server has given
//! it. Nobody else's packets are looked at.

use crate::{
    flow::{Ports, WireAddress as _},
    hash::SipKey,
    ids::{BackendId, FlowHash, Token},
    limits::BACKENDS_MAX,
    mptcp::options::BOTH_KEYS_LEN,
    packet::Packet,
    reason::Reason,
    steer::Forward,
    tables::{Backend, Tables},
    wire::{
        WireError, ethernet,
        ip::{self, Header, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
        tcp::Tcp,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Low bits of a mark that name the backend; those above tell that it is a check's.
pub const ID_BITS: u32 = 13;
/// The same as a mask.
pub const ID_MASK: u32 = (1 << ID_BITS) - 1;
const _: () = assert!(BACKENDS_MAX <= ID_MASK);

/// The mark of packets that check a backend.
#[inline(always)]
pub const fn mark_of(base: u32, id: BackendId) -> u32 {
    base | id.0 as u32
}

/// The backend that a packet with this mark checks; none, if it is no check's.
#[inline(always)]
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

/// What the latest check of a backend over one family has had to do with MPTCP, in one word so that no half of it is seen:
/// the token that the server gave, in its wire order, and above it the client's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Heard(u64);

impl Heard {
    /// Nothing yet.
    pub const NOTHING: Self = Self(0);
    /// Set where there is a token.
    const TOKEN: u64 = 1 << 48;

    #[inline(always)]
    const fn token_at(port: u16, token: Token) -> Self {
        Self(Self::TOKEN | (port as u64) << 32 | u32::from_le_bytes(token.to_wire()) as u64)
    }

    /// The token of the connection from a port, if it has been heard.
    pub const fn token(self, client_port: u16) -> Option<Token> {
        if self.0 >> 32 != Self::TOKEN >> 32 | client_port as u64 {
            return None;
        }
        let [a, b, c, d, ..] = self.0.to_le_bytes();
        Some(Token::from_wire([a, b, c, d]))
    }
}

/// How many places there are for what is heard.
pub const HEARD: u32 = 2 * (BACKENDS_MAX + 1);

/// Where what is heard of a backend over a family is noted.
#[inline(always)]
pub const fn heard_place(id: BackendId, is_ipv6: bool) -> u32 {
    id.0 as u32 * 2 + is_ipv6 as u32
}

/// What a check's packet says of MPTCP, and whether it is one of IPv6: a SYN begins anew, a packet with both keys has the
/// token. Nothing where it says nothing.
#[inline(always)]
pub fn heard<P: Packet, T: Tables>(packet: &P) -> Option<(Heard, bool)> {
    let ethertype: [u8; 2] = packet.load(ethernet::HEADER_LEN - 2)?;
    let (header, is_ipv6) = match u16::from_be_bytes(ethertype) {
        ethernet::IPV4 => (Ipv4::load(packet, ethernet::HEADER_LEN).ok()?.outline(packet).ok()?, false),
        ethernet::IPV6 => (Ipv6::load(packet, ethernet::HEADER_LEN).ok()?.outline(packet).ok()?, true),
        _ => return None,
    };
    if header.protocol != ip::TCP {
        return None;
    }
    let tcp = Tcp::parse(packet, &header).ok()?;
    if tcp.opens() {
        return Some((Heard::NOTHING, is_ipv6));
    }
    if !tcp.acknowledges() || tcp.options_len < BOTH_KEYS_LEN {
        return None;
    }
    let capable = packet.mptcp_options(&tcp).capable?;
    let version = capable.accepted(tcp.payload_len)?;
    let (_, key) = capable.keys(packet, &tcp)?;
    Some((Heard::token_at(tcp.source_port, T::derive_token(version, key)), is_ipv6))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostTables;
    use etherparse::PacketBuilder;

    const SERVER_KEY: [u8; 8] = 0xac47_5c49_cfd7_f249_u64.to_be_bytes();
    const TOKEN: u32 = 0x3c61_4612;

    /// A client's segment with options.
    fn segment(is_ipv6: bool, syn: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let packet =
            if is_ipv6 { link.ipv6([1; 16], [2; 16], 64) } else { link.ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64) };
        let packet = packet.tcp(50_001, 443, 1, 1000).options_raw(options).expect("40 bytes at most");
        let packet = if syn { packet.syn() } else { packet.ack(1) };
        let mut bytes = Vec::new();
        packet.write(&mut bytes, payload).expect("a vector takes all");
        bytes
    }

    fn heard_of(frame: &[u8]) -> Option<(Heard, bool)> {
        heard::<_, HostTables>(&frame)
    }

    #[test]
    fn the_token_of_a_check_is_its_servers_and_of_its_port_alone() {
        let both_keys = [&[30, 20, 1, 1][..], b"client's", &SERVER_KEY].concat();
        for is_ipv6 in [false, true] {
            let (heard, over_ipv6) = heard_of(&segment(is_ipv6, false, &both_keys, &[])).expect("a third packet");
            assert_eq!((heard.token(50_001).map(Token::number), over_ipv6), (Some(TOKEN), is_ipv6));
            assert_eq!(heard.token(50_002), None);
            let syn = heard_of(&segment(is_ipv6, true, &[30, 4, 1, 1], &[]));
            assert_eq!(syn, Some((Heard::NOTHING, is_ipv6)));
            assert_eq!(Heard::NOTHING.token(0), None);
        }
        for silent in
            [segment(false, false, &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 1], &[]), segment(false, false, &[], b"GET")]
        {
            assert_eq!(heard_of(&silent), None);
        }
        let data_without_length = segment(false, false, &both_keys, b"GET");
        assert_eq!(heard_of(&data_without_length), None, "a server would not take it either");
    }

    #[test]
    fn every_backend_and_family_has_a_place_of_its_own() {
        let places: std::collections::HashSet<_> =
            (0..=4096).flat_map(|id| [false, true].map(|v6| heard_place(BackendId(id), v6))).collect();
        assert_eq!(places.len(), HEARD as usize);
        assert!(places.iter().all(|&place| place < HEARD));
    }

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
