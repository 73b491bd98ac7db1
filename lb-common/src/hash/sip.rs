//! SipHash-1-3 (Aumasson and Bernstein, 2012): a short keyed hash that a stranger without the key cannot aim.
//!
//! The data path hashes whole 64-bit words that it already holds, so the kernel sees straight-line code. A key must
//! never be printed: whoever knows it can aim all of his flows at one backend.

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A key of `SipHash`, 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SipKey {
    k0: u64,
    k1: u64,
}

impl SipKey {
    /// A key from its 16 bytes, in the order in which the reference implementation reads them.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let key = u128::from_le_bytes(bytes);
        Self { k0: low_half(key), k1: low_half(key >> 64) }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
const fn low_half(wide: u128) -> u64 {
    wide as u64
}

impl fmt::Debug for SipKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SipKey(secret)")
    }
}

/// SipHash-1-3 of a message of `len` bytes: `words` are its whole little-endian 8-byte blocks, `tail` is the rest,
/// 0 to 7 bytes, little-endian and padded with zeros. So `len` is between `8 * WORDS` and `8 * WORDS + 7`.
#[inline(always)]
pub fn sip13<const WORDS: usize>(key: &SipKey, words: [u64; WORDS], tail: u64, len: u64) -> u64 {
    let mut state = State::new(key);
    for word in words {
        state = state.absorb(word);
    }
    state.finish(tail, len)
}

/// SipHash-1-3 of any bytes. For the host: in XDP the length of a slice is not known to the verifier.
pub fn sip13_bytes(key: &SipKey, bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<8>();
    let state = blocks.iter().fold(State::new(key), |state, block| state.absorb(u64::from_le_bytes(*block)));
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    state.finish(u64::from_le_bytes(tail), bytes.len() as u64)
}

#[derive(Clone, Copy)]
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    const fn new(key: &SipKey) -> Self {
        Self {
            v0: key.k0 ^ u64::from_be_bytes(*b"somepseu"),
            v1: key.k1 ^ u64::from_be_bytes(*b"dorandom"),
            v2: key.k0 ^ u64::from_be_bytes(*b"lygenera"),
            v3: key.k1 ^ u64::from_be_bytes(*b"tedbytes"),
        }
    }

    #[inline(always)]
    const fn absorb(mut self, word: u64) -> Self {
        self.v3 ^= word;
        self = self.round();
        self.v0 ^= word;
        self
    }

    /// The last block has the length of the message, modulo 256, in its highest byte.
    #[inline(always)]
    const fn finish(self, tail: u64, len: u64) -> u64 {
        let mut state = self.absorb(tail | len << 56);
        state.v2 ^= 0xff;
        let State { v0, v1, v2, v3 } = state.round().round().round();
        v0 ^ v1 ^ v2 ^ v3
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let Self { v0, v1, v2, v3 } = self;
        let v0 = v0.wrapping_add(v1);
        let v1 = v1.rotate_left(13) ^ v0;
        let v0 = v0.rotate_left(32);
        let v2 = v2.wrapping_add(v3);
        let v3 = v3.rotate_left(16) ^ v2;
        let v0 = v0.wrapping_add(v3);
        let v3 = v3.rotate_left(21) ^ v0;
        let v2 = v2.wrapping_add(v1);
        let v1 = v1.rotate_left(17) ^ v2;
        let v2 = v2.rotate_left(32);
        Self { v0, v1, v2, v3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;
    use zerocopy::IntoBytes;

    fn reference(key: [u8; 16], message: &[u8]) -> u64 {
        SipHasher13::new_with_key(&key).hash(message)
    }

    /// The kernel's way: the number of words is known at compile time.
    fn straight_line(key: [u8; 16], message: &[u8]) -> u64 {
        match message.len() / 8 {
            0 => with_words::<0>(key, message),
            1 => with_words::<1>(key, message),
            2 => with_words::<2>(key, message),
            3 => with_words::<3>(key, message),
            4 => with_words::<4>(key, message),
            5 => with_words::<5>(key, message),
            6 => with_words::<6>(key, message),
            7 => with_words::<7>(key, message),
            more => unreachable!("{more} words: the messages of these tests have at most 63 bytes"),
        }
    }

    fn with_words<const WORDS: usize>(key: [u8; 16], message: &[u8]) -> u64 {
        let (blocks, rest) = message.as_chunks::<8>();
        let words = core::array::from_fn(|i| u64::from_le_bytes(blocks[i]));
        let tail = rest.iter().rev().fold(0, |tail, byte| tail << 8 | u64::from(*byte));
        sip13::<WORDS>(&SipKey::from_bytes(key), words, tail, message.len() as u64)
    }

    proptest! {
        #[test]
        fn agrees_with_siphasher(key: [u8; 16], message in prop::collection::vec(any::<u8>(), 0..=63)) {
            let expected = reference(key, &message);
            prop_assert_eq!(straight_line(key, &message), expected);
            prop_assert_eq!(sip13_bytes(&SipKey::from_bytes(key), &message), expected);
        }

        #[test]
        fn long_messages(key: [u8; 16], message in prop::collection::vec(any::<u8>(), 0..=1000)) {
            prop_assert_eq!(sip13_bytes(&SipKey::from_bytes(key), &message), reference(key, &message));
        }
    }

    #[test]
    fn every_length() {
        let key = core::array::from_fn(|i| u8::try_from(i).expect("below 16"));
        let message: Vec<u8> = (0..63).collect();
        for len in 0..=message.len() {
            let message = &message[..len];
            assert_eq!(straight_line(key, message), reference(key, message), "{len} bytes");
        }
    }

    #[test]
    fn debug_hides_the_key() {
        let key = SipKey::from_bytes([0xa5; 16]);
        assert_eq!(format!("{key:?}"), "SipKey(secret)");
    }

    #[test]
    fn layout_is_the_bytes() {
        let bytes = core::array::from_fn(|i| u8::try_from(i).expect("below 16"));
        assert_eq!(SipKey::from_bytes(bytes).as_bytes(), bytes);
    }
}
