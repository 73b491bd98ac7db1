//! Puts a packet on its way. What is written to it is decided and written by lb-common; only the way out is the kernel's.

use crate::cursor::XdpFrame;
use aya_ebpf::{bindings::xdp_action, helpers::generated::bpf_redirect};
use lb_common::{encap, reason::Reason, steer::Forward};

/// Sends a packet to its backend. The XDP action that does it, or the reason why it cannot be done.
#[inline(always)]
pub fn send(frame: &mut XdpFrame, forward: &Forward) -> Result<u32, Reason> {
    encap::encapsulate(frame, forward).ok_or(Reason::NoHeadroom)?;
    if frame.interface() == forward.backend.interface {
        return Ok(xdp_action::XDP_TX);
    }
    // SAFETY: the helper only notes the interface.
    Ok(unsafe { bpf_redirect(forward.backend.interface, 0) as u32 })
}
