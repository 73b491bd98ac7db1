//! The data path, packet by packet: every frame goes through the decision on the host and through the loaded XDP program,
//! and what becomes of it is judged by crates and tools that Weir had no part in.
//!
//! Needs root and a kernel that takes the programs. Nothing is sent: a test run ends with the program's verdict.

mod conformance;
mod datagrams;
mod decap;
mod floods;
mod fragments;
mod icmp;
mod mangled;
mod pcaps;
mod test_run;
mod too_big;
mod tunnels;
mod vips;
#[expect(dead_code, reason = "the fuzzer uses the rest")]
mod worlds;
