//! What a packet benchmark in the kernel is told: how each packet differs from the one before. The lab writes it, the
//! wrapper around the balancer reads it. No part of the data path.

use crate::ids::Token;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a TCP segment after its ports that a benchmark with two kinds of packets replaces: the rest of the fixed
/// header and 32 bytes of options.
pub const SEGMENT: usize = 48;
/// Bytes from the start of the TCP header to what [`Plan::varies`] names: a token behind the options of a Linux SYN,
/// and the server's key behind the timestamps of a third packet, stand in the same place.
pub const VARIED: usize = 44;

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
    /// 1 where each flow sends both `segments`, one after the other.
    pub alternates: u32,
    /// The two segments, from the sequence number on.
    pub segments: [[u8; SEGMENT]; 2],
}

const _: () = assert!(size_of::<Plan>() == 148);

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
