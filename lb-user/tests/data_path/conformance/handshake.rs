//! What a handshake teaches, and what it does not.

use crate::worlds::{in_both_worlds, mptcp::*};
use lb_common::reason::Reason;

#[test]
fn case_01_a_syn_is_routed_and_teaches_nothing() {
    in_both_worlds(|worlds, flow| {
        let outcome = worlds.send(&flow.syn(1000).options(&[&SYN_OPTIONS[..], &capable_syn()].concat()).frame());
        assert_eq!(outcome.reason, Reason::RingNew);
        assert_eq!(outcome.backend, Some(flow.owner()));
        assert!(worlds.state().tokens.is_empty());
    });
}
