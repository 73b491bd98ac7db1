//! Putting a packet on its way to a backend: the outer header that is made ready once per backend, what is filled in per
//! packet, and the frame around both.
//!
//! The inner packet is never touched. IPv4 in IPv4: RFC 2003; IPv6 in IPv4: RFC 4213; anything in IPv6: RFC 2473; GUE:
//! draft-ietf-intarea-gue-09, variant 0 without options. VLAN tags that a frame came with stay behind.

use crate::{
    ids::FlowHash,
    packet::Frame,
    steer::Forward,
    tables::{Backend, Encap, OUTER_MAX, TAGS_MAX},
    wire::{
        checksum,
        ethernet::{self, TAG_LEN},
        ip::{self, Family, Ip},
        ipv4, ipv6, udp,
    },
};
use core::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of a GUE header without options.
pub const GUE_LEN: usize = 4;
/// Bytes of an Ethernet and an IPv4 header.
pub const OUTER_V4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN;
/// Bytes of an Ethernet and an IPv6 header.
pub const OUTER_V6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
/// The same with UDP and GUE.
pub const OUTER_GUE4: usize = OUTER_V4 + udp::HEADER_LEN + GUE_LEN;
/// The same with UDP and GUE.
pub const OUTER_GUE6: usize = OUTER_V6 + udp::HEADER_LEN + GUE_LEN;
const _: () = assert!(OUTER_GUE6 == OUTER_MAX);

/// The UDP port that a GUE tunnel goes to, where no other is configured (IANA).
pub const GUE_PORT: u16 = 6080;

const HOP_LIMIT: u8 = 64;

/// The two ends of the next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The interface to send on.
    pub interface: u32,
    /// The MAC address of that interface.
    pub source_mac: [u8; 6],
    /// The MAC address of the next hop.
    pub next_hop_mac: [u8; 6],
    /// The longest IP packet that the path takes, in bytes.
    pub mtu: u16,
}

/// The outer addresses of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// In IPv4.
    V4 {
        /// The balancer's address.
        source: Ipv4Addr,
        /// The backend's.
        destination: Ipv4Addr,
    },
    /// In IPv6.
    V6 {
        /// The balancer's address.
        source: Ipv6Addr,
        /// The backend's.
        destination: Ipv6Addr,
    },
}

/// A VLAN tag: its `EtherType`, and priority and id as they stand behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// 802.1Q or 802.1ad.
    pub ethertype: u16,
    /// The id in the low 12 bits.
    pub control: u16,
}

impl Backend {
    /// The entry of a backend that is not there, or that no path is known to.
    pub const GONE: Self = Self {
        interface: 0,
        spread: 0,
        mtu: 0,
        checksum: 0,
        encap: Encap::GONE,
        tags_len: 0,
        outer: [0; OUTER_MAX],
        tags: [0; TAGS_MAX],
        reserved: [0; 8],
    };

    /// A backend on the same link, reached by its MAC address.
    pub fn l2(link: &Link) -> Self {
        let mut backend = Self { encap: Encap::L2, interface: link.interface, mtu: link.mtu, ..Self::GONE };
        backend.outer[..6].copy_from_slice(&link.next_hop_mac);
        backend.outer[6..12].copy_from_slice(&link.source_mac);
        backend
    }

    /// A backend at the end of a tunnel of IP in IP.
    pub fn ipip(link: &Link, tunnel: Tunnel) -> Self {
        let mut backend = Self::l2(link);
        let outer = &mut backend.outer;
        match tunnel {
            Tunnel::V4 { source, destination } => {
                outer[12..14].copy_from_slice(&ethernet::IPV4.to_be_bytes());
                outer[14] = 0x45;
                outer[20] = 0x40; // don't fragment: a tunnel too long is the sender's to know
                outer[22] = HOP_LIMIT;
                outer[26..30].copy_from_slice(&source.octets());
                outer[30..34].copy_from_slice(&destination.octets());
                backend.checksum = checksum::fold(checksum::sum::<10>(outer, 14));
                backend.encap = Encap::IPIP4;
            }
            Tunnel::V6 { source, destination } => {
                outer[12..14].copy_from_slice(&ethernet::IPV6.to_be_bytes());
                outer[14] = 0x60;
                outer[21] = HOP_LIMIT;
                outer[22..38].copy_from_slice(&source.octets());
                outer[38..54].copy_from_slice(&destination.octets());
                backend.encap = Encap::IPIP6;
            }
        }
        backend
    }

    /// A backend at the end of a tunnel of UDP, at this port. Its UDP checksum is zero, over IPv6 too (RFC 6935): the inner
    /// packet has its own.
    pub fn gue(link: &Link, tunnel: Tunnel, port: u16) -> Self {
        let mut backend = Self::ipip(link, tunnel);
        let (ends_at, encap) = match tunnel {
            Tunnel::V4 { .. } => (OUTER_V4, Encap::GUE4),
            Tunnel::V6 { .. } => (OUTER_V6, Encap::GUE6),
        };
        backend.outer[ends_at + 2..ends_at + 4].copy_from_slice(&port.to_be_bytes());
        backend.encap = encap;
        backend
    }

    /// The same backend, behind VLAN tags on its link, outermost first.
    ///
    /// # Panics
    /// With more than two tags.
    #[must_use]
    pub fn tagged(mut self, tags: &[Tag]) -> Self {
        for (tag, place) in tags.iter().zip(self.tags.chunks_exact_mut(TAG_LEN)) {
            place[..2].copy_from_slice(&tag.ethertype.to_be_bytes());
            place[2..].copy_from_slice(&tag.control.to_be_bytes());
        }
        assert!(tags.len() * TAG_LEN <= TAGS_MAX, "two tags at most");
        self.tags_len = [0, 4, 8][tags.len()];
        self
    }

    /// The same backend, where the flow's hash fills in the last `bits` bits of the tunnel's source address, so that
    /// receivers that look at nothing else spread the flows over their queues.
    ///
    /// # Panics
    /// With more than 32 bits, or a source address in which these bits are not zero.
    #[must_use]
    pub fn spread(mut self, bits: u32) -> Self {
        self.spread = u32::MAX.checked_shl(bits).map_or(u32::MAX, |mask| !mask);
        let last = match self.encap {
            Encap::IPIP6 | Encap::GUE6 => 34,
            _ => 26,
        };
        let [a, b, c, d] = [0, 1, 2, 3].map(|i| self.outer[last + i]);
        assert!(bits <= 32 && u32::from_be_bytes([a, b, c, d]) & self.spread == 0, "the bits are the network's");
        self
    }

    /// Whether packets can be sent to it.
    #[inline(always)]
    pub fn is_reachable(&self) -> bool {
        self.encap != Encap::GONE
    }

    /// Bytes that its tunnel puts in front of an IP packet.
    #[inline(always)]
    pub fn tunnel_len(&self) -> usize {
        match self.encap {
            Encap::IPIP4 => OUTER_V4 - ethernet::HEADER_LEN,
            Encap::IPIP6 => OUTER_V6 - ethernet::HEADER_LEN,
            Encap::GUE4 => OUTER_GUE4 - ethernet::HEADER_LEN,
            Encap::GUE6 => OUTER_GUE6 - ethernet::HEADER_LEN,
            _ => 0,
        }
    }
}

/// Whether a packet fits the path to a backend, tunnel included.
#[inline(always)]
pub fn fits(backend: &Backend, ip: &Ip) -> bool {
    ip.len + backend.tunnel_len() <= usize::from(backend.mtu)
}

/// The longest packet that fits the path to a backend, in bytes.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "tunnels are short")]
pub fn path_mtu(backend: &Backend) -> u16 {
    backend.mtu.saturating_sub(backend.tunnel_len() as u16)
}

/// Makes a frame into the one that goes to its backend. Nothing where there is no room for it.
#[inline(always)]
pub fn encapsulate<F: Frame>(frame: &mut F, forward: &Forward<'_>) -> Option<()> {
    encapsulate_untagged(frame, forward)?;
    let backend = forward.backend;
    match backend.tags_len {
        0 => Some(()),
        4 => push_tags::<4, F>(frame, &backend.tags),
        _ => push_tags::<TAGS_MAX, F>(frame, &backend.tags),
    }
}

/// The same without the VLAN tags of the way.
#[inline(always)]
pub fn encapsulate_untagged<F: Frame>(frame: &mut F, forward: &Forward<'_>) -> Option<()> {
    let Forward { backend, ip, flow, .. } = forward;
    match backend.encap {
        Encap::IPIP4 => write_v4(grow::<OUTER_V4, F>(frame, ip)?, backend, ip, *flow),
        Encap::IPIP6 => write_v6(grow::<OUTER_V6, F>(frame, ip)?, backend, ip, *flow),
        Encap::GUE4 => write_gue4(grow::<OUTER_GUE4, F>(frame, ip)?, backend, ip, *flow),
        Encap::GUE6 => write_gue6(grow::<OUTER_GUE6, F>(frame, ip)?, backend, ip, *flow),
        _ => write_link(grow::<{ ethernet::HEADER_LEN }, F>(frame, ip)?, backend, ip),
    }
    Some(())
}

/// Makes the frame's header in front of the IP packet `N` bytes long, and hands it out.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "headers are short")]
fn grow<'f, const N: usize, F: Frame>(frame: &'f mut F, ip: &Ip) -> Option<&'f mut [u8; N]> {
    let shorter = ip.header as i32 - N as i32;
    if shorter == 0 || frame.move_start(shorter) { frame.place(0) } else { None }
}

/// Puts the first `N` bytes of `tags` between the MAC addresses and the `EtherType`.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "8 at most")]
pub(crate) fn push_tags<const N: usize, F: Frame>(frame: &mut F, tags: &[u8; TAGS_MAX]) -> Option<()> {
    let macs: [u8; 12] = frame.load(0)?;
    if !frame.move_start(-(N as i32)) {
        return None;
    }
    *frame.place(0)? = macs;
    *frame.place::<N>(macs.len())? = *tags.first_chunk()?;
    Some(())
}

const fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => ip::IPIP,
        Family::V6 => ip::IPV6_IN_IP,
    }
}

/// Writes the Ethernet header for a backend on the same link.
#[inline(always)]
fn write_link(header: &mut [u8; ethernet::HEADER_LEN], backend: &Backend, ip: &Ip) {
    copy_words(header, &backend.outer, [0, 4]);
    let ethertype = match ip.family {
        Family::V4 => ethernet::IPV4,
        Family::V6 => ethernet::IPV6,
    };
    [header[12], header[13]] = ethertype.to_be_bytes();
}

/// Writes the Ethernet and IPv4 header of a packet's tunnel.
#[inline(always)]
fn write_v4(outer: &mut [u8; OUTER_V4], backend: &Backend, ip: &Ip, flow: FlowHash) {
    copy_words(outer, &backend.outer, [0, 8, 16, 24, OUTER_V4 - 8]);
    fill_v4(outer, backend, ip, flow, ip.len + ipv4::HEADER_LEN, protocol(ip.family));
}

/// The same with UDP and GUE behind it.
#[inline(always)]
fn write_gue4(outer: &mut [u8; OUTER_GUE4], backend: &Backend, ip: &Ip, flow: FlowHash) {
    copy_words(outer, &backend.outer, [0, 8, 16, 24, 32, OUTER_GUE4 - 8]);
    fill_v4(outer, backend, ip, flow, ip.len + OUTER_GUE4 - ethernet::HEADER_LEN, ip::UDP);
    fill_gue(outer, OUTER_V4, ip, flow);
}

/// Writes the Ethernet and IPv6 header of a packet's tunnel; the flow label spreads flows over the paths and queues that
/// look at it (RFC 6438).
#[inline(always)]
fn write_v6(outer: &mut [u8; OUTER_V6], backend: &Backend, ip: &Ip, flow: FlowHash) {
    copy_words(outer, &backend.outer, [0, 8, 16, 24, 32, 40, OUTER_V6 - 8]);
    fill_v6(outer, backend, ip, flow, ip.len, protocol(ip.family));
}

/// The same with UDP and GUE behind it.
#[inline(always)]
fn write_gue6(outer: &mut [u8; OUTER_GUE6], backend: &Backend, ip: &Ip, flow: FlowHash) {
    copy_words(outer, &backend.outer, [0, 8, 16, 24, 32, 40, 48, 56, OUTER_GUE6 - 8]);
    fill_v6(outer, backend, ip, flow, ip.len + udp::HEADER_LEN + GUE_LEN, ip::UDP);
    fill_gue(outer, OUTER_V6, ip, flow);
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "`fits` keeps the length within the MTU's 16 bits")]
fn fill_v4(outer: &mut [u8], backend: &Backend, ip: &Ip, flow: FlowHash, len: usize, protocol: u8) {
    let spread = flow.host_bits() & backend.spread;
    let sum = u32::from(backend.checksum) + u32::from(ip.traffic_class) + len as u32 + u32::from(protocol);
    let sum = sum + (spread & 0xffff) + (spread >> 16);
    outer[15] = ip.traffic_class;
    [outer[16], outer[17]] = (len as u16).to_be_bytes();
    outer[23] = protocol;
    [outer[24], outer[25]] = checksum::finish(sum);
    fill_spread(outer, backend, 26, spread);
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "`fits` keeps the length within the MTU's 16 bits")]
fn fill_v6(outer: &mut [u8], backend: &Backend, ip: &Ip, flow: FlowHash, len: usize, protocol: u8) {
    let word = 6 << 28 | u32::from(ip.traffic_class) << 20 | flow.label();
    [outer[14], outer[15], outer[16], outer[17]] = word.to_be_bytes();
    [outer[18], outer[19]] = (len as u16).to_be_bytes();
    outer[20] = protocol;
    fill_spread(outer, backend, 34, flow.host_bits() & backend.spread);
}

#[inline(always)]
fn fill_spread(outer: &mut [u8], backend: &Backend, at: usize, spread: u32) {
    let from = &backend.outer;
    let network = u32::from_be_bytes([from[at], from[at + 1], from[at + 2], from[at + 3]]);
    [outer[at], outer[at + 1], outer[at + 2], outer[at + 3]] = (network | spread).to_be_bytes();
}

/// Copies eight bytes at each of these places. They may overlap: a copy of bytes that need not be aligned is made byte by
/// byte in BPF, words are loaded and stored as such.
#[inline(always)]
fn copy_words<const N: usize>(to: &mut [u8], from: &[u8; OUTER_MAX], places: [usize; N]) {
    for at in places {
        let word = from[at..at + 8].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
        to[at..at + 8].copy_from_slice(&word.to_ne_bytes());
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "as above")]
fn fill_gue(outer: &mut [u8], at: usize, ip: &Ip, flow: FlowHash) {
    let len = (ip.len + udp::HEADER_LEN + GUE_LEN) as u16;
    [outer[at], outer[at + 1]] = flow.port().to_be_bytes();
    [outer[at + 4], outer[at + 5]] = len.to_be_bytes();
    outer[at + 9] = protocol(ip.family);
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link =
        Link { interface: 7, source_mac: [2, 0, 0, 0, 0, 1], next_hop_mac: [2, 0, 0, 0, 0, 2], mtu: 1500 };

    fn inner(family: Family, len: usize, traffic_class: u8) -> Ip {
        Ip { family, header: 14, payload: 34, len, protocol: 6, traffic_class, ..Ip::NONE }
    }

    proptest::proptest! {
        #[test]
        fn ipip4_is_what_etherparse_would_write(len in 20..1480_usize, traffic_class: u8, v6: bool, source: [u8; 4], destination: [u8; 4]) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let tunnel = Tunnel::V4 { source: source.into(), destination: destination.into() };
            let mut outer = [0xff; OUTER_V4];
            write_v4(&mut outer, &Backend::ipip(&LINK, tunnel), &inner(family, len, traffic_class), FlowHash(0));
            let (header, _) = etherparse::Ipv4Header::from_slice(&outer[14..]).unwrap();
            proptest::prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            proptest::prop_assert_eq!(usize::from(header.total_len), len + 20);
            proptest::prop_assert_eq!((header.source, header.destination), (source, destination));
            proptest::prop_assert_eq!(header.dscp.value() << 2 | header.ecn.value(), traffic_class);
            proptest::prop_assert_eq!(header.protocol.0, if v6 { 41 } else { 4 });
            proptest::prop_assert!(header.dont_fragment);
        }

        #[test]
        fn ipip6_is_what_etherparse_would_read(len in 20..1460_usize, traffic_class: u8, v6: bool, flow: u64) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let tunnel = Tunnel::V6 { source: [1; 16].into(), destination: [2; 16].into() };
            let mut outer = [0xff; OUTER_V6];
            write_v6(&mut outer, &Backend::ipip(&LINK, tunnel), &inner(family, len, traffic_class), FlowHash(flow));
            let (header, _) = etherparse::Ipv6Header::from_slice(&outer[14..]).unwrap();
            proptest::prop_assert_eq!(usize::from(header.payload_length), len);
            proptest::prop_assert_eq!(header.traffic_class, traffic_class);
            proptest::prop_assert_eq!(header.flow_label.value(), FlowHash(flow).label());
            proptest::prop_assert_eq!(header.next_header.0, if v6 { 41 } else { 4 });
            proptest::prop_assert_eq!((header.source, header.destination), ([1; 16], [2; 16]));
        }
    }

    #[test]
    fn fits_counts_the_tunnel() {
        let v4 = Tunnel::V4 { source: Ipv4Addr::LOCALHOST, destination: Ipv4Addr::LOCALHOST };
        let v6 = Tunnel::V6 { source: Ipv6Addr::LOCALHOST, destination: Ipv6Addr::LOCALHOST };
        for (backend, longest) in
            [(Backend::l2(&LINK), 1500), (Backend::ipip(&LINK, v4), 1480), (Backend::ipip(&LINK, v6), 1460)]
        {
            assert!(fits(&backend, &inner(Family::V4, longest, 0)));
            assert!(!fits(&backend, &inner(Family::V4, longest + 1, 0)));
        }
        assert!(!Backend::GONE.is_reachable());
    }
}
