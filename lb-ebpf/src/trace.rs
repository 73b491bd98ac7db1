//! Tells what was decided, in the object that is loaded for `weir trace` and in no other. What it tells has numbers of
//! Weir's own only: nothing of a packet but its protocol.

use crate::maps;
use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{Array, PerCpuArray, ProgramArray},
    helpers::generated::bpf_get_prandom_u32,
    macros::btf_map,
    programs::XdpContext,
};
use lb_common::{
    ids::{BackendId, VipId},
    reason::Reason,
    tables::{Budget, Tables as _},
    trace::{Counts, Plan},
};

#[btf_map(name = "weir_trace_plan")]
static PLAN: Array<Plan, 1> = Array::new();
#[btf_map(name = "weir_trace_sums")]
static COUNTS: PerCpuArray<Counts, 1> = PerCpuArray::new();
#[btf_map(name = "weir_trace_rate")]
static BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
#[btf_map(name = "weir_trace_due")]
static DUE: PerCpuArray<Told, 1> = PerCpuArray::new();
#[btf_map(name = "weir_trace_prog")]
static WRITER: ProgramArray<1> = ProgramArray::new();

/// What is to be told of a packet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Told {
    pub action: u32,
    pub reason: Reason,
    pub vip: VipId,
    pub backend: BackendId,
}

/// Has a packet told of, if it is one of the sample. It comes back where it is not, or where nobody writes any more: the
/// packet's way is the same.
#[inline(always)]
pub fn tell(ctx: &XdpContext, told: Told) {
    let (Some(plan), Some(counts), Some(budget), Some(due)) =
        (PLAN.get(0), COUNTS.get_ptr_mut(0), BUDGET.get_ptr_mut(0), DUE.get_ptr_mut(0))
    else {
        return;
    };
    // SAFETY: these elements are this CPU's own, and all zeros are a value of each.
    let (counts, budget) = unsafe { (&mut *counts, &mut *budget) };
    counts.packets += 1;
    // SAFETY: the helper has no precondition.
    if !plan.takes(unsafe { bpf_get_prandom_u32() }) {
        return;
    }
    counts.sampled += 1;
    if !budget.spend(maps::KernelTables.now(), plan.lines_per_cpu) {
        counts.over_limit += 1;
        return;
    }
    // SAFETY: as above.
    unsafe { *due = told };
    // SAFETY: the controller puts nothing there but the program that writes.
    unsafe { WRITER.tail_call(ctx, 0) };
}

/// Writes the line, and does with the packet what was decided before.
#[inline(always)]
pub fn write(ctx: &XdpContext) -> u32 {
    // SAFETY: the element is this CPU's own, and the program before this one has written it.
    let Some(told) = DUE.get_ptr(0).map(|told| unsafe { *told }) else { return xdp_action::XDP_ABORTED };
    let protocol = maps::arrival().map_or(0, |arrival| arrival.protocol());
    aya_log_ebpf::info!(
        ctx,
        "{} {} {} {}",
        told.reason.index(),
        u32::from(told.vip.0),
        u32::from(told.backend.0),
        u32::from(protocol)
    );
    told.action
}
