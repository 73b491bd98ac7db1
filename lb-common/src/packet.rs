//! The packet cursor: the only way in which the decision sees a packet. In XDP it is a checked pointer, on the host a
//! slice. It must never hand out a byte beyond the packet, and never a reference into it.

use crate::{mptcp::Options, wire::tcp::Tcp};

/// A packet that starts with its Ethernet header.
pub trait Packet: Sized {
    /// The `N` bytes at `offset`, or nothing where the packet (in XDP: its linear head) ends before them.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Whether the whole frame, beyond its linear head if need be, has at least `end` bytes.
    fn holds(&self, end: usize) -> bool;

    /// The MPTCP options of a TCP header. The kernel walks them in a function of its own, which the verifier checks once.
    fn mptcp_options(&self, tcp: &Tcp) -> Options {
        Options::scan(self, tcp.options, tcp.options_len)
    }

    /// `offset`, known to be below 64. The kernel's verifier has to see the bound in every step of a walk over TCP
    /// options, where LLVM removes a plain `& 63` that it can prove redundant.
    #[inline(always)]
    fn below_64(offset: usize) -> usize {
        offset & 63
    }
}

/// A frame on the host.
impl Packet for &[u8] {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn holds(&self, end: usize) -> bool {
        end <= self.len()
    }
}
