//! The programs that the balancer goes on to by tail call: each has a stack of its own, and is in nobody's way until it is
//! needed. A tail call does not come back.

use crate::{cursor::XdpFrame, maps};
use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{PerCpuArray, ProgramArray},
    macros::btf_map,
    programs::XdpContext,
};
use lb_common::{
    answer::answer,
    ids::{BackendId, VipId},
    programs::{COUNT, Program},
    reason::Reason,
    steer::{Kind, Refusal},
};

#[btf_map(name = "weir_programs")]
static PROGRAMS: ProgramArray<COUNT> = ProgramArray::new();

/// What the balancer leaves for the program that answers.
#[derive(Clone, Copy)]
#[repr(C)]
struct Due {
    reason: Reason,
    vip: VipId,
    path_mtu: u16,
}

#[btf_map(name = "weir_due")]
static DUE: PerCpuArray<Due, 1> = PerCpuArray::new();

/// Hands a packet on to the program for its kind.
#[inline(always)]
pub fn hand_on(ctx: &XdpContext, kind: Kind) -> u32 {
    call(ctx, VipId::NONE, Program::of(kind))
}

/// Has a packet answered.
#[inline(always)]
pub fn have_answered(ctx: &XdpContext, vip: VipId, Refusal { reason, path_mtu }: Refusal) -> u32 {
    if let Some(due) = DUE.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's own.
        unsafe { *due = Due { reason, vip, path_mtu } };
    }
    call(ctx, vip, Program::Answer)
}

#[inline(always)]
fn call(ctx: &XdpContext, vip: VipId, program: Program) -> u32 {
    // SAFETY: the controller puts nothing there but XDP programs.
    unsafe { PROGRAMS.tail_call(ctx, program as u32) };
    maps::count(vip, Reason::NoProgram, XdpFrame::new(ctx.ctx).len());
    end(ctx, xdp_action::XDP_DROP, vip, Reason::NoProgram, BackendId::NONE)
}

/// The end of a packet that has been counted. In the object of `weir trace` it may be told of; in any other there is no
/// instruction for it.
#[inline(always)]
#[cfg_attr(not(feature = "log"), expect(unused_variables, reason = "only what is told is asked for"))]
pub fn end(ctx: &XdpContext, action: u32, vip: VipId, reason: Reason, backend: BackendId) -> u32 {
    #[cfg(feature = "log")]
    crate::trace::tell(ctx, crate::trace::Told { action, reason, vip, backend });
    action
}

/// Makes a packet into the answer to it, and sends that back to where it came from.
#[inline(always)]
pub fn write_answer(ctx: &XdpContext) -> u32 {
    let frame = &mut XdpFrame::new(ctx.ctx);
    let bytes = frame.len();
    // SAFETY: the element is this CPU's own, and the program before this one has written it.
    let Some(due) = DUE.get_ptr(0).map(|due| unsafe { *due }) else { return xdp_action::XDP_ABORTED };
    let (reason, action) = match answer(frame, due.reason, due.path_mtu) {
        Some(()) => (due.reason, xdp_action::XDP_TX),
        None => (Reason::NoRoomForAnswer, xdp_action::XDP_DROP),
    };
    maps::count(due.vip, reason, bytes);
    end(ctx, action, due.vip, reason, BackendId::NONE)
}
