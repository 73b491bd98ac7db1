//! The outer header: what is made ready once per backend, and what is filled in per packet.
//!
//! The inner packet is never touched. IPv4 in IPv4: RFC 2003; IPv6 in IPv4: RFC 4213; anything in IPv6: RFC 2473.

use crate::{
    ids::FlowHash,
    tables::{Backend, Encap, OUTER_MAX},
    wire::{
        ethernet,
        ip::{self, Family, Ip},
    },
};
use core::net::{Ipv4Addr, Ipv6Addr};

/// Bytes of an Ethernet and an IPv4 header.
pub const OUTER_V4: usize = 34;
/// Bytes of an Ethernet and an IPv6 header.
pub const OUTER_V6: usize = OUTER_MAX;

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

impl Backend {
    /// The entry of a backend that is not there, or that no path is known to.
    pub const GONE: Self =
        Self { outer: [0; OUTER_MAX], checksum: 0, interface: 0, mtu: 0, encap: Encap::GONE, reserved: 0 };

    /// A backend on the same link, reached by its MAC address.
    pub fn l2(link: &Link) -> Self {
        let mut backend = Self { encap: Encap::L2, interface: link.interface, mtu: link.mtu, ..Self::GONE };
        backend.outer[..6].copy_from_slice(&link.next_hop_mac);
        backend.outer[6..12].copy_from_slice(&link.source_mac);
        backend
    }

    /// A backend at the end of a tunnel.
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
                backend.checksum = sum_of_words(&outer[14..34]);
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

    /// Whether packets can be sent to it.
    #[inline(always)]
    pub fn is_reachable(&self) -> bool {
        self.encap != Encap::GONE
    }

    /// Bytes of IP header that its tunnel puts in front of a packet.
    #[inline(always)]
    pub fn tunnel_len(&self) -> usize {
        match self.encap {
            Encap::IPIP4 => OUTER_V4 - ethernet::HEADER_LEN,
            Encap::IPIP6 => OUTER_V6 - ethernet::HEADER_LEN,
            _ => 0,
        }
    }
}

/// Whether a packet fits the path to a backend, tunnel included.
#[inline(always)]
pub fn fits(backend: &Backend, ip: &Ip) -> bool {
    ip.len + backend.tunnel_len() <= usize::from(backend.mtu)
}

const fn protocol(family: Family) -> u8 {
    match family {
        Family::V4 => ip::IPIP,
        Family::V6 => ip::IPV6_IN_IP,
    }
}

/// Writes the MAC addresses for a backend on the same link.
#[inline(always)]
pub fn write_link(macs: &mut [u8; 12], backend: &Backend) {
    macs.copy_from_slice(&backend.outer[..12]);
}

/// Writes the Ethernet and IPv4 header of a packet's tunnel.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "`fits` keeps the length within the MTU's 16 bits")]
pub fn write_v4(outer: &mut [u8; OUTER_V4], backend: &Backend, ip: &Ip) {
    let len = (ip.len + OUTER_V4 - ethernet::HEADER_LEN) as u16;
    let protocol = protocol(ip.family);
    let sum = u32::from(backend.checksum) + u32::from(ip.traffic_class) + u32::from(len) + u32::from(protocol);
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;

    outer.copy_from_slice(&backend.outer[..OUTER_V4]);
    outer[15] = ip.traffic_class;
    [outer[16], outer[17]] = len.to_be_bytes();
    outer[23] = protocol;
    [outer[24], outer[25]] = checksum.to_be_bytes();
}

/// Writes the Ethernet and IPv6 header of a packet's tunnel; the flow label spreads flows over the paths and queues that
/// look at it (RFC 6438).
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "`fits` keeps the length within the MTU's 16 bits")]
pub fn write_v6(outer: &mut [u8; OUTER_V6], backend: &Backend, ip: &Ip, flow: FlowHash) {
    let word = 6 << 28 | u32::from(ip.traffic_class) << 20 | flow.label();
    *outer = backend.outer;
    [outer[14], outer[15], outer[16], outer[17]] = word.to_be_bytes();
    [outer[18], outer[19]] = (ip.len as u16).to_be_bytes();
    outer[20] = protocol(ip.family);
}

/// The ones' complement sum of big-endian words (RFC 1071), folded, not inverted.
fn sum_of_words(bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[expect(clippy::cast_possible_truncation, reason = "folded")]
    let sum = sum as u16;
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::Fragment;

    const LINK: Link =
        Link { interface: 7, source_mac: [2, 0, 0, 0, 0, 1], next_hop_mac: [2, 0, 0, 0, 0, 2], mtu: 1500 };

    fn inner(family: Family, len: usize, traffic_class: u8) -> Ip {
        Ip { family, header: 14, payload: 34, len, protocol: 6, traffic_class, fragment: Fragment::Whole }
    }

    proptest::proptest! {
        #[test]
        fn ipip4_is_what_etherparse_would_write(len in 20..1480_usize, traffic_class: u8, v6: bool, source: [u8; 4], destination: [u8; 4]) {
            let family = if v6 { Family::V6 } else { Family::V4 };
            let tunnel = Tunnel::V4 { source: source.into(), destination: destination.into() };
            let mut outer = [0xff; OUTER_V4];
            write_v4(&mut outer, &Backend::ipip(&LINK, tunnel), &inner(family, len, traffic_class));
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
