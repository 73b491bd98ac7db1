//! What both worlds of Weir share: packet views, MPTCP options, tokens, hashing, the steering decision, table keys and
//! values, verdicts and reasons, limits.
//!
//! The code here runs inside the kernel, as part of the XDP program, and on the host, under test. It knows nothing of
//! BPF, tokio or files, allocates nothing (but for the `std` feature's ring builder and host tables), and has no unsafe
//! code.
#![cfg_attr(not(any(test, feature = "std")), no_std)]

pub mod addresses;
pub mod answer;
pub mod bench;
pub mod clamp;
pub mod decap;
pub mod encap;
pub mod flow;
pub mod hash;
#[cfg(any(test, feature = "std"))]
pub mod host;
pub mod ids;
pub mod limits;
pub mod mint;
pub mod mptcp;
pub mod packet;
pub mod probe;
pub mod programs;
pub mod reason;
pub mod recent;
pub mod rekey;
#[cfg(any(test, feature = "std"))]
pub mod ring;
pub mod share;
pub mod stateless;
pub mod steer;
pub mod tables;
pub mod trace;
#[cfg(any(test, feature = "std"))]
pub mod transition;
pub mod wire;
