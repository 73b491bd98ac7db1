//! The first word of SHA-1 (FIPS 180-4) of an eight-byte message: MPTCP's token of a v0 key (RFC 6824, 3.2).
//!
//! Shaped for BPF: four rounds are one step of a loop, so that both the code and the stack frame stay small. Here SHA-1
//! only names connections, as the RFC demands; it must never be used where collisions matter, nor on another length.
#![expect(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]

use super::{Schedule, padded};
use core::ops::Range;

/// The first four digest bytes of SHA-1, as they go over the wire.
#[inline(always)]
pub fn first_word(message: [u8; 8]) -> [u8; 4] {
    let w = &mut padded(message);
    let state = INITIAL;
    let state = steps(0..5, state, w, 0x5a82_7999, choice);
    let state = steps(5..10, state, w, 0x6ed9_eba1, parity);
    let state = steps(10..15, state, w, 0x8f1b_bcdc, majority);
    let state = steps(15..20, state, w, 0xca62_c1d6, parity);
    INITIAL[0].wrapping_add(state[0]).to_be_bytes()
}

/// The working variables a to e.
type State = [u32; 5];

const INITIAL: State = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];

/// The rounds of `steps`, four in each, all with the same constant and function.
#[inline(always)]
fn steps(
    steps: Range<usize>,
    mut state: State,
    w: &mut Schedule,
    constant: u32,
    function: impl Fn(u32, u32, u32) -> u32 + Copy,
) -> State {
    for step in steps {
        if step >= 4 {
            extend(w, step);
        }
        for word in w[step & 3] {
            state = round(state, constant.wrapping_add(word), function);
        }
    }
    state
}

/// Replaces the oldest quarter of the schedule by the four words of `step`.
#[inline(always)]
const fn extend(w: &mut Schedule, step: usize) {
    let (now, older, newer, last) = (step & 3, (step + 1) & 3, (step + 2) & 3, (step + 3) & 3);
    w[now][0] = rotate::<1>(w[now][0] ^ w[now][2] ^ w[newer][0] ^ w[last][1]);
    w[now][1] = rotate::<1>(w[now][1] ^ w[now][3] ^ w[newer][1] ^ w[last][2]);
    w[now][2] = rotate::<1>(w[now][2] ^ w[older][0] ^ w[newer][2] ^ w[last][3]);
    w[now][3] = rotate::<1>(w[now][3] ^ w[older][1] ^ w[newer][3] ^ w[now][0]);
}

#[inline(always)]
fn round([a, b, c, d, e]: State, constant_and_word: u32, function: impl Fn(u32, u32, u32) -> u32) -> State {
    let next = rotate::<5>(a).wrapping_add(function(b, c, d)).wrapping_add(e).wrapping_add(constant_and_word);
    [next, a, rotate::<30>(b), c, d]
}

#[inline(always)]
const fn choice(b: u32, c: u32, d: u32) -> u32 {
    d ^ (b & (c ^ d))
}

#[inline(always)]
const fn parity(b: u32, c: u32, d: u32) -> u32 {
    b ^ c ^ d
}

#[inline(always)]
const fn majority(b: u32, c: u32, d: u32) -> u32 {
    (b & c) | (d & (b | c))
}

/// `word` rotated left. A word beside its own copy needs one shift, where BPF would need three instructions.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is the rotated word")]
const fn rotate<const LEFT: u32>(word: u32) -> u32 {
    let twice = (word as u64) << 32 | word as u64;
    (twice >> (32 - LEFT)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha1::{Digest as _, Sha1};

    /// The last key and its token are from a capture whose `MP_JOIN` confirms them.
    #[test]
    fn known_tokens() {
        for (key, token) in [
            (0, 0x05fe_4057),
            (0x0102_0304_0506_0708, 0xdd57_83bc),
            (0xac47_5c49_cfd7_f249, 0x8363_dc18),
            (0x967d_2770_b696_0552, 0xe47f_0142),
        ] {
            assert_eq!(first_word(u64::to_be_bytes(key)), u32::to_be_bytes(token), "key {key:016x}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_sha1(message: [u8; 8]) {
            prop_assert_eq!(&first_word(message)[..], &Sha1::digest(message)[..4]);
        }
    }
}
