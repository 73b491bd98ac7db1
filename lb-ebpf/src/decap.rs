//! Decapsulation on a backend: IPv4 and IPv6 in IPv4 and IPv6, only from the configured balancers.
//!
//! A tunnel from anyone else passes to the host untouched, which has no use for it: whoever can reach the backend must
//! not be able to speak with a client's address. Whatever is no tunnel passes as well.

use crate::cursor::Frame;
use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::{HashMap, PerCpuArray},
    macros::btf_map,
};
use lb_common::{
    decap::{Decap, Tunnel, find_tunnel},
    limits,
    packet::Packet as _,
    wire::{ethernet, ip::Address},
};

#[btf_map(name = "weir_balancers")]
static BALANCERS: HashMap<Address, u32, { limits::BALANCERS_MAX as usize }> = HashMap::new();
#[btf_map(name = "weir_decaps")]
static COUNTERS: PerCpuArray<u64, { Decap::COUNT }> = PerCpuArray::new();

#[inline(always)]
pub fn decapsulate(frame: &mut Frame) -> u32 {
    // SAFETY: only the presence of the key matters.
    let outcome = find_tunnel(frame, |source| unsafe { BALANCERS.get(source) }.is_some());
    let (outcome, action) = match outcome {
        Ok(tunnel) if unwrap(frame, &tunnel) => (Decap::Taken, xdp_action::XDP_PASS),
        Ok(_) => (Decap::Malformed, xdp_action::XDP_DROP),
        Err(reason) => (reason, if reason.is_dropped() { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }),
    };
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: the element is this CPU's own.
        unsafe { *counter += 1 };
    }
    action
}

/// Moves the MAC addresses in front of the inner packet and cuts off what was before.
#[inline(always)]
fn unwrap(frame: &mut Frame, tunnel: &Tunnel) -> bool {
    let Some(macs) = frame.load::<12>(0) else { return false };
    if !frame.move_start(tunnel.len() as i32) {
        return false;
    }
    let Some(header) = frame.place::<{ ethernet::HEADER_LEN }>(0) else { return false };
    header[..12].copy_from_slice(&macs);
    header[12..].copy_from_slice(&tunnel.inner_ethertype().to_be_bytes());
    true
}
