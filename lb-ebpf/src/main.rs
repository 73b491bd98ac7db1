//! The kernel side of Weir. The balancer asks the shared decision and does what it says; nothing is decided here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod bench;
mod cursor;
mod decap;
mod maps;
mod reply;
mod send;

use crate::{cursor::Frame, maps::KernelTables};
use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    macros::xdp,
    programs::XdpContext,
};
use lb_common::{
    reason::{Action, Reason},
    steer::steer,
};

/// Steers every packet that arrives for a VIP; all others go to the host untouched.
#[xdp(frags)]
pub fn weir_balancer(ctx: XdpContext) -> u32 {
    balance(ctx.ctx)
}

/// Does nothing: what a veth peer must carry for the other end to transmit.
#[xdp(frags)]
pub fn weir_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Takes the tunnel off packets from the configured balancers, on a backend.
#[xdp(frags)]
pub fn weir_decap(ctx: XdpContext) -> u32 {
    decap::decapsulate(&mut Frame::new(ctx.ctx))
}

#[inline(always)]
fn balance(md: *mut xdp_md) -> u32 {
    let mut frame = Frame::new(md);
    let mut tables = KernelTables;
    let decision = steer(&frame, &mut tables);
    let reason = match decision.verdict {
        Ok(forward) => match send::send(&mut frame, &forward) {
            Ok(action) => {
                maps::count(decision.vip, forward.reason, forward.ip.len);
                maps::count_sent(forward.id, forward.ip.len);
                return action;
            }
            Err(reason) => reason,
        },
        Err(reason) => reason,
    };
    maps::count(decision.vip, reason, 0);
    without_backend(md, reason)
}

/// What becomes of a packet that no backend gets.
#[inline(always)]
fn without_backend(md: *mut xdp_md, reason: Reason) -> u32 {
    match reason.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Reply => reply::reply_reset(md),
        Action::Drop | Action::Forward => xdp_action::XDP_DROP,
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
