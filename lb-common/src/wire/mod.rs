//! Views of the headers in front of a TCP or UDP payload. Each parses once, with one bounds check, into a small value
//! whose accessors cannot fail. No view judges whether the packet is welcome; that is the decision's part.

pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ip;
pub mod ipv4;
pub mod ipv6;
pub mod quic;
pub mod tcp;
pub mod udp;

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The packet ends before the header does.
    Truncated,
    /// The header contradicts itself or the packet's length.
    Malformed,
    /// A chain of headers is longer than Weir walks.
    TooDeep,
}
