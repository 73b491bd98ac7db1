//! Decapsulation on a backend: IP in IP and GUE, only from the configured balancers.
//!
//! A tunnel from anyone else passes to the host untouched, which has no use for it: whoever can reach the backend must
//! not be able to speak with a client's address. Whatever is no tunnel passes as well.

use crate::{cursor::XdpFrame, prefix};
use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{LpmTrie, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    decap::{Decap, find_tunnel, unwrap},
    limits,
    wire::ip::Address,
};

/// The UDP port of each balancer's GUE tunnels, 0 for none.
#[btf_map(name = "weir_balancers")]
static BALANCERS: LpmTrie<Address, u32, { limits::BALANCERS_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "weir_decaps")]
static COUNTERS: PerCpuArray<u64, { Decap::COUNT }> = PerCpuArray::new();

#[inline(always)]
pub fn decapsulate(frame: &mut XdpFrame) -> u32 {
    let balancer = |source: &Address| prefix::longest(&BALANCERS, source).map(|&port| port as u16);
    let outcome = match find_tunnel(frame, balancer) {
        Ok(tunnel) => unwrap(frame, &tunnel).map_or(Decap::Malformed, |()| Decap::Taken),
        Err(reason) => reason,
    };
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: the element is this CPU's own.
        unsafe { *counter += 1 };
    }
    if outcome.is_dropped() { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}
