//! Puts a forwarded packet on its way: the outer header in front of it, the packet itself untouched.

use crate::cursor::Frame;
use aya_ebpf::{
    bindings::xdp_action,
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head},
};
use lb_common::{
    encap::{self, OUTER_V4, OUTER_V6},
    reason::Reason,
    steer::Forward,
    tables::{Backend, Encap},
    wire::ethernet,
};

/// Sends a packet to its backend. The XDP action that does it, or the reason why it cannot be done.
#[inline(always)]
pub fn send(frame: Frame, forward: &Forward) -> Result<u32, Reason> {
    let backend = forward.backend;
    let written = match backend.encap {
        Encap::IPIP4 => {
            let outer = encap::outer_v4(backend, &forward.ip);
            grow(frame, OUTER_V4 - ethernet::HEADER_LEN) && frame.store(0, &outer)
        }
        Encap::IPIP6 => {
            let outer = encap::outer_v6(backend, &forward.ip, forward.flow);
            grow(frame, OUTER_V6 - ethernet::HEADER_LEN) && frame.store(0, &outer)
        }
        _ => frame.store(0, &encap::link(backend)),
    };
    if written { Ok(action(frame, backend)) } else { Err(Reason::NoHeadroom) }
}

#[inline(always)]
fn grow(frame: Frame, bytes: usize) -> bool {
    // SAFETY: the helper moves the packet's start within its headroom, or refuses.
    unsafe { bpf_xdp_adjust_head(frame.md(), -(bytes as i32)) == 0 }
}

#[inline(always)]
fn action(frame: Frame, backend: &Backend) -> u32 {
    if frame.interface() == backend.interface {
        return xdp_action::XDP_TX;
    }
    // SAFETY: the helper only notes the interface.
    unsafe { bpf_redirect(backend.interface, 0) as u32 }
}
