//! The kernel side of Weir.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};

/// Does nothing: what a veth peer must carry for the other end to transmit.
#[xdp(frags)]
pub fn weir_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
