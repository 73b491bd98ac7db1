//! What both IP versions tell the decision.

use super::WireError;
use crate::{flow::Ports, hash::SipKey, ids::FlowHash, packet::Packet};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of IPv4 in a tunnel.
pub const IPIP: u8 = 4;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv6 in a tunnel.
pub const IPV6_IN_IP: u8 = 41;
/// Protocol number of `ICMPv6`.
pub const ICMPV6: u8 = 58;

/// The version of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// An address of either family: IPv6, or IPv4 mapped into `::ffff:0:0/96` (RFC 4291, 2.5.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Address([u32; 4]);

impl Address {
    /// From four bytes as they stand in an IPv4 header.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(bytes)])
    }

    /// From sixteen bytes as they stand in an IPv6 header.
    #[inline(always)]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }
}

impl From<core::net::IpAddr> for Address {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

/// Whether a packet is a piece of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// It is whole.
    Whole,
    /// The piece with the transport header.
    First,
    /// A later piece, without ports.
    Later,
}

/// What an IP header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// The version.
    pub family: Family,
    /// Where the IP header starts, in bytes from the start of the frame.
    pub header: usize,
    /// Where the transport header starts, likewise.
    pub payload: usize,
    /// Bytes of the packet from the IP header on, as the header says.
    pub len: usize,
    /// The protocol of the payload.
    pub protocol: u8,
    /// IPv4's type of service, IPv6's traffic class.
    pub traffic_class: u8,
    /// Whether this is a piece of a datagram.
    pub fragment: Fragment,
}

impl Ip {
    /// Where the packet ends, in bytes from the start of the frame.
    #[inline(always)]
    pub const fn end(&self) -> usize {
        self.header + self.len
    }
}

/// The fixed part of an IP header of either version, loaded but not yet believed.
pub trait Header: Sized {
    /// Loads it at `at`.
    ///
    /// # Errors
    /// `Truncated` where the frame ends before it.
    fn load<P: Packet>(packet: &P, at: usize) -> Result<Self, WireError>;

    /// The destination as a table key.
    fn destination_address(&self) -> Address;

    /// Checks the header against itself and the frame, and finds the transport header.
    ///
    /// # Errors
    /// `Malformed` where it contradicts itself or the frame; for IPv6 also `Truncated` where an extension header is cut
    /// short, and `TooDeep` for more of them than [`crate::limits::IPV6_EXTENSIONS_MAX`].
    fn check<P: Packet>(&self, packet: &P) -> Result<Ip, WireError>;

    /// The hash of the 5-tuple: SipHash-1-3 over source address, destination address, source port, destination port and
    /// protocol as they stand on the wire.
    fn flow_hash(&self, key: &SipKey, ports: Ports, protocol: u8) -> FlowHash;
}
