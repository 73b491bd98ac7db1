//! The packet cursor over XDP memory. This is the one place that turns an offset into packet memory; everything that
//! reads or writes a packet goes through it, so nothing can miss the check against the packet's end.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
};
use core::arch::asm;
use lb_common::{mptcp::Options, packet::Packet, wire::tcp::Tcp};

/// A packet, as XDP shows it.
pub struct Frame {
    md: *mut xdp_md,
}

impl Frame {
    /// The frame that a program was called for. `md` is the context that the kernel handed to the program.
    #[inline(always)]
    pub const fn new(md: *mut xdp_md) -> Self {
        Self { md }
    }

    /// The index of the interface that the frame came in by.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: as below.
        unsafe { (*self.md).ingress_ifindex }
    }

    #[inline(always)]
    fn start(&self) -> usize {
        // SAFETY: `md` is the program's context, valid while the program runs.
        unsafe { (*self.md).data as usize }
    }

    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as above.
        unsafe { (*self.md).data_end as usize }
    }

    /// `N` bytes of the linear head at `offset`.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        let start = self.start() + offset;
        if start + N > self.end() { None } else { Some(start as *mut [u8; N]) }
    }

    /// The `N` bytes at `offset`, to be written; nothing where the linear head ends before them.
    #[inline(always)]
    pub fn place<'f, const N: usize>(&'f mut self, offset: usize) -> Option<&'f mut [u8; N]> {
        let place = self.at(offset)?;
        // SAFETY: `at` has checked that all N bytes lie in the packet; while the reference lives, the exclusive borrow of
        // the frame keeps the packet from being moved or read through it.
        Some(unsafe { &mut *place })
    }

    /// Moves the packet's start by `bytes`: back into the headroom, or forward into the packet. False where that cannot be.
    #[inline(always)]
    #[must_use]
    pub fn move_start(&mut self, bytes: i32) -> bool {
        // SAFETY: the helper refuses what does not fit; no reference into the packet outlives the exclusive borrow.
        unsafe { bpf_xdp_adjust_head(self.md, bytes) == 0 }
    }

    /// Cuts the packet's end off so that `len` bytes remain. False where it is shorter already.
    #[inline(always)]
    #[must_use]
    pub fn cut_to(&mut self, len: usize) -> bool {
        // SAFETY: the helper only reads the context.
        let whole = unsafe { bpf_xdp_get_buff_len(self.md) };
        // SAFETY: as in `move_start`.
        unsafe { bpf_xdp_adjust_tail(self.md, len as i32 - whole as i32) == 0 }
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
    fn mptcp_options(&self, tcp: &Tcp) -> Options {
        Options::unpack(scan_options(self.md, tcp.options as u64, tcp.options_len as u64))
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

/// A function of its own: the verifier walks the options once, not once for each way that leads to them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_options(md: *mut xdp_md, mut options: u64, len: u64) -> u64 {
    // SAFETY: one instruction on one register. The verifier knows nothing of the argument, and has to see that adding it
    // to the packet's start cannot overflow.
    unsafe { asm!("{0} &= 0x3fff", inout(reg) options, options(pure, nomem, preserves_flags, nostack)) };
    Options::scan(&Frame::new(md), options as usize, len as usize).pack()
}
