//! Turns a packet into the answer to it.

use crate::cursor::Frame;
use aya_ebpf::bindings::{xdp_action, xdp_md};
use lb_common::reset::{self, AnySyn, RESET_V4, RESET_V6};

/// Turns a joining SYN into the reset that answers it, to be sent back where it came from. A function of its own: it is
/// off every usual packet's path, and has its own stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn reply_reset(md: *mut xdp_md) -> u32 {
    let frame = &mut Frame::new(md);
    let written = match reset::read(frame) {
        Some(AnySyn::V4(syn)) => room::<RESET_V4>(frame).map(|bytes| reset::write_v4(bytes, &syn)),
        Some(AnySyn::V6(syn)) => room::<RESET_V6>(frame).map(|bytes| reset::write_v6(bytes, &syn)),
        None => None,
    };
    if written.is_some() { xdp_action::XDP_TX } else { xdp_action::XDP_DROP }
}

/// Cuts the frame to `N` bytes and hands all of them out.
#[inline(always)]
fn room<const N: usize>(frame: &mut Frame) -> Option<&mut [u8; N]> {
    if frame.cut_to(N) { frame.place(0) } else { None }
}
