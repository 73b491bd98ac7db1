//! The balancer's own health checks on their way out: what carries the mark of one gets the tunnel to the backend that the
//! mark names. Every other packet is left to whoever comes next, untouched.

use crate::{maps::KernelTables, skb::SkbFrame};
use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT, TC_ACT_UNSPEC},
    btf_maps::Array,
    helpers::generated::bpf_redirect,
    macros::btf_map,
    programs::TcContext,
};
use lb_common::{
    encap, limits,
    probe::{self, Heard},
    tables::{Backend, Encap, Tables as _},
};

/// The backends that are checked, whether they serve or not.
#[btf_map(name = "weir_probes")]
static PROBES: Array<Backend, { limits::BACKENDS_MAX as usize + 1 }> = Array::new();
/// What the marks of checks have in common; 0 while there are none.
#[btf_map(name = "weir_probe_mark")]
static MARK: Array<u32, 1> = Array::new();

/// What the latest checks have heard of MPTCP.
#[btf_map(name = "weir_probe_heard")]
static HEARD: Array<Heard, { probe::HEARD as usize }> = Array::new();

/// Sends a packet on its way, if it is a check's. One that cannot be sent is dropped: it must not reach another backend by
/// way of the VIP's own route.
#[inline(always)]
pub fn send(ctx: &TcContext) -> i32 {
    let frame = &mut SkbFrame::new(ctx.skb.skb);
    let base = MARK.get(0).copied().unwrap_or_default();
    let Some(id) = probe::backend_of(base, frame.mark()) else { return TC_ACT_UNSPEC };
    frame.clear_mark();
    if let Some((heard, is_ipv6)) = probe::heard::<_, KernelTables>(frame)
        && let Some(place) = HEARD.get_ptr_mut(probe::heard_place(id, is_ipv6))
    {
        // SAFETY: the kernel checked the index and keeps the element as long as the map; a plain store of one word.
        unsafe { *place = heard };
    }
    match tunnel(frame, id) {
        Some(interface) if interface == frame.interface() => TC_ACT_OK,
        // SAFETY: the helper only notes the interface.
        Some(interface) => unsafe { bpf_redirect(interface, 0) as i32 },
        None => TC_ACT_SHOT,
    }
}

/// Puts the packet into its tunnel. The interface that it leaves by.
#[inline(always)]
fn tunnel(frame: &mut SkbFrame, id: lb_common::ids::BackendId) -> Option<u32> {
    let backend = PROBES.get(u32::from(id.0))?;
    if backend.encap == Encap::GONE {
        return None;
    }
    let globals = KernelTables.globals()?;
    let forward = probe::forward(frame, globals.key(), id, backend)?;
    frame.will_hold(backend.encap);
    encap::encapsulate_untagged(frame, &forward)?;
    frame.push_tags(&backend.tags, backend.tags_len)?;
    Some(backend.interface)
}
