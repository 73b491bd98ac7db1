//! The kernel side of Weir. The balancer asks the shared decision and does what it says; nothing is decided here.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

#[cfg(feature = "bench")]
mod bench;
mod clamp;
mod cursor;
mod decap;
#[cfg(feature = "bench")]
mod generate;
mod maps;
mod mint;
mod prefix;
mod probe;
mod programs;
mod send;
mod skb;
#[cfg(feature = "bench")]
mod stub;
#[cfg(feature = "log")]
mod trace;

use crate::{cursor::XdpFrame, maps::KernelTables};
use aya_ebpf::{
    bindings::xdp_action,
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use lb_common::{
    ids::BackendId,
    packet::Packet as _,
    reason::Action,
    share::{self, Entered, Event},
    steer::{Icmp, Kind, Scope, Transport, steer_within},
};

/// Steers every packet that arrives for a VIP; all others go to the host untouched. The benchmarks' object has a wrapped
/// one in its place: with two, LLVM would compile neither as it is compiled alone.
#[cfg(not(feature = "bench"))]
#[xdp(frags)]
#[inline(always)]
pub fn weir_balancer(ctx: XdpContext) -> u32 {
    balance::<lb_common::steer::Common>(&ctx)
}

/// The same for TCP and UDP of every kind.
#[xdp(frags)]
#[inline(always)]
pub fn weir_transport(ctx: XdpContext) -> u32 {
    balance::<Transport>(&ctx)
}

/// The same for ICMP.
#[xdp(frags)]
#[inline(always)]
pub fn weir_icmp(ctx: XdpContext) -> u32 {
    balance::<Icmp>(&ctx)
}

/// Writes the answers that Weir gives itself.
#[xdp(frags)]
#[inline(always)]
pub fn weir_answer(ctx: XdpContext) -> u32 {
    programs::write_answer(&ctx)
}

/// Enters what another balancer or an agent has told: the frame is the event.
#[xdp]
#[inline(always)]
pub fn weir_enter(ctx: XdpContext) -> u32 {
    let event = XdpFrame::new(ctx.ctx).load::<{ size_of::<Event>() }>(0);
    event.map_or(Entered::Malformed, |event| share::enter(&mut KernelTables, &Event::from_bytes(event))) as u32
}

/// Writes the lines of `weir trace`.
#[cfg(feature = "log")]
#[xdp(frags)]
#[inline(always)]
pub fn weir_log(ctx: XdpContext) -> u32 {
    trace::write(&ctx)
}

/// Does nothing: what a veth peer must carry for the other end to transmit.
#[xdp(frags)]
#[inline(always)]
pub fn weir_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Takes the tunnel off packets from the configured balancers, on a backend.
#[xdp(frags)]
#[inline(always)]
pub fn weir_decap(ctx: XdpContext) -> u32 {
    decap::decapsulate(&mut XdpFrame::new(ctx.ctx))
}

/// Puts the balancer's own health checks on their way to the backends that they check, as they leave the host.
#[classifier]
#[inline(always)]
pub fn weir_probe(ctx: TcContext) -> i32 {
    probe::send(&ctx)
}

/// Lowers the MSS in SYNs of VIPs as they leave a backend, so that what clients send fits into the balancers' tunnels.
#[classifier]
#[inline(always)]
pub fn weir_clamp(ctx: TcContext) -> i32 {
    clamp::clamp(&ctx)
}

/// Answers SYNs of VIPs that offer MPTCP, with keys that the agent has chosen, as they reach a backend.
#[classifier]
#[inline(always)]
pub fn weir_mint(ctx: TcContext) -> i32 {
    mint::mint(&ctx)
}

/// Takes MPTCP out of SYN/ACKs of VIPs whose key nobody has chosen, as they leave a backend.
#[classifier]
#[inline(always)]
pub fn weir_plain(ctx: TcContext) -> i32 {
    mint::plain(&ctx)
}

#[inline(always)]
fn balance<S: Scope<Beyond = Kind>>(ctx: &XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let mut tables = KernelTables;
    let Some(arrival) = maps::arrival() else { return xdp_action::XDP_ABORTED };
    let decision = match steer_within::<S, _, _>(&frame, &mut tables, arrival) {
        Ok(decision) => decision,
        Err(kind) => return programs::hand_on(ctx, kind),
    };
    let refusal = match decision.verdict {
        Ok(forward) => match send::send(&mut frame, &forward) {
            Ok(action) => {
                let bytes = forward.ip.end();
                maps::count(decision.vip, forward.reason, bytes);
                maps::count_sent(forward.id, bytes);
                return programs::end(ctx, action, decision.vip, forward.reason, forward.id);
            }
            Err(reason) => reason.into(),
        },
        Err(refusal) => refusal,
    };
    let action = match refusal.reason.action() {
        Action::Pass => xdp_action::XDP_PASS,
        Action::Reply => return programs::have_answered(ctx, decision.vip, refusal),
        Action::Drop | Action::Forward => xdp_action::XDP_DROP,
    };
    maps::count(decision.vip, refusal.reason, frame.len());
    programs::end(ctx, action, decision.vip, refusal.reason, BackendId::NONE)
}

/// Some of the kernel's functions, that for cookies among them, are for programs that say so.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
