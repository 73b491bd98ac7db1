//! A further subflow goes to its connection's backend, or nowhere.

use crate::worlds::{
    Memory, Verdict, Worlds,
    client::ISN,
    in_both_worlds, in_both_worlds_of,
    mptcp::{
        BACKUP, CLIENT_KEY, Key, SERVER_KEY, SYN_OPTIONS, TIMESTAMPS, TOKEN, V0, V1, capable_one_key, join_ack_with,
        join_syn_of, token,
    },
    packet::Flow,
    setup::{B1, B2, B3, PORTS, Setup, WEB, ring_of},
};
use lb_common::{
    ids::Token,
    reason::Reason,
    tables::{self, Holder, TokenEntry, TokenKey, UnknownJoin, Ways},
    wire::ip::Family,
};

const OTHER_KEY: Key = *b"another!";

/// A connection at B1, and a subflow of it that the ring would send to B2.
#[track_caller]
fn connection_and_subflow(worlds: &mut Worlds, flow: Flow) -> (Flow, Flow) {
    (worlds.connect_at(flow, B1), flow.at_second_address().owned_by(B2))
}

#[test]
fn case_32_a_join_goes_to_its_tokens_backend_against_the_ring() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
        assert!(worlds.state().joined.is_empty(), "a SYN proves nothing");
        worlds.sends(&subflow.join_ack(ISN), Reason::Joined, B1);
        assert_eq!(worlds.state().joined[&subflow.hash()].backend, B1);
        assert_eq!(worlds.state().joined.len(), 1);
    });
}

#[test]
fn case_32_a_join_that_the_ring_answers_needs_no_entry() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B1);
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.sends(&subflow.join_ack(ISN), Reason::Ring, B1);
        assert!(worlds.state().joined.is_empty());
        assert_eq!(worlds.recent(Memory::Embryonic, subflow.hash()), None);
    });
}

#[test]
fn case_33_what_follows_a_join_goes_by_the_flows_entry() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        worlds.join(subflow, B1);
        worlds.sends(&subflow.join_ack(ISN), Reason::Flow, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
        worlds.sends(&subflow.ack(ISN + 5000), Reason::Flow, B1);
    });
}

#[test]
fn case_33_only_the_ack_of_the_syn_confirms_a_join() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.sends(&subflow.join_ack(ISN + 1), Reason::Ring, B2);
        assert!(worlds.state().joined.is_empty());
        worlds.sends(&subflow.join_ack(ISN), Reason::Joined, B1);
    });
}

#[test]
fn case_34_a_join_sent_again_has_one_entry() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        for _ in 0..3 {
            worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
            assert!(worlds.state().joined.is_empty());
        }
        worlds.sends(&subflow.join_ack(ISN), Reason::Joined, B1);
        assert_eq!(worlds.state().recent_count().1, 0, "each of the three SYNs is forgotten");
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.sends(&subflow.join_ack(ISN), Reason::Flow, B1);
        assert_eq!(worlds.state().joined.len(), 1);
        assert_eq!(worlds.state().joined[&subflow.hash()].backend, B1);
    });
}

#[test]
fn case_35_an_unknown_join_is_dropped_unless_the_pool_says_otherwise() {
    in_both_worlds(|worlds, flow| {
        let outcome = worlds.refuses(&flow.join(ISN, TOKEN), Reason::JoinUnknown);
        assert_eq!(outcome.verdict, Verdict::Drop);
        assert_eq!(worlds.state().recent_count(), (0, 0));
    });
}

#[test]
fn case_35_an_unknown_join_is_hashed_where_the_pool_says_so() {
    in_both_worlds_of(&Setup::farm_with(Ways::LEARN, UnknownJoin::HASH), |worlds, flow| {
        worlds.sends(&flow.join(ISN, TOKEN), Reason::JoinUnknownHashed, flow.owner());
        worlds.sends(&flow.join_ack(ISN), Reason::Ring, flow.owner());
        assert!(worlds.state().joined.is_empty());
    });
}

#[test]
fn case_35_an_unknown_join_is_reset_where_the_pool_says_so() {
    in_both_worlds_of(&Setup::farm_with(Ways::LEARN, UnknownJoin::RESET), |worlds, flow| {
        let outcome = worlds.refuses(&flow.join(ISN, TOKEN), Reason::JoinUnknownReset);
        assert_eq!(outcome.verdict, Verdict::Transmit);
    });
}

#[test]
fn case_36_a_join_succeeds_once_its_token_is_learned() {
    in_both_worlds(|worlds, flow| {
        let subflow = flow.at_second_address().owned_by(B2);
        worlds.refuses(&subflow.join(ISN, TOKEN), Reason::JoinUnknown);
        worlds.connect_at(flow, B1);
        worlds.join(subflow, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn case_37_where_no_joins_are_known_one_is_a_syn_like_any() {
    in_both_worlds_of(&Setup::farm_with(Ways::OFF, UnknownJoin::DROP), |worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::Ring, flow.owner());
        let subflow = flow.at_second_address();
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::RingNew, subflow.owner());
        worlds.sends(&subflow.join_ack(ISN), Reason::Ring, subflow.owner());
        assert!(worlds.state().tokens.is_empty() && worlds.state().joined.is_empty());
        assert_eq!(worlds.state().recent_count(), (0, 0));
    });
}

#[test]
fn case_38_a_join_to_another_port_of_the_service_keeps_its_port() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let subflow = flow.to_port(*PORTS.end()).owned_by(B2);
        assert_ne!(subflow.vip.port(), flow.vip.port());
        // That the bytes behind the outer header are the client's is judged of every packet.
        worlds.join(subflow, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn case_41_a_join_over_the_other_ip_version_finds_its_connection() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let other = if flow.vip.is_ipv4() { Family::V6 } else { Family::V4 };
        let subflow = Flow::new(other).owned_by(B3);
        worlds.join(subflow, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn case_42_a_join_has_an_entry_of_its_own_even_from_the_first_subflows_port() {
    in_both_worlds(|worlds, flow| {
        let apart = |flow: &Flow| flow.owner() == B1 && flow.at_second_address().owner() == B2;
        let first = (40_000..50_000).map(|port| flow.at_port(port)).find(apart).expect("a ninth of all ports");
        worlds.connect(first, SERVER_KEY);
        let subflow = first.at_second_address();
        worlds.join(subflow, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
        assert_eq!(worlds.state().joined.len(), 1);
    });
}

#[test]
fn case_43_backup_and_address_id_make_no_difference() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        for (flags, address_id) in [(0, 0), (BACKUP, 0), (0, 7), (BACKUP, 255)] {
            let join = [&SYN_OPTIONS[..], &join_syn_of(TOKEN, flags, address_id)].concat();
            worlds.sends(&subflow.syn(ISN).options(&join), Reason::JoinToken, B1);
        }
    });
}

#[test]
fn case_45_the_hmac_of_a_joins_ack_is_never_taken_for_a_token() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        let hmac = [&TIMESTAMPS[..], &join_ack_with(TOKEN.to_be_bytes())].concat();
        worlds.sends(&subflow.ack(ISN + 1).options(&hmac), Reason::Ring, B2);
        // Nor in the first packet of a flow, nor in a SYN that has the wrong length for one.
        worlds.sends(&subflow.syn(ISN).options(&join_ack_with(TOKEN.to_be_bytes())), Reason::RingNew, B2);
        assert!(worlds.state().joined.is_empty());
        assert_eq!(worlds.recent(Memory::Embryonic, subflow.hash()), None);
    });
}

#[test]
fn case_47_a_join_follows_its_connection_to_a_draining_backend() {
    in_both_worlds(|worlds, flow| {
        let (first, subflow) = connection_and_subflow(worlds, flow);
        let without_b1 = ring_of(&[B2, B3]).into_iter();
        let drained: Vec<_> = without_b1.map(|slot| tables::Slot::in_transition(slot.owner(), B1)).collect();
        worlds.change(|world| world.write_ring(WEB, &drained));
        worlds.sends(&first.data(ISN), Reason::RingPrevious, B1);
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
    });
}

#[test]
fn case_47_a_join_for_a_dead_backend_is_dropped() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        let other = flow.at_second_address().at_port(50_000).owned_by(B2);
        worlds.join(other, B1);
        worlds.change(|world| world.write_backend(B1, tables::Backend::GONE));
        let outcome = worlds.refuses(&subflow.join(ISN, TOKEN), Reason::BackendGone);
        assert_eq!(outcome.verdict, Verdict::Drop);
        worlds.refuses(&other.data(ISN), Reason::BackendGone);
    });
}

#[test]
fn case_48_a_join_with_an_ambiguous_token_is_dropped_until_one_holder_ends() {
    in_both_worlds(|worlds, flow| {
        let (first, subflow) = connection_and_subflow(worlds, flow);
        let early = subflow.at_port(45_000).owned_by(B3);
        worlds.join(early, B1);
        let second = flow.at_port(50_000).owned_by(B2);
        worlds.sends(&second.capable_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&second.third_ack(ISN, SERVER_KEY), Reason::LearnAmbiguous, B2);

        let outcome = worlds.refuses(&subflow.join(ISN, TOKEN), Reason::JoinAmbiguous);
        assert_eq!(outcome.verdict, Verdict::Drop);
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
        worlds.sends(&early.data(ISN), Reason::Flow, B1);
        worlds.sends(&second.data(ISN), Reason::Ring, B2);

        for (ended, left) in [(0, B2), (1, B1)] {
            let key = TokenKey::new(WEB, Token::from_wire(TOKEN.to_be_bytes()));
            let holders = worlds.state().tokens[&(key.pool, key.token)];
            worlds.change(|world| {
                let mut entry = TokenEntry { holders };
                entry.holders[ended] = Holder::default();
                world.write_token(key, entry);
            });
            worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, left);
            worlds.change(|world| world.write_token(key, TokenEntry { holders }));
        }
    });
}

#[test]
fn case_48_a_crowd_of_holders_stays_ambiguous() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        for backend in [B2, B3] {
            let claim = flow.at_port(50_000).owned_by(backend);
            worlds.sends(&claim.capable_syn(ISN), Reason::RingNew, backend);
            worlds.sends(&claim.third_ack(ISN, SERVER_KEY), Reason::LearnAmbiguous, backend);
        }
        let key = TokenKey::new(WEB, Token::from_wire(TOKEN.to_be_bytes()));
        let mut holders = worlds.state().tokens[&(key.pool, key.token)];
        holders[0] = Holder::default();
        worlds.change(|world| world.write_token(key, TokenEntry { holders }));
        worlds.refuses(&subflow.join(ISN, TOKEN), Reason::JoinAmbiguous);
    });
}

#[test]
fn case_50_connections_of_both_versions_are_joined_at_one_vip() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let v0 = flow.at_port(50_000).owned_by(B2);
        let syn = v0.syn(ISN).options(&[&SYN_OPTIONS[..], &capable_one_key(V0, CLIENT_KEY)].concat());
        worlds.sends(&syn, Reason::RingNew, B2);
        worlds.sends(&v0.capable_ack(ISN, V0, CLIENT_KEY, OTHER_KEY), Reason::Learned, B2);

        let second = flow.at_second_address().owned_by(B3);
        worlds.sends(&second.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.sends(&second.join(ISN, token(V0, OTHER_KEY)), Reason::JoinToken, B2);
        worlds.refuses(&second.join(ISN, token(V1, OTHER_KEY)), Reason::JoinUnknown);
    });
}

#[test]
fn case_51_a_flood_of_random_tokens_leaves_no_trace() {
    in_both_worlds(|worlds, flow| {
        let (first, subflow) = connection_and_subflow(worlds, flow);
        worlds.join(subflow, B1);
        let before = worlds.state();
        for n in 0..300_u16 {
            let random = token(V1, u64::from(n).to_be_bytes());
            worlds.refuses(&flow.at_second_address().at_port(n).join(u32::from(n), random), Reason::JoinUnknown);
        }
        assert_eq!(worlds.state(), before);
        let other = flow.at_port(50_000);
        worlds.sends(&other.plain_syn(ISN), Reason::RingNew, other.owner());
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn case_51_a_flood_with_a_known_token_fills_only_what_strangers_may_fill() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow) = connection_and_subflow(worlds, flow);
        worlds.join(subflow, B1);
        let before = worlds.state();
        for n in 1..300_u16 {
            worlds.sends(&flow.at_second_address().at_port(n).join(u32::from(n), TOKEN), Reason::JoinToken, B1);
        }
        assert_eq!(worlds.state().tokens, before.tokens);
        assert_eq!(worlds.state().joined, before.joined);
        assert_eq!(worlds.state().pending, before.pending);
        assert!(worlds.state().recent_count().1 > 0);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn case_52_a_join_before_the_third_ack_is_unknown() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.refuses(&flow.at_second_address().join(ISN, TOKEN), Reason::JoinUnknown);
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::Learned, flow.owner());
    });
}
