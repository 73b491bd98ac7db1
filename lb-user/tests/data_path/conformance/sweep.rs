//! What the controller ends, and when: the kernel's tables after the packets of a connection, swept as if time had passed.

use crate::worlds::{
    World as _,
    client::ISN,
    kernel::Kernel,
    mptcp::{SERVER_KEY, TOKEN},
    packet::{Flow, Segment},
    setup::{B1, B2, B3},
};
use lb_common::{ids::BackendId, reason::Reason, tables::Exception};
use lb_user::sweep::Sweeper;

#[track_caller]
fn sends(kernel: &mut Kernel, segment: &Segment, reason: Reason, backend: impl Into<Option<BackendId>>) {
    let outcome = kernel.send(&segment.frame());
    assert_eq!((outcome.reason, outcome.backend), (reason, backend.into()), "{segment:?}");
}

#[track_caller]
fn connect(kernel: &mut Kernel, flow: Flow, reason: Reason) {
    sends(kernel, &flow.capable_syn(ISN), Reason::RingNew, flow.owner());
    sends(kernel, &flow.third_ack(ISN, SERVER_KEY), reason, flow.owner());
}

#[test]
fn case_60_a_token_outlives_the_last_subflow_by_ten_minutes() {
    Kernel::alone(|kernel, flow| {
        let first = flow.owned_by(B1);
        connect(kernel, first, Reason::Learned);
        let joined = flow.at_second_address().owned_by(B2);
        sends(kernel, &joined.join(ISN, TOKEN), Reason::JoinToken, B1);
        sends(kernel, &joined.join_ack(ISN), Reason::Joined, B1);
        sends(kernel, &joined.ack(ISN + 500).fin(), Reason::Flow, B1);
        sends(kernel, &first.ack(ISN + 500).fin(), Reason::Ring, B1);

        let late = flow.at_second_address().at_port(50_000).owned_by(B2);
        let sweeper = &mut Sweeper::default();
        for (seconds, flows) in [(0, 1), (61, 1), (130, 0), (598, 0)] {
            kernel.sweep_after(seconds, first.hash(), sweeper);
            assert_eq!(kernel.entries(Exception::Joined).len(), flows, "after {seconds} s");
            sends(kernel, &late.join(ISN, TOKEN), Reason::JoinToken, B1);
        }
        kernel.sweep_after(602, first.hash(), sweeper);
        assert!(kernel.tokens().is_empty());
        sends(kernel, &late.join(ISN, TOKEN), Reason::JoinUnknown, None);
    });
}

#[test]
fn case_60_a_token_without_an_end_stays() {
    Kernel::alone(|kernel, flow| {
        let (open, closed) = (flow.owned_by(B1), flow.at_port(50_000).owned_by(B2));
        connect(kernel, open, Reason::Learned);
        sends(kernel, &closed.ack(ISN).fin(), Reason::Ring, B2);
        for seconds in [0, 602, 8000, 80_000] {
            kernel.sweep_after(seconds, closed.hash(), &mut Sweeper::default());
        }
        assert_eq!(kernel.tokens().len(), 1);
    });
}

#[test]
fn case_48_an_ambiguous_token_is_unambiguous_again_when_one_connection_has_ended() {
    for ends in [B1, B2] {
        Kernel::alone(|kernel, flow| {
            let first = flow.owned_by(B1);
            let second = flow.at_port(50_000).owned_by(B2);
            connect(kernel, first, Reason::Learned);
            connect(kernel, second, Reason::LearnAmbiguous);
            let (ended, left) = if ends == B1 { (first, B2) } else { (second, B1) };
            sends(kernel, &ended.ack(ISN + 500).fin(), Reason::Ring, ends);

            let join = flow.at_second_address().owned_by(B3).join(ISN, TOKEN);
            kernel.sweep_after(598, ended.hash(), &mut Sweeper::default());
            sends(kernel, &join, Reason::JoinAmbiguous, None);
            kernel.sweep_after(602, ended.hash(), &mut Sweeper::default());
            sends(kernel, &join, Reason::JoinToken, left);
        });
    }
}
