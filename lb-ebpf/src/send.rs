//! Puts a forwarded packet on its way: the outer header in front of it, the packet itself untouched.

use crate::cursor::Frame;
use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect};
use lb_common::{
    encap::{self, OUTER_V4, OUTER_V6},
    reason::Reason,
    steer::Forward,
    tables::{Backend, Encap},
    wire::ethernet,
};

/// Sends a packet to its backend. The XDP action that does it, or the reason why it cannot be done.
#[inline(always)]
pub fn send(frame: &mut Frame, forward: &Forward) -> Result<u32, Reason> {
    write_outer(frame, forward).ok_or(Reason::NoHeadroom)?;
    Ok(action(frame, forward.backend))
}

#[inline(always)]
fn write_outer(frame: &mut Frame, forward: &Forward) -> Option<()> {
    let backend = forward.backend;
    match backend.encap {
        Encap::IPIP4 => encap::write_v4(grow::<OUTER_V4>(frame)?, backend, &forward.ip),
        Encap::IPIP6 => encap::write_v6(grow::<OUTER_V6>(frame)?, backend, &forward.ip, forward.flow),
        _ => encap::write_link(frame.place(0)?, backend),
    }
    Some(())
}

/// Makes room for an outer header of `N` bytes and hands it out; the present Ethernet header's room is part of it.
#[inline(always)]
fn grow<const N: usize>(frame: &mut Frame) -> Option<&mut [u8; N]> {
    let more = (N - ethernet::HEADER_LEN) as i32;
    if frame.move_start(-more) { frame.place(0) } else { None }
}

#[inline(always)]
fn action(frame: &Frame, backend: &Backend) -> u32 {
    if frame.interface() == backend.interface {
        return xdp_action::XDP_TX;
    }
    // SAFETY: the helper only notes the interface.
    unsafe { bpf_redirect(backend.interface, 0) as u32 }
}
