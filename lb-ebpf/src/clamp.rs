//! The MSS clamp on a backend, over what leaves it. Every packet goes on to whoever comes next.

use crate::{prefix, skb::SkbFrame};
use aya_ebpf::{
    bindings::TC_ACT_UNSPEC,
    btf_maps::{LpmTrie, PerCpuArray},
    macros::btf_map,
    programs::TcContext,
};
use lb_common::{
    clamp::{Clamp, Rule, judge},
    limits,
    wire::ip::Address,
};

/// What holds for the addresses of the VIPs.
#[btf_map(name = "weir_clamp_vips")]
static VIPS: LpmTrie<Address, Rule, { limits::VIPS_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "weir_clamps")]
static COUNTERS: PerCpuArray<u64, { Clamp::COUNT }> = PerCpuArray::new();

#[inline(always)]
pub fn clamp(ctx: &TcContext) -> i32 {
    let mut frame = SkbFrame::new(ctx.skb.skb);
    let outcome = match judge(&frame, |address| prefix::longest(&VIPS, address)) {
        None => return TC_ACT_UNSPEC,
        Some(Ok(change)) => frame.change(&change).map_or(Clamp::Kept, |()| Clamp::Lowered),
        Some(Err(outcome)) => outcome,
    };
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: the element is this CPU's own.
        unsafe { *counter += 1 };
    }
    TC_ACT_UNSPEC
}
