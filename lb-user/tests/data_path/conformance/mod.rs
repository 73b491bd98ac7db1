//! The conformance cases of MPTCP steering, each a test with its number, over IPv4 and IPv6.
//!
//! What is right is said here by the cases' own words: which backend, for which reason, and what is remembered of it.

mod counted;
mod endpoint;
mod handshake;
mod join;
mod layers;
mod parser;
mod state;
mod stateless;
mod sweep;
mod teardown;
