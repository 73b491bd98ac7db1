//! The packet cursor over XDP memory. This is the one place that turns an offset into packet memory; everything that
//! reads or writes a packet goes through it, so nothing can miss the check against the packet's end.

use aya_ebpf::{bindings::xdp_md, helpers::generated::bpf_xdp_get_buff_len};
use core::arch::asm;
use lb_common::packet::Packet;

/// A packet, as XDP shows it.
#[derive(Clone, Copy)]
pub struct Frame {
    md: *mut xdp_md,
}

impl Frame {
    /// The frame that a program was called for. `md` is the context that the kernel handed to the program.
    #[inline(always)]
    pub const fn new(md: *mut xdp_md) -> Self {
        Self { md }
    }

    #[inline(always)]
    pub const fn md(self) -> *mut xdp_md {
        self.md
    }

    /// The index of the interface that the frame came in by.
    #[inline(always)]
    pub fn interface(self) -> u32 {
        // SAFETY: as below.
        unsafe { (*self.md).ingress_ifindex }
    }

    #[inline(always)]
    fn start(self) -> usize {
        // SAFETY: `md` is the program's context, valid while the program runs.
        unsafe { (*self.md).data as usize }
    }

    #[inline(always)]
    fn end(self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.md).data_end as usize }
    }

    /// `N` bytes of the linear head at `offset`.
    #[inline(always)]
    fn at<const N: usize>(self, offset: usize) -> Option<*mut [u8; N]> {
        let start = self.start() + offset;
        if start + N > self.end() { None } else { Some(start as *mut [u8; N]) }
    }

    /// Overwrites the `N` bytes at `offset`; false where the linear head ends before them.
    #[inline(always)]
    #[must_use]
    pub fn store<const N: usize>(self, offset: usize, bytes: &[u8; N]) -> bool {
        let Some(place) = self.at(offset) else { return false };
        // SAFETY: `at` has checked that all N bytes lie in the packet, which no one else accesses now.
        unsafe { place.write_unaligned(*bytes) };
        true
    }
}

impl Packet for Frame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let place = self.at(offset)?;
        // SAFETY: `at` has checked that all N bytes lie in the packet.
        Some(unsafe { place.read_unaligned() })
    }

    #[inline(always)]
    fn below_64(mut offset: usize) -> usize {
        // SAFETY: one instruction on one register.
        unsafe { asm!("{0} &= 63", inout(reg) offset, options(pure, nomem, preserves_flags, nostack)) };
        offset
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        if self.start() + end <= self.end() {
            return true;
        }
        // SAFETY: the helper only reads the context.
        let whole = unsafe { bpf_xdp_get_buff_len(self.md) };
        end as u64 <= whole
    }
}
