//! The hashes of the data path: `SipHash` for flows, and the first words of SHA-1 and SHA-256 for MPTCP tokens.
//!
//! All of it runs inside XDP as well as on the host. It must never allocate, panic, print a key, or loop by a length
//! that the verifier cannot see; a stack frame here stays within 200 of the 512 bytes that BPF has.

pub mod sha1;
pub mod sha256;
pub mod sip;

pub use sip::SipKey;

/// The last sixteen words of a message schedule of SHA-1 or SHA-256, in four quarters that take turns.
pub type Schedule = [[u32; 4]; 4];

/// The only block of an eight-byte message: the message itself, a one bit, zeros, and its length of 64 bits.
#[inline(always)]
const fn padded(m: [u8; 8]) -> Schedule {
    let high = u32::from_be_bytes([m[0], m[1], m[2], m[3]]);
    let low = u32::from_be_bytes([m[4], m[5], m[6], m[7]]);
    [[high, low, 1 << 31, 0], [0; 4], [0; 4], [0, 0, 0, 64]]
}
