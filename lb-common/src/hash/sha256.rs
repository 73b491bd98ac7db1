//! The first word of SHA-256 (FIPS 180-4) of an eight-byte message: MPTCP's token of a v1 key (RFC 8684, 3.2).
//!
//! Shaped for BPF, which has no rotate instruction, few registers and 512 bytes of stack. Four rounds are one step of a
//! loop: 220 ns, 192 bytes of stack. One round a step takes 330 ns; with all 64 unrolled it takes 200, but 464 bytes of
//! stack and 15 kB of code. It must never be asked for a message of another length: its padding is constant.
#![expect(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]

use super::{Schedule, padded};

/// The first four digest bytes of SHA-256, as they go over the wire.
#[inline(always)]
pub fn first_word(message: [u8; 8]) -> [u8; 4] {
    first_word_with(message, &mut [[0; 4]; 4])
}

/// The same with the memory for the message schedule: 64 bytes that need not be of the stack.
#[inline(always)]
pub fn first_word_with(message: [u8; 8], schedule: &mut Schedule) -> [u8; 4] {
    *schedule = padded(message);
    let mut state = INITIAL;
    for step in 0..16 {
        if step >= 4 {
            extend(schedule, step);
        }
        state = four_rounds(state, &CONSTANTS[step], &schedule[step & 3]);
    }
    INITIAL[0].wrapping_add(state[0]).to_be_bytes()
}

/// The working variables a to h.
type State = [u32; 8];

/// Replaces the oldest quarter of the schedule by the four words of `step`.
#[inline(always)]
const fn extend(w: &mut Schedule, step: usize) {
    let (now, older, newer, last) = (step & 3, (step + 1) & 3, (step + 2) & 3, (step + 3) & 3);
    w[now][0] = next_word(w[now][0], w[now][1], w[newer][1], w[last][2]);
    w[now][1] = next_word(w[now][1], w[now][2], w[newer][2], w[last][3]);
    w[now][2] = next_word(w[now][2], w[now][3], w[newer][3], w[now][0]);
    w[now][3] = next_word(w[now][3], w[older][0], w[last][0], w[now][1]);
}

/// A word of the schedule from those 16, 15, 7 and 2 before it.
#[inline(always)]
const fn next_word(w16: u32, w15: u32, w7: u32, w2: u32) -> u32 {
    let sigma0 = rotations([7, 18], w15) ^ (w15 >> 3);
    let sigma1 = rotations([17, 19], w2) ^ (w2 >> 10);
    w16.wrapping_add(sigma0).wrapping_add(w7).wrapping_add(sigma1)
}

#[inline(always)]
const fn four_rounds(s: State, k: &[u32; 4], w: &[u32; 4]) -> State {
    let s = round(s, k[0].wrapping_add(w[0]));
    let s = round(s, k[1].wrapping_add(w[1]));
    let s = round(s, k[2].wrapping_add(w[2]));
    round(s, k[3].wrapping_add(w[3]))
}

#[inline(always)]
const fn round([a, b, c, d, e, f, g, h]: State, constant_and_word: u32) -> State {
    let choice = g ^ (e & (f ^ g));
    let majority = b ^ ((a ^ b) & (b ^ c));
    let t1 = h.wrapping_add(constant_and_word).wrapping_add(choice).wrapping_add(rotations([6, 11, 25], e));
    let t2 = rotations([2, 13, 22], a).wrapping_add(majority);
    [t1.wrapping_add(t2), a, b, c, d.wrapping_add(t1), e, f, g]
}

/// The sum modulo 2 of `word` rotated right by each of `distances`, which ascend.
///
/// A word beside its own copy turns a rotation into one shift, where BPF needs three instructions; and to shift the
/// sum by the difference of two distances needs fewer copies than to shift the word by each.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is the rotated word")]
const fn rotations<const N: usize>(distances: [u32; N], word: u32) -> u32 {
    let twice = (word as u64) << 32 | word as u64;
    let mut sum = 0;
    let mut i = N;
    while i > 1 {
        i -= 1;
        sum = (sum ^ twice) >> (distances[i] - distances[i - 1]);
    }
    ((sum ^ twice) >> distances[0]) as u32
}

const INITIAL: State =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

static CONSTANTS: [[u32; 4]; 16] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
    [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
    [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
    [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
    [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
    [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
    [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
    [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
    [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    /// RFC 8684 gives no vectors; the third key and its token are from a capture whose `MP_JOIN` confirms them.
    #[test]
    fn known_tokens() {
        for (key, token) in
            [(0, 0xaf55_70f5), (0x0102_0304_0506_0708, 0x6684_0dda), (0xac47_5c49_cfd7_f249, 0x3c61_4612)]
        {
            assert_eq!(first_word(u64::to_be_bytes(key)), u32::to_be_bytes(token), "key {key:016x}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_sha2(message: [u8; 8]) {
            prop_assert_eq!(&first_word(message)[..], &Sha256::digest(message)[..4]);
        }
    }
}
