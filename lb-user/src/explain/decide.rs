//! What becomes of a frame: by the host's decision here, by the kernel's program in [`super::kernel`].

use super::{line::Action, plan::ARRIVAL, witness::Witness};
use lb_common::{
    answer::answer,
    encap,
    host::HostFrame,
    ids::{BackendId, VipId},
    reason::{self, Reason},
    steer::{Decision, Forward, Refusal, steer},
};

/// What becomes of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decided {
    /// The VIP that it is for.
    pub vip: VipId,
    /// Why.
    pub reason: Reason,
    /// What.
    pub action: Action,
    /// The backend that it is sent to.
    pub backend: Option<BackendId>,
    /// The frame that is sent.
    pub out: Option<Vec<u8>>,
}

impl Decided {
    const fn not_sent(vip: VipId, reason: Reason, action: Action) -> Self {
        Self { vip, reason, action, backend: None, out: None }
    }
}

/// Decides on the host, as the kernel's entry does with the same functions.
pub(super) fn decide(frame: &[u8], tables: &mut Witness<'_>) -> Decided {
    let Decision { vip, verdict } = steer(&frame, tables);
    match verdict {
        Ok(forward) => send(frame, vip, &forward),
        Err(refusal) => refuse(frame, vip, refusal),
    }
}

fn send(frame: &[u8], vip: VipId, forward: &Forward<'_>) -> Decided {
    let mut sent = HostFrame::new(frame);
    if encap::encapsulate(&mut sent, forward).is_none() {
        return Decided::not_sent(vip, Reason::NoHeadroom, Action::Drop);
    }
    let action = if forward.backend.interface == ARRIVAL { Action::Tx } else { Action::Redirect };
    let out = Some(sent.bytes().to_vec());
    Decided { vip, reason: forward.reason, action, backend: Some(forward.id), out }
}

fn refuse(frame: &[u8], vip: VipId, Refusal { reason, path_mtu }: Refusal) -> Decided {
    match reason.action() {
        reason::Action::Pass => Decided::not_sent(vip, reason, Action::Pass),
        reason::Action::Drop | reason::Action::Forward => Decided::not_sent(vip, reason, Action::Drop),
        reason::Action::Reply => {
            let mut reply = HostFrame::new(frame);
            match answer(&mut reply, reason, path_mtu) {
                Some(()) => Decided { out: Some(reply.bytes().to_vec()), ..Decided::not_sent(vip, reason, Action::Tx) },
                None => Decided::not_sent(vip, Reason::NoRoomForAnswer, Action::Drop),
            }
        }
    }
}
