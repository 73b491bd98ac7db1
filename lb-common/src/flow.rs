//! The flow hash: one keyed hash of the 5-tuple serves the ring, the tables and the spread of tunnels. Other bits of it
//! for each, so that none tells the others.

use crate::{
    hash::{SipKey, sip::sip13},
    ids::{FlowHash, PoolId},
    tables::{RING_CHUNKS, RING_SLOTS, SLOTS_PER_CHUNK},
    wire::ip::Address,
};

/// Source and destination port of a packet from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The client's.
    pub source: u16,
    /// The service's.
    pub destination: u16,
}

impl Ports {
    /// The last five bytes of a 5-tuple (source port, destination port, protocol) as a little-endian number.
    #[inline(always)]
    const fn tail(self, protocol: u8) -> u64 {
        self.source.to_be() as u64 | (self.destination.to_be() as u64) << 16 | (protocol as u64) << 32
    }
}

/// An address as it stands in an IP header, and the keyed hashes that it takes part in. Each kind of message has a length
/// of its own, so that no hash of one kind is ever one of another.
pub trait WireAddress: Copy + PartialEq {
    /// As a table key.
    fn key(self) -> Address;

    /// Of a 5-tuple: SipHash-1-3 over source address, destination address, source port, destination port and protocol, 13
    /// or 37 bytes as they stand on the wire. `self` is the source.
    fn flow_hash(self, key: &SipKey, destination: Self, ports: Ports, protocol: u8) -> FlowHash;

    /// Of a source address alone, 4 or 16 bytes.
    fn source_hash(self, key: &SipKey) -> FlowHash;

    /// Of a datagram in pieces: over both addresses, the number that the pieces share, and the protocol; a zero byte makes
    /// it 14 or 38 bytes. `self` is the source.
    fn datagram_hash(self, key: &SipKey, destination: Self, number: u32, protocol: u8) -> FlowHash;

    /// Of the network that the address is likely to share with its neighbours: /24 or /48, padded to 3 or 7 bytes.
    fn network_hash(self, key: &SipKey) -> FlowHash;
}

#[inline(always)]
const fn pieces_tail(number: u32, protocol: u8) -> u64 {
    number as u64 | (protocol as u64) << 32
}

impl WireAddress for [u8; 4] {
    #[inline(always)]
    fn key(self) -> Address {
        Address::v4(self)
    }

    #[inline(always)]
    fn flow_hash(self, key: &SipKey, destination: Self, ports: Ports, protocol: u8) -> FlowHash {
        FlowHash(sip13(key, [pair(self, destination)], ports.tail(protocol), 13))
    }

    #[inline(always)]
    fn source_hash(self, key: &SipKey) -> FlowHash {
        FlowHash(sip13(key, [], u64::from(u32::from_le_bytes(self)), 4))
    }

    #[inline(always)]
    fn datagram_hash(self, key: &SipKey, destination: Self, number: u32, protocol: u8) -> FlowHash {
        FlowHash(sip13(key, [pair(self, destination)], pieces_tail(number, protocol), 14))
    }

    #[inline(always)]
    fn network_hash(self, key: &SipKey) -> FlowHash {
        FlowHash(sip13(key, [], u64::from(u32::from_le_bytes(self) & 0xff_ffff), 3))
    }
}

impl WireAddress for [u8; 16] {
    #[inline(always)]
    fn key(self) -> Address {
        Address::v6(self)
    }

    #[inline(always)]
    fn flow_hash(self, key: &SipKey, destination: Self, ports: Ports, protocol: u8) -> FlowHash {
        let ([s0, s1], [d0, d1]) = (words(self), words(destination));
        FlowHash(sip13(key, [s0, s1, d0, d1], ports.tail(protocol), 37))
    }

    #[inline(always)]
    fn source_hash(self, key: &SipKey) -> FlowHash {
        FlowHash(sip13(key, words(self), 0, 16))
    }

    #[inline(always)]
    fn datagram_hash(self, key: &SipKey, destination: Self, number: u32, protocol: u8) -> FlowHash {
        let ([s0, s1], [d0, d1]) = (words(self), words(destination));
        FlowHash(sip13(key, [s0, s1, d0, d1], pieces_tail(number, protocol), 38))
    }

    #[inline(always)]
    fn network_hash(self, key: &SipKey) -> FlowHash {
        let [high, _] = words(self);
        FlowHash(sip13(key, [], high & 0xffff_ffff_ffff, 7))
    }
}

#[inline(always)]
const fn pair(source: [u8; 4], destination: [u8; 4]) -> u64 {
    u32::from_le_bytes(source) as u64 | (u32::from_le_bytes(destination) as u64) << 32
}

#[inline(always)]
const fn words(b: [u8; 16]) -> [u64; 2] {
    [
        u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
        u64::from_le_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
    ]
}

impl FlowHash {
    /// The slot of the ring: the high half scaled to the number of slots, without a division.
    #[inline(always)]
    pub const fn slot(self) -> u32 {
        (((self.0 >> 32) * RING_SLOTS as u64) >> 32) as u32
    }

    /// A source port for a UDP tunnel, from the dynamic range (RFC 6335, 6).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "fourteen bits")]
    pub const fn port(self) -> u16 {
        0xc000 | (self.0 >> 12) as u16 & 0x3fff
    }

    /// Bits for the host part of a tunnel's source address.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "thirty-two bits")]
    pub const fn host_bits(self) -> u32 {
        (self.0 >> 8) as u32
    }

    /// Twenty bits for the flow label of an IPv6 tunnel (RFC 6438).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "twenty bits")]
    pub const fn label(self) -> u32 {
        (self.0 >> 8) as u32 & 0xf_ffff
    }
}

/// Where a pool's slot is: the index of its chunk, and its place there.
#[inline(always)]
pub const fn slot_place(pool: PoolId, slot: u32) -> (u32, usize) {
    (pool.0 as u32 * RING_CHUNKS + slot / SLOTS_PER_CHUNK, (slot % SLOTS_PER_CHUNK) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ip::Header as _, ipv4::Ipv4, ipv6::Ipv6};
    use siphasher::sip::SipHasher13;
    use std::hash::Hasher as _;

    fn reference(key: [u8; 16], parts: &[&[u8]]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&key);
        for part in parts {
            hasher.write(part);
        }
        hasher.finish()
    }

    proptest::proptest! {
        #[test]
        fn is_siphash_of_the_wire_bytes(key: [u8; 16], header: [u8; 40], source: u16, destination: u16, protocol: u8) {
            let sip = SipKey::from_bytes(key);
            let ports = Ports { source, destination };
            let tail = [&source.to_be_bytes()[..], &destination.to_be_bytes(), &[protocol]].concat();

            let v4 = Ipv4::load(&&header[..], 0).unwrap();
            let hash = v4.source().flow_hash(&sip, v4.destination(), ports, protocol);
            proptest::prop_assert_eq!(hash.0, reference(key, &[&header[12..20], &tail]));
            let v6 = Ipv6::load(&&header[..], 0).unwrap();
            let hash = v6.source().flow_hash(&sip, v6.destination(), ports, protocol);
            proptest::prop_assert_eq!(hash.0, reference(key, &[&header[8..40], &tail]));
        }

        #[test]
        fn other_hashes_are_siphash_of_their_bytes(key: [u8; 16], source: [u8; 16], destination: [u8; 16], number: u32, protocol: u8) {
            let sip = SipKey::from_bytes(key);
            let tail = [&number.to_le_bytes()[..], &[protocol, 0]].concat();
            let hash = source.datagram_hash(&sip, destination, number, protocol);
            proptest::prop_assert_eq!(hash.0, reference(key, &[&source, &destination, &tail]));
            proptest::prop_assert_eq!(source.source_hash(&sip).0, reference(key, &[&source]));
            proptest::prop_assert_eq!(source.network_hash(&sip).0, reference(key, &[&source[..6], &[0]]));

            let [v4, to]: [[u8; 4]; 2] = [&source, &destination].map(|address| *address.first_chunk().unwrap());
            let hash = v4.datagram_hash(&sip, to, number, protocol);
            proptest::prop_assert_eq!(hash.0, reference(key, &[&v4, &to, &tail]));
            proptest::prop_assert_eq!(v4.source_hash(&sip).0, reference(key, &[&v4]));
            proptest::prop_assert_eq!(v4.network_hash(&sip).0, reference(key, &[&v4[..3]]));
        }

        #[test]
        fn a_slot_is_in_the_ring(hash: u64) {
            proptest::prop_assert!(FlowHash(hash).slot() < RING_SLOTS);
        }
    }

    #[test]
    fn slots_are_even() {
        assert_eq!(FlowHash(0).slot(), 0);
        assert_eq!(FlowHash(u64::MAX).slot(), RING_SLOTS - 1);
        assert_eq!(FlowHash(1 << 63).slot(), RING_SLOTS / 2);
    }
}
