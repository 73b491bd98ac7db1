//! The flow hash: one keyed hash of the 5-tuple serves the ring, the tables and the spread of tunnels. Other bits of it
//! for each, so that none tells the others.

use crate::{
    hash::{SipKey, sip::sip13},
    ids::{FlowHash, PoolId},
    tables::RING_SLOTS,
    wire::{ipv4::Ipv4, ipv6::Ipv6},
};

/// Source and destination port, as they stand in the header.
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

/// SipHash-1-3 over source address, destination address, source port, destination port and protocol, 13 bytes as they
/// stand on the wire.
#[inline(always)]
pub fn hash_v4(key: &SipKey, ip: &Ipv4, ports: Ports, protocol: u8) -> FlowHash {
    let source = u32::from_le_bytes(ip.source());
    let destination = u32::from_le_bytes(ip.destination());
    let addresses = u64::from(source) | u64::from(destination) << 32;
    FlowHash(sip13(key, [addresses], ports.tail(protocol), 13))
}

/// The same over IPv6's 37 bytes.
#[inline(always)]
pub fn hash_v6(key: &SipKey, ip: &Ipv6, ports: Ports, protocol: u8) -> FlowHash {
    let [s0, s1] = words(ip.source());
    let [d0, d1] = words(ip.destination());
    FlowHash(sip13(key, [s0, s1, d0, d1], ports.tail(protocol), 37))
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

    /// Twenty bits for the flow label of an IPv6 tunnel (RFC 6438).
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "twenty bits")]
    pub const fn label(self) -> u32 {
        (self.0 >> 8) as u32 & 0xf_ffff
    }
}

/// The index of a pool's slot where all rings lie one after the other.
#[inline(always)]
pub const fn slot_index(pool: PoolId, slot: u32) -> u32 {
    pool.0 as u32 * RING_SLOTS + slot
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ip::Header as _;
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
            proptest::prop_assert_eq!(hash_v4(&sip, &v4, ports, protocol).0, reference(key, &[&header[12..20], &tail]));
            let v6 = Ipv6::load(&&header[..], 0).unwrap();
            proptest::prop_assert_eq!(hash_v6(&sip, &v6, ports, protocol).0, reference(key, &[&header[8..40], &tail]));
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
