//! The packet cursor over XDP memory. This is the one place that turns an offset into packet memory; everything that
//! reads or writes a packet goes through it, so nothing can miss the check against the packet's end.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_get_buff_len},
};
use core::arch::asm;
use lb_common::{
    mptcp::Options,
    packet::{Frame, Packet},
    wire::tcp::Tcp,
};

/// Zero, which the verifier does not know: it lies in memory that could be written.
static mut ALWAYS_ZERO: u64 = 0;

/// A packet, as XDP shows it.
pub struct XdpFrame {
    md: *mut xdp_md,
}

impl XdpFrame {
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
        let mut end = start + N;
        if N == 1 {
            // LLVM makes `start + 1 > end` into `start >= end`, from which the verifier learns nothing.
            // SAFETY: one instruction, which moves a register to itself.
            unsafe { asm!("{0} = {0}", inout(reg) end, options(pure, nomem, preserves_flags, nostack)) };
        }
        if end > self.end() { None } else { Some(start as *mut [u8; N]) }
    }

    /// Bytes of the whole frame, beyond its linear head if need be.
    #[inline(always)]
    pub fn len(&self) -> usize {
        // SAFETY: the helper only reads the context.
        unsafe { bpf_xdp_get_buff_len(self.md) as usize }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn place<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let place = self.at(offset)?;
        // SAFETY: `at` has checked that all N bytes lie in the packet; while the reference lives, the exclusive borrow of
        // the frame keeps the packet from being moved or read through it.
        Some(unsafe { &mut *place })
    }

    #[inline(always)]
    fn move_start(&mut self, bytes: i32) -> bool {
        // SAFETY: the helper refuses what does not fit; no reference into the packet outlives the exclusive borrow.
        unsafe { bpf_xdp_adjust_head(self.md, bytes) == 0 }
    }

    #[inline(always)]
    fn cut_to(&mut self, len: usize) -> bool {
        let whole = self.len();
        // SAFETY: as in `move_start`.
        len <= whole && unsafe { bpf_xdp_adjust_tail(self.md, len as i32 - whole as i32) == 0 }
    }
}

impl Packet for XdpFrame {
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
    fn merged(mut value: u64) -> u64 {
        // SAFETY: one instruction on one register, which changes nothing.
        unsafe { asm!("{0} |= 0", inout(reg) value, options(pure, nomem, preserves_flags, nostack)) };
        value
    }

    #[inline(always)]
    fn in_headers(mut offset: usize) -> usize {
        // SAFETY: one instruction on one register.
        unsafe { asm!("{0} &= 0x3fff", inout(reg) offset, options(pure, nomem, preserves_flags, nostack)) };
        offset
    }

    #[inline(always)]
    fn opaque_below_64(offset: usize) -> usize {
        // SAFETY: nobody writes it; a plain load of a word.
        let zero = unsafe { (&raw const ALWAYS_ZERO).read_volatile() };
        Self::below_64(offset + zero as usize)
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        let holds = self.start() + end <= self.end() || end <= self.len();
        Self::merged(u64::from(holds)) != 0
    }
}

/// A function of its own: the verifier walks the options once, not once for each way that leads to them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_options(md: *mut xdp_md, options: u64, len: u64) -> u64 {
    Options::scan(&XdpFrame::new(md), XdpFrame::in_headers(options as usize), len as usize).pack()
}
