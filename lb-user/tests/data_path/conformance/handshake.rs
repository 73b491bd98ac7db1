//! What a handshake teaches, and what it does not.

use crate::worlds::{
    Memory, Worlds,
    client::ISN,
    in_both_worlds, in_both_worlds_of,
    mptcp::{
        CLIENT_KEY, DSS, H, Key, SERVER_KEY, SYN_OPTIONS, TIMESTAMPS, TOKEN, V0, V1, capable_ack, capable_data,
        capable_data_checksum, capable_one_key, capable_syn, token,
    },
    packet::{Flow, Segment},
    setup::{B1, B2, Setup, WEB, ring_of},
};
use lb_common::{
    limits::LIVE_FLOW_TICKS,
    reason::Reason,
    tables::{Backend, Exception, FlowEntry, Slot, UnknownJoin, Ways},
};

/// A key of a v0 server in a capture, and its token, which the `MP_JOIN` there names.
const V0_KEY: Key = 0x967d_2770_b696_0552_u64.to_be_bytes();
const V0_TOKEN: u32 = 0xe47f_0142;
const OTHER_KEY: Key = *b"another!";

fn syn_with(flow: Flow, option: &[u8]) -> Segment {
    flow.syn(ISN).options(&[&SYN_OPTIONS[..], option].concat())
}

fn ack_with(flow: Flow, option: &[u8]) -> Segment {
    flow.ack(ISN + 1).options(&[&TIMESTAMPS[..], option].concat())
}

/// A third packet with both keys comes, and its flow is not known to have begun an MPTCP handshake.
#[track_caller]
fn teaches_nothing(worlds: &mut Worlds, flow: Flow) {
    worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::LearnUnseen, flow.owner());
    assert!(worlds.state().tokens.is_empty());
}

#[test]
fn case_01_a_syn_is_routed_and_teaches_nothing() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        assert!(worlds.state().tokens.is_empty());
    });
}

#[test]
fn case_02_a_v0_syn_is_routed_and_the_clients_key_is_no_token() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&syn_with(flow, &capable_one_key(V0, CLIENT_KEY)), Reason::RingNew, flow.owner());
        assert!(worlds.state().tokens.is_empty());
        worlds.sends(&flow.capable_ack(ISN, V0, CLIENT_KEY, V0_KEY), Reason::Learned, flow.owner());
        assert_eq!(worlds.state().holders(token(V0, CLIENT_KEY)), []);
        worlds.refuses(&flow.at_port(50_000).join(ISN, token(V0, CLIENT_KEY)), Reason::JoinUnknown);
    });
}

#[test]
fn case_03_the_third_ack_teaches_the_token_of_the_servers_key() {
    in_both_worlds(|worlds, flow| {
        worlds.connect(flow, SERVER_KEY);
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
        assert_eq!(worlds.state().tokens.len(), 1);
    });
}

#[test]
fn case_04_a_v0_third_ack_teaches_a_sha1_token() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&syn_with(flow, &capable_one_key(V0, CLIENT_KEY)), Reason::RingNew, flow.owner());
        worlds.sends(&flow.capable_ack(ISN, V0, CLIENT_KEY, V0_KEY), Reason::Learned, flow.owner());
        assert_eq!(worlds.state().holders(V0_TOKEN), [flow.owner()]);
        assert_eq!(worlds.state().tokens.len(), 1);
    });
}

#[test]
fn case_05_the_first_data_teaches_where_the_third_ack_is_lost() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.sends(&flow.first_data(ISN, SERVER_KEY), Reason::Learned, flow.owner());
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
    });
}

#[test]
fn case_06_the_checksum_behind_the_keys_is_no_matter() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        let data = ack_with(flow, &capable_data_checksum(CLIENT_KEY, SERVER_KEY)).payload(100);
        worlds.sends(&data, Reason::Learned, flow.owner());
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
    });
}

#[test]
fn case_07_third_ack_and_first_data_make_one_entry() {
    in_both_worlds(|worlds, flow| {
        worlds.connect(flow, SERVER_KEY);
        let learned = worlds.state();
        worlds.sends(&flow.first_data(ISN, SERVER_KEY), Reason::LearnRepeated, flow.owner());
        assert_eq!(worlds.state(), learned);
    });
}

#[test]
fn case_08_copies_of_the_keys_change_nothing() {
    in_both_worlds(|worlds, flow| {
        worlds.connect(flow, SERVER_KEY);
        let learned = worlds.state();
        let copy = |sequence| {
            let option = capable_data(CLIENT_KEY, SERVER_KEY);
            flow.ack(sequence).options(&[&TIMESTAMPS[..], &option].concat()).payload(1400)
        };
        let copies = [flow.third_ack(ISN, SERVER_KEY), copy(ISN + 1), copy(ISN + 1401), copy(ISN + 2801)];
        for segment in copies.iter().chain(&copies) {
            worlds.sends(segment, Reason::LearnRepeated, flow.owner());
            assert_eq!(worlds.state(), learned);
        }
    });
}

#[test]
fn case_08_a_handshake_teaches_no_second_key() {
    in_both_worlds(|worlds, flow| {
        worlds.connect(flow, SERVER_KEY);
        worlds.sends(&flow.third_ack(ISN, OTHER_KEY), Reason::LearnRepeated, flow.owner());
        worlds.sends(&flow.first_data(ISN, OTHER_KEY), Reason::LearnRepeated, flow.owner());
        assert_eq!(worlds.state().tokens.len(), 1);
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
    });
}

#[test]
fn case_08_a_copy_far_beyond_the_handshake_teaches_nothing() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        let option = [&TIMESTAMPS[..], &capable_data(CLIENT_KEY, SERVER_KEY)].concat();
        let late = |offset: u32| flow.ack(ISN + 1 + offset).options(&option).payload(100);
        worlds.sends(&late(65_536), Reason::LearnUnseen, flow.owner());
        worlds.sends(&flow.ack(ISN).options(&option).payload(100), Reason::LearnUnseen, flow.owner());
        worlds.sends(&late(65_535), Reason::Learned, flow.owner());
    });
}

#[test]
fn case_11_both_keys_in_a_syn_teach_nothing() {
    in_both_worlds(|worlds, flow| {
        let bogus = flow.syn(ISN).options(&capable_ack(V1, CLIENT_KEY, SERVER_KEY));
        worlds.sends(&bogus, Reason::RingNew, flow.owner());
        assert!(worlds.state().tokens.is_empty());
        teaches_nothing(worlds, flow);
    });
}

#[test]
fn case_12_a_syn_ack_for_a_vip_is_routed_and_teaches_nothing() {
    in_both_worlds(|worlds, flow| {
        for option in [capable_one_key(V1, SERVER_KEY), capable_ack(V1, CLIENT_KEY, SERVER_KEY)] {
            let mut syn_ack = ack_with(flow, &option);
            syn_ack.tcp.syn = true;
            worlds.sends(&syn_ack, Reason::Ring, flow.owner());
            assert!(worlds.state().tokens.is_empty());
            assert_eq!(worlds.state().recent_count(), (0, 0));
        }
    });
}

#[test]
fn case_14_a_syn_that_a_server_answers_by_plain_tcp_begins_nothing() {
    const B: u8 = 0x40;
    let length_12 = capable_one_key(V1, CLIENT_KEY);
    let with_join = [&capable_syn()[..], &crate::worlds::mptcp::join_syn(TOKEN)].concat();
    for option in [&[30, 4, V1, H | B][..], &[30, 4, V1, 0x80], &length_12, &with_join] {
        in_both_worlds(|worlds, flow| {
            worlds.sends(&syn_with(flow, option), Reason::RingNew, flow.owner());
            teaches_nothing(worlds, flow);
        });
    }
}

#[test]
fn case_16_keys_after_a_plain_syn_teach_nothing() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, flow.owner());
        teaches_nothing(worlds, flow);
    });
}

#[test]
fn case_17_keys_without_a_syn_teach_nothing() {
    in_both_worlds(teaches_nothing);
}

#[test]
fn case_17_keys_without_a_syn_teach_where_the_pool_allows_it() {
    let setup = Setup::farm_with(Ways::LEARN.and(Ways::LEARN_UNSEEN), UnknownJoin::DROP);
    in_both_worlds_of(&setup, |worlds, flow| {
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::Learned, flow.owner());
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
    });
}

#[test]
fn case_19_a_token_held_by_another_backend_becomes_ambiguous_and_is_never_taken_over() {
    in_both_worlds(|worlds, flow| {
        let first = worlds.connect_at(flow, B1);
        let second = flow.at_port(50_000).owned_by(B2);
        worlds.sends(&second.capable_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&second.third_ack(ISN, SERVER_KEY), Reason::LearnAmbiguous, B2);
        assert_eq!(worlds.state().holders(TOKEN), [B1, B2]);
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
        worlds.sends(&second.data(ISN), Reason::Ring, B2);
        worlds.refuses(&flow.at_second_address().join(ISN, TOKEN), Reason::JoinAmbiguous);
    });
}

#[test]
fn case_21_a_senders_key_of_zero_teaches_nothing() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.sends(&flow.capable_ack(ISN, V1, [0; 8], SERVER_KEY), Reason::Ring, flow.owner());
        assert!(worlds.state().tokens.is_empty());
    });
}

#[test]
fn case_21_a_receivers_key_of_zero_is_a_key() {
    in_both_worlds(|worlds, flow| {
        worlds.connect(flow, [0; 8]);
        assert_eq!(worlds.state().holders(0xaf55_70f5), [flow.owner()]);
    });
}

#[test]
fn case_23_a_client_that_falls_back_keeps_its_backend_and_teaches_nothing() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        assert!(worlds.recent(Memory::Pending, flow.hash()).is_some());
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, flow.owner());
        assert_eq!(worlds.recent(Memory::Pending, flow.hash()), None);
        teaches_nothing(worlds, flow);
    });
}

#[test]
fn case_25_a_reset_in_the_handshake_leaves_no_token() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.sends(&ack_with(flow, &capable_ack(V1, CLIENT_KEY, SERVER_KEY)).rst(), Reason::Ring, flow.owner());
        assert!(worlds.state().tokens.is_empty());
        assert!(worlds.state().joined.is_empty());
    });
}

/// How a joined subflow at B1 ends: the client says so, it falls silent, or its backend is gone.
const ENDS: [fn(&mut Worlds, Flow); 3] = [
    |worlds, subflow| drop(worlds.sends(&subflow.ack(ISN + 500).fin(), Reason::Flow, B1)),
    |worlds, subflow| worlds.change(|world| world.age_entry(Exception::Joined, subflow.hash(), LIVE_FLOW_TICKS)),
    |worlds, _| worlds.change(|world| world.write_backend(B1, Backend::GONE)),
];
/// The first sequence number of another connection on the same 5-tuple.
const SUCCESSOR: u32 = 7_000_000;

#[test]
fn case_26_a_new_syn_on_the_flow_of_an_ended_entry_is_decided_anew() {
    for end in ENDS {
        in_both_worlds(|worlds, flow| {
            worlds.connect_at(flow, B1);
            let subflow = flow.at_second_address().owned_by(B2);
            worlds.join(subflow, B1);
            end(worlds, subflow);
            worlds.sends(&subflow.plain_syn(SUCCESSOR), Reason::RingNew, B2);
            // The SYN may be a lie: until its ACK has come, the entry stays.
            assert_eq!(worlds.state().joined.len(), 1);
            worlds.sends(&subflow.ack(SUCCESSOR + 1), Reason::Ring, B2);
            worlds.sends(&subflow.ack(SUCCESSOR + 2), Reason::Ring, B2);
            assert!(worlds.state().joined.is_empty());
            assert_eq!(worlds.state().holders(TOKEN), [B1]);
        });
    }
}

#[test]
fn case_26_until_the_ack_of_a_new_syn_comes_the_entry_names_the_backend() {
    for end in &ENDS[..2] {
        in_both_worlds(|worlds, flow| {
            worlds.connect_at(flow, B1);
            let subflow = flow.at_second_address().owned_by(B2);
            worlds.join(subflow, B1);
            end(worlds, subflow);
            worlds.sends(&subflow.plain_syn(SUCCESSOR), Reason::RingNew, B2);
            worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
            worlds.sends(&subflow.ack(SUCCESSOR + 2), Reason::Flow, B1);
            worlds.sends(&subflow.ack(SUCCESSOR + 1), Reason::Ring, B2);
        });
    }
}

#[test]
fn case_26_a_join_on_the_flow_of_an_ended_entry_is_decided_anew() {
    for end in &ENDS[..2] {
        in_both_worlds(|worlds, flow| {
            worlds.connect_at(flow, B1);
            let subflow = flow.at_second_address().owned_by(B2);
            worlds.join(subflow, B1);
            let other = flow.at_port(50_000).owned_by(B2);
            worlds.connect(other, OTHER_KEY);
            end(worlds, subflow);
            worlds.sends(&subflow.join(SUCCESSOR, token(V1, OTHER_KEY)), Reason::JoinToken, B2);
            worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
            worlds.sends(&subflow.join_ack(SUCCESSOR), Reason::Joined, B2);
            worlds.sends(&subflow.data(SUCCESSOR), Reason::Ring, B2);
            assert_eq!(worlds.state().tokens.len(), 2);
        });
    }
}

/// Its server answers a challenge (RFC 5961, 4): a client who knows nothing of the connection resets it and tries again.
#[test]
fn case_26_while_a_flow_is_alive_its_server_gets_other_syns() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B2);
        worlds.join(subflow, B1);
        worlds.sends(&subflow.plain_syn(SUCCESSOR), Reason::Flow, B1);
        worlds.sends(&subflow.ack(ISN + 1).rst(), Reason::Flow, B1);
        worlds.sends(&subflow.plain_syn(SUCCESSOR), Reason::RingNew, B2);
        worlds.sends(&subflow.ack(SUCCESSOR + 1), Reason::Ring, B2);
        assert!(worlds.state().joined.is_empty());
    });
}

#[test]
fn case_26_a_spoofed_syn_and_ack_end_no_live_flows_entry() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B2);
        worlds.join(subflow, B1);
        let other = flow.at_port(50_000).owned_by(B2);
        worlds.connect(other, OTHER_KEY);
        let before = worlds.state().joined;
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
        worlds.send(&subflow.plain_syn(SUCCESSOR).frame());
        worlds.sends(&subflow.ack(SUCCESSOR + 1), Reason::Flow, B1);
        worlds.sends(&subflow.join(SUCCESSOR, token(V1, OTHER_KEY)), Reason::JoinToken, B2);
        worlds.sends(&subflow.join_ack(SUCCESSOR), Reason::Flow, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
        let proven = |entry: &FlowEntry| FlowEntry { state: FlowEntry::OPEN, ..*entry };
        assert_eq!(worlds.state().joined[&subflow.hash()], proven(&before[&subflow.hash()]));
    });
}

#[test]
fn case_27_a_syn_with_fast_open_teaches_only_by_its_third_ack() {
    in_both_worlds(|worlds, flow| {
        let cookie = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
        let options = [&SYN_OPTIONS[..], &cookie, &capable_syn()].concat();
        assert_eq!(options.len(), 36);
        worlds.sends(&flow.syn(ISN).options(&options).payload(1000), Reason::RingNew, flow.owner());
        assert!(worlds.state().tokens.is_empty());
        worlds.sends(&flow.third_ack(ISN + 1000, SERVER_KEY), Reason::Learned, flow.owner());
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
    });
}

/// Whether the server takes the data of the SYN or not: the client's next packet says which.
#[test]
fn case_27_fast_open_in_a_transition_stays_with_the_new_owner() {
    for taken in [1000, 0] {
        in_both_worlds(|worlds, flow| {
            let moving: Vec<_> = ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect();
            worlds.change(|world| world.write_ring(WEB, &moving));
            worlds.sends(&flow.capable_syn(ISN).payload(1000), Reason::RingNew, B2);
            worlds.sends(&flow.ack(ISN + 501 + taken), Reason::RingPrevious, B1);
            worlds.sends(&flow.ack(ISN + 1 + taken), Reason::Moved, B2);
            worlds.sends(&flow.ack(ISN + 5000), Reason::Flow, B2);
            // The SYN once more, late: it is this connection's.
            worlds.sends(&flow.capable_syn(ISN).payload(1000), Reason::Flow, B2);
            worlds.sends(&flow.data(ISN), Reason::Flow, B2);
        });
    }
}

#[test]
fn case_29_a_syn_with_data_is_routed_like_any() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.plain_syn(ISN).payload(100), Reason::RingNew, flow.owner());
        worlds.sends(&flow.capable_syn(ISN).payload(100), Reason::RingNew, flow.owner());
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::Learned, flow.owner());
    });
}

#[test]
fn case_30_the_third_ack_teaches_where_the_first_data_has_no_keys() {
    in_both_worlds(|worlds, flow| {
        worlds.connect(flow, SERVER_KEY);
        worlds.sends(&ack_with(flow, &DSS).payload(100), Reason::Ring, flow.owner());
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
    });
}
