//! The packet cursor: the only way in which the decision sees a packet, and the only one in which its verdict changes it.
//! In XDP it is a checked pointer, on the host a slice or a [`crate::host::HostFrame`]. It must never reach a byte beyond
//! the packet.

use crate::{clamp::find_mss, mptcp::Options, wire::tcp::Tcp};

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

    /// Where the number of an MSS option stands among the `len` bytes of TCP options that start at `options`. Likewise a
    /// function of its own in the kernel.
    fn mss(&self, options: usize, len: usize) -> Option<usize> {
        find_mss(self, options, len)
    }

    /// `offset`, known to be below 64. The kernel's verifier has to see the bound in every step of a walk over TCP
    /// options, where LLVM removes a plain `& 63` that it can prove redundant.
    #[inline(always)]
    fn below_64(offset: usize) -> usize {
        offset & 63
    }

    /// `value` itself. Where many ways lead to one place, LLVM would make a copy of the place for each, knowing more of the
    /// value in each; in the kernel this keeps it from that.
    #[inline(always)]
    fn merged(value: u64) -> u64 {
        value
    }

    /// `offset` of something in a packet's headers, known to be below 2^14: what comes out of memory could be anything to
    /// the kernel's verifier.
    #[inline(always)]
    fn in_headers(offset: usize) -> usize {
        offset & 0x3fff
    }

    /// `offset`, known to be below 64. The kernel's verifier is not to know which it is of a few that are possible, or it
    /// walks all that follows once for each.
    #[inline(always)]
    fn opaque_below_64(offset: usize) -> usize {
        offset & 63
    }
}

/// A packet that can be changed, by what was decided for it.
pub trait Frame: Packet {
    /// The `N` bytes at `offset`, to be written; nothing where the packet (in XDP: its linear head) ends before them.
    fn place<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]>;

    /// Moves the packet's start by `bytes`: back into the headroom, or forward into the packet. False where that cannot
    /// be.
    #[must_use]
    fn move_start(&mut self, bytes: i32) -> bool;

    /// Cuts the packet's end off so that `len` bytes remain. False where it is shorter already.
    #[must_use]
    fn cut_to(&mut self, len: usize) -> bool;
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
