//! What ends with a packet, and what lives on.

use crate::worlds::{
    Memory, Worlds,
    client::ISN,
    in_both_worlds,
    mptcp::{DSS, SERVER_KEY, TCPRST, TIMESTAMPS, TOKEN, fastclose},
    packet::Flow,
    setup::{B1, B2, WEB, ring_of},
};
use lb_common::{
    reason::Reason,
    tables::{FlowEntry, Slot, state},
};

/// A connection at B1 and a joined subflow of it that only its entry keeps there.
#[track_caller]
fn two_subflows(worlds: &mut Worlds, flow: Flow) -> (Flow, Flow) {
    let first = worlds.connect_at(flow, B1);
    let joined = flow.at_second_address().owned_by(B2);
    worlds.join(joined, B1);
    (first, joined)
}

#[track_caller]
fn is_noted_as_closing(worlds: &Worlds, flow: Flow) {
    let sign = worlds.recent(Memory::Closing, flow.hash()).expect("a closing sign");
    assert_eq!(sign.state, state::CLOSING);
}

#[test]
fn case_55_a_reset_of_a_joined_subflow_closes_that_flow_alone() {
    in_both_worlds(|worlds, flow| {
        let (first, joined) = two_subflows(worlds, flow);
        let tokens = worlds.state().tokens;
        worlds.sends(&joined.ack(ISN + 500).rst(), Reason::Flow, B1);
        assert_eq!(worlds.state().joined[&joined.hash()].state, FlowEntry::OPEN | FlowEntry::CLOSED);
        assert_eq!(worlds.state().tokens, tokens);
        assert_eq!(worlds.recent(Memory::Closing, first.hash()), None);
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
    });
}

#[test]
fn case_55_a_reset_of_the_first_subflow_leaves_the_token_to_the_others() {
    in_both_worlds(|worlds, flow| {
        let (first, joined) = two_subflows(worlds, flow);
        worlds.sends(&first.ack(ISN + 500).rst(), Reason::Ring, B1);
        is_noted_as_closing(worlds, first);
        assert_eq!(worlds.state().holders(TOKEN), [B1]);
        worlds.sends(&joined.data(ISN), Reason::Flow, B1);
        let further = joined.at_port(50_000).owned_by(B2);
        worlds.join(further, B1);
    });
}

#[test]
fn case_56_a_fast_close_is_forwarded_and_ends_no_token_here() {
    in_both_worlds(|worlds, flow| {
        let (first, joined) = two_subflows(worlds, flow);
        let options = [&TIMESTAMPS[..], &fastclose(SERVER_KEY)].concat();
        worlds.sends(&first.ack(ISN + 500).rst().options(&options), Reason::Ring, B1);
        worlds.sends(&joined.ack(ISN + 500).rst().options(&options), Reason::Flow, B1);
        is_noted_as_closing(worlds, first);
        assert_eq!(worlds.state().holders(TOKEN), [B1]);
    });
}

#[test]
fn case_56_a_fast_close_on_a_strange_flow_ends_nothing() {
    in_both_worlds(|worlds, flow| {
        two_subflows(worlds, flow);
        let before = worlds.state();
        let stranger = flow.at_port(50_000);
        let options = [&TIMESTAMPS[..], &fastclose(SERVER_KEY)].concat();
        worlds.sends(&stranger.ack(ISN).rst().options(&options), Reason::Ring, stranger.owner());
        assert_eq!(worlds.state(), before);
    });
}

#[test]
fn case_58_a_clients_tcprst_is_forwarded_unchanged() {
    in_both_worlds(|worlds, flow| {
        let (first, joined) = two_subflows(worlds, flow);
        let options = [&TIMESTAMPS[..], &TCPRST].concat();
        // That no byte changes is judged of every packet.
        worlds.sends(&joined.ack(ISN + 500).rst().options(&options), Reason::Flow, B1);
        worlds.sends(&first.ack(ISN + 500).rst().options(&options), Reason::Ring, B1);
    });
}

#[test]
fn case_60_fins_are_forwarded_and_the_token_outlives_them() {
    in_both_worlds(|worlds, flow| {
        let (first, joined) = two_subflows(worlds, flow);
        let data_fin = [&TIMESTAMPS[..], &[30, 8, 0x20, 0x11], &DSS[4..]].concat();
        worlds.sends(&first.ack(ISN + 500).options(&data_fin), Reason::Ring, B1);
        assert_eq!(worlds.recent(Memory::Closing, first.hash()), None, "a DATA_FIN ends no subflow");
        worlds.sends(&joined.ack(ISN + 500).fin(), Reason::Flow, B1);
        worlds.sends(&first.ack(ISN + 500).fin(), Reason::Ring, B1);
        is_noted_as_closing(worlds, first);
        assert_eq!(worlds.state().joined[&joined.hash()].state, FlowEntry::OPEN | FlowEntry::CLOSED);
        assert_eq!(worlds.state().holders(TOKEN), [B1]);
        worlds.sends(&first.ack(ISN + 501), Reason::Ring, B1);
        worlds.sends(&joined.ack(ISN + 501), Reason::Flow, B1);
    });
}

#[test]
fn case_60_the_end_of_a_first_subflow_with_an_entry_is_noted_too() {
    in_both_worlds(|worlds, flow| {
        let moving: Vec<_> = ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect();
        worlds.change(|world| world.write_ring(WEB, &moving));
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::Learned, B2);
        assert_eq!(worlds.state().moved[&flow.hash()].backend, B2);
        worlds.sends(&flow.ack(ISN + 500).fin(), Reason::Flow, B2);
        is_noted_as_closing(worlds, flow);
    });
}
