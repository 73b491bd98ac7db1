//! What both IP versions tell the decision.

use super::WireError;
use crate::{flow::WireAddress, packet::Packet};
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
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

impl Address {
    /// Its two halves as they lie in memory.
    #[inline(always)]
    pub(crate) const fn halves(&self) -> [u64; 2] {
        let [a, b, c, d] = self.0;
        [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
    }

    /// The first `len` bits, and zeros; an IPv4 prefix counts 96 bits more.
    #[must_use]
    pub fn masked(self, len: u32) -> Self {
        let bits = self.0.map(u32::from_be);
        let whole =
            u128::from(bits[0]) << 96 | u128::from(bits[1]) << 64 | u128::from(bits[2]) << 32 | u128::from(bits[3]);
        let mask = u128::MAX.checked_shl(128 - len.min(128)).unwrap_or(0);
        Self::v6((whole & mask).to_be_bytes())
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

/// What an IP header says. In C's order, so that what LLVM makes of it on the kernel's stack is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Ip {
    /// Where the IP header starts, in bytes from the start of the frame.
    pub header: usize,
    /// Where the transport header starts, likewise.
    pub payload: usize,
    /// Bytes of the packet from the IP header on, as the header says.
    pub len: usize,
    /// The number that all pieces of a datagram share; means nothing where it is whole.
    pub datagram: u32,
    /// Whether this is a piece of a datagram.
    pub fragment: Fragment,
    /// The version.
    pub family: Family,
    /// The protocol of the payload.
    pub protocol: u8,
    /// IPv4's type of service, IPv6's traffic class.
    pub traffic_class: u8,
}

impl Ip {
    /// What is no packet.
    pub const NONE: Self = Self {
        family: Family::V4,
        header: 0,
        payload: 0,
        len: 0,
        protocol: 0,
        traffic_class: 0,
        datagram: 0,
        fragment: Fragment::Whole,
    };

    /// Where the packet ends, in bytes from the start of the frame.
    #[inline(always)]
    pub const fn end(&self) -> usize {
        self.header + self.len
    }
}

/// The fixed part of an IP header of either version, loaded but not yet believed.
pub trait Header: Sized {
    /// Its addresses.
    type Address: WireAddress;

    /// Loads it at `at`.
    ///
    /// # Errors
    /// `Truncated` where the frame ends before it.
    fn load<P: Packet>(packet: &P, at: usize) -> Result<Self, WireError>;

    /// The source address.
    fn source(&self) -> Self::Address;

    /// The destination address.
    fn destination(&self) -> Self::Address;

    /// Whether TCP or UDP follows at once: no options, no extension headers, no fragment.
    fn is_plain(&self) -> bool;

    /// Whether ICMP of this version follows at once; in IPv4 behind options too.
    fn is_icmp(&self) -> bool;

    /// Checks the header against itself, and finds the transport header. The frame may hold less than the whole packet, as
    /// an ICMP error's quotation does.
    ///
    /// # Errors
    /// `Malformed` where it contradicts itself; for IPv6 also `Truncated` where an extension header is cut short, and
    /// `TooDeep` for more of them than [`crate::limits::IPV6_EXTENSIONS_MAX`].
    fn outline<P: Packet>(&self, packet: &P) -> Result<Ip, WireError>;

    /// The same, and the frame holds the whole packet.
    ///
    /// # Errors
    /// As [`Self::outline`], and `Malformed` where the frame ends before the packet.
    fn check<P: Packet>(&self, packet: &P) -> Result<Ip, WireError>;
}
