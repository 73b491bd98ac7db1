//! The Internet checksum (RFC 1071): ones' complement sums of big-endian words.

/// The sum of `WORDS` words from `at` on, not yet folded.
#[inline(always)]
pub fn sum<const WORDS: usize>(bytes: &[u8], at: usize) -> u32 {
    let mut sum = 0;
    let mut i = 0;
    while i < WORDS {
        sum += u32::from(u16::from_be_bytes([bytes[at + 2 * i], bytes[at + 2 * i + 1]]));
        i += 1;
    }
    sum
}

/// A sum with its carries added, to 16 bits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded twice")]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum field for a sum.
#[inline(always)]
pub const fn finish(sum: u32) -> [u8; 2] {
    (!fold(sum)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn is_etherparses(bytes: [u8; 20]) {
            let expected = etherparse::checksum::Sum16BitWords::new().add_slice(&bytes).ones_complement();
            proptest::prop_assert_eq!(u16::from_ne_bytes(finish(sum::<10>(&bytes, 0))), expected);
        }
    }
}
