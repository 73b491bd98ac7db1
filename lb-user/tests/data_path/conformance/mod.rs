//! The conformance cases of MPTCP steering, each a test with its number, over IPv4 and IPv6.

mod handshake;
