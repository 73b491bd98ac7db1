//! What a packet benchmark in the kernel is told: how each packet differs from the one before. The lab writes it, the
//! wrapper around the balancer reads it. No part of the data path.

use core::net::{Ipv4Addr, Ipv6Addr};

use crate::{
    ids::Token,
    wire::{checksum, ipv4},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a TCP segment after its ports that a benchmark with two kinds of packets replaces: the rest of the fixed
/// header and 32 bytes of options.
pub const SEGMENT: usize = 48;
/// Bytes from the start of the TCP header to what [`Plan::varies`] names: a token behind the options of a Linux SYN,
/// and the server's key behind the timestamps of a third packet, stand in the same place.
pub const VARIED: usize = 44;

/// The network of generated packets' clients: 198.18.0.0/15, which is for benchmarks (RFC 2544, C.2.2).
pub const CLIENTS: u32 = 0xc612_0000;
/// The bits of an address that are that network's.
pub const CLIENTS_MASK: u32 = 0xfffe_0000;

/// What changes from packet to packet, beside the flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Varies(pub u8);

impl Varies {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// The token of an `MP_JOIN`.
    pub const TOKEN: Self = Self(1);
    /// The server's key: a new one with every second packet.
    pub const KEY: Self = Self(2);
}

/// How a benchmark makes its packets out of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Plan {
    /// The Ethernet header, which a tunnel overwrites.
    pub ethernet: [u8; 14],
    /// Bytes that a tunnel puts in front of the packet.
    pub pushed: u16,
    /// How many flows take turns; with one, the packet's own stays.
    pub flows: u32,
    /// From one flow to the next; without a common divisor with `flows`.
    pub stride: u32,
    /// The present flow.
    pub flow: u32,
    /// Packets so far.
    pub packets: u32,
    /// Flows that were given an entry, or had one.
    pub tracked: u32,
    /// The last 32 bits of the first client's address.
    pub client: u32,
    /// The service's port.
    pub port: u16,
    /// 1 where the packet is IPv6.
    pub ipv6: u8,
    /// What else changes.
    pub varies: Varies,
    /// The tokens that take turns, a power of two.
    pub tokens: u32,
    /// The VIPs that take turns, a power of two; with one, the packet's own stays.
    pub vips: u32,
    /// The last 32 bits of the first one's address, which the others follow.
    pub vip: u32,
    /// 1 where each flow sends both `segments`, one after the other.
    pub alternates: u32,
    /// The two segments, from the sequence number on.
    pub segments: [[u8; SEGMENT]; 2],
}

const _: () = assert!(size_of::<Plan>() == 156);

/// All that a bare program needs to know to send the packets for one service to one backend, in IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hop {
    /// The service's address.
    pub vip_v4: [u8; 4],
    /// The same over IPv6.
    pub vip_v6: [u8; 16],
    /// The outer header, without its length, protocol and checksum.
    pub outer: [u8; ipv4::HEADER_LEN],
    /// The sum of that header's words.
    pub sum: u32,
}

const _: () = assert!(size_of::<Hop>() == 44);

impl Hop {
    /// Of packets for these addresses, from one address to another.
    pub fn new(vip_v4: Ipv4Addr, vip_v6: Ipv6Addr, source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        let mut outer = [0; ipv4::HEADER_LEN];
        outer[0] = 0x45;
        outer[6] = 0x40; // don't fragment
        outer[8] = 64;
        outer[12..16].copy_from_slice(&source.octets());
        outer[16..20].copy_from_slice(&destination.octets());
        let (vip_v4, vip_v6) = (vip_v4.octets(), vip_v6.octets());
        Self { vip_v4, vip_v6, sum: checksum::sum::<{ ipv4::HEADER_LEN / 2 }>(&outer, 0), outer }
    }
}

/// The token with a number: scattered, and as unique as the number.
#[inline(always)]
pub const fn token(number: u32) -> Token {
    Token::from_wire(number.wrapping_mul(0x9e37_79b1).to_be_bytes())
}

/// The server's key with a number.
#[inline(always)]
pub const fn key(number: u32) -> [u8; 8] {
    (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

/// The last 32 bits of the client's address of a flow, and its port: not two flows have the same.
#[inline(always)]
pub const fn client(first: u32, flow: u32) -> (u32, u16) {
    (first.wrapping_add(flow >> 15), 0x8000 | (flow & 0x7fff) as u16)
}
