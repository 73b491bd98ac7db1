//! What holds over many flows: while pools change, over several balancers, and at the tables' limits.

use crate::worlds::{
    Worlds,
    client::ISN,
    in_both_worlds,
    mptcp::{Key, SERVER_KEY, TOKEN, V1, token},
    packet::Flow,
    setup::{B1, B2, B3, Setup, WEB, ring_of},
};
use lb_common::{
    ids::{BackendId, FlowHash, Tick, Token},
    limits,
    reason::Reason,
    tables::{Backend, Exception, FlowEntry, Holder, Slot, TokenEntry, TokenKey},
    transition::Transitions,
};
use std::time::Duration;

/// A connection with a subflow, and where both live.
#[derive(Clone, Copy)]
struct Connection {
    first: Flow,
    subflow: Flow,
    token: u32,
    backend: BackendId,
}

/// Opens and joins as many connections, over all backends.
fn connections(worlds: &mut Worlds, flow: Flow, count: u16) -> Vec<Connection> {
    let open = |n| {
        let key: Key = (u64::from(n) + 77).to_be_bytes();
        let first = flow.at_port(20_000 + n);
        let subflow = flow.at_second_address().at_port(20_000 + n);
        let connection = Connection { first, subflow, token: token(V1, key), backend: first.owner() };
        worlds.connect(first, key);
        worlds.sends(&subflow.join(ISN, connection.token), Reason::JoinToken, connection.backend);
        worlds.send(&subflow.join_ack(ISN).frame());
        connection
    };
    (0..count).map(open).collect()
}

/// Every subflow of every connection goes where it lives, and so would a further one.
#[track_caller]
fn all_stay(worlds: &mut Worlds, connections: &[Connection]) {
    for connection in connections {
        for flow in [connection.first, connection.subflow] {
            assert_eq!(worlds.send(&flow.data(ISN).frame()).backend, Some(connection.backend));
        }
        let further = connection.subflow.at_port(connection.first.client.port() + 10_000);
        worlds.sends(&further.join(ISN, connection.token), Reason::JoinToken, connection.backend);
        assert_eq!(worlds.state().holders(connection.token), [connection.backend]);
    }
}

fn change(worlds: &mut Worlds, slots: &[Slot]) {
    worlds.change(|world| world.write_ring(WEB, slots));
}

#[test]
fn case_84_a_flow_that_moves_to_another_balancer_goes_on_where_the_ring_has_it() {
    in_both_worlds(|here, flow| {
        let mut there = Worlds::new(Setup::farm());
        for flow in (20_000..20_100).map(|port| flow.at_port(port)) {
            let backend = here.send(&flow.capable_syn(ISN).frame()).backend;
            assert_eq!(there.send(&flow.third_ack(ISN, SERVER_KEY).frame()).backend, backend);
            assert_eq!(there.send(&flow.data(ISN).frame()).backend, backend);
            assert_eq!(here.send(&flow.data(ISN).frame()).backend, backend);
        }
        there.end();
    });
}

#[test]
fn case_84_a_joined_subflow_that_moves_breaks_alone() {
    in_both_worlds(|here, flow| {
        let mut there = Worlds::new(Setup::farm());
        let first = here.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B2);
        here.join(subflow, B1);
        let before = there.state();
        there.sends(&subflow.data(ISN), Reason::Ring, B2);
        assert_eq!(there.state(), before);
        there.sends(&first.data(ISN), Reason::Ring, B1);
        here.sends(&first.data(ISN), Reason::Ring, B1);
        here.sends(&subflow.data(ISN), Reason::Flow, B1);
        there.end();
    });
}

#[test]
fn case_86_what_lives_stays_while_a_backend_leaves_and_comes_back() {
    const WINDOW: Duration = Duration::from_secs(100);
    in_both_worlds(|worlds, flow| {
        let old = connections(worlds, flow, 60);
        let owners = |backends| ring_of(backends).iter().map(|slot| slot.owner().0).collect::<Vec<_>>();
        let mut ring = Transitions::settled(&owners(&[B1, B2, B3]));

        ring.change(&owners(&[B1, B2]), Duration::ZERO, WINDOW, |_| true);
        change(worlds, ring.slots());
        all_stay(worlds, &old);
        let new = (50_000..50_060).map(|port| flow.at_port(port)).map(|flow| {
            let backend = worlds.send(&flow.plain_syn(ISN).frame()).backend.expect("two backends are left");
            assert_ne!(backend, B3, "who leaves takes no new connection");
            assert_eq!(worlds.send(&flow.ack(ISN + 1).frame()).backend, Some(backend));
            (flow, backend)
        });
        let new: Vec<_> = new.collect();
        assert!(!worlds.state().moved.is_empty());

        ring.change(&owners(&[B1, B2, B3]), WINDOW / 2, WINDOW, |_| true);
        change(worlds, ring.slots());
        all_stay(worlds, &old);
        for (flow, backend) in new {
            assert_eq!(worlds.send(&flow.ack(ISN + 500).frame()).backend, Some(backend));
        }
    });
}

#[test]
fn case_86_a_handshake_ends_where_it_began_though_its_slot_has_gone_back() {
    in_both_worlds(|worlds, flow| {
        let moving: Vec<_> = ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect();
        change(worlds, &moving);
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, B2);
        change(worlds, &ring_of(&[B1]));
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::Learned, B2);
        worlds.sends(&flow.data(ISN), Reason::Flow, B2);
        assert_eq!(worlds.state().holders(TOKEN), [B2]);
    });
}

#[test]
fn case_86_a_plain_handshake_ends_where_it_began_though_its_backend_has_left_and_come_back() {
    const WINDOW: Duration = Duration::from_secs(100);
    in_both_worlds(|worlds, flow| {
        let owners = |backends| ring_of(backends).iter().map(|slot| slot.owner().0).collect::<Vec<_>>();
        let flow = flow.owned_by(B3);
        let mut ring = Transitions::settled(&owners(&[B1, B2, B3]));
        ring.change(&owners(&[B1, B2]), Duration::ZERO, WINDOW, |_| true);
        change(worlds, ring.slots());
        let backend = worlds.send(&flow.plain_syn(ISN).frame()).backend.expect("two backends are left");
        ring.change(&owners(&[B1, B2, B3]), WINDOW / 2, WINDOW, |_| true);
        change(worlds, ring.slots());
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, backend);
        worlds.sends(&flow.at_port(50_000).owned_by(B3).plain_syn(ISN), Reason::RingNew, B3);
        worlds.sends(&flow.ack(ISN + 1), Reason::Moved, backend);
        worlds.sends(&flow.data(ISN), Reason::Flow, backend);
    });
}

/// A backend that has just come dies before it answers; the SYN that comes again goes to who had the slot before.
#[test]
fn case_86_a_handshake_that_a_dead_backend_never_answered_ends_at_who_did() {
    in_both_worlds(|worlds, flow| {
        let in_transition =
            |owner| -> Vec<_> { ring_of(&[owner]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect() };
        change(worlds, &in_transition(B2));
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, B2);
        worlds.change(|world| world.write_backend(B2, Backend::GONE));
        change(worlds, &in_transition(B1));
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, B1);
        worlds.sends(&flow.ack(ISN + 1), Reason::RingPrevious, B1);
        worlds.sends(&flow.data(ISN), Reason::RingPrevious, B1);
        assert!(worlds.state().moved.is_empty());
    });
}

#[test]
fn case_86_survivors_of_a_transition_are_pinned_before_it_ends() {
    in_both_worlds(|worlds, flow| {
        let flow = flow.owned_by(B1);
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, B1);
        let moving: Vec<_> = ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect();
        change(worlds, &moving);
        worlds.sends(&flow.ack(ISN + 1), Reason::RingPrevious, B1);
        change(worlds, &moving.iter().map(|slot| slot.pinning()).collect::<Vec<_>>());
        worlds.sends(&flow.ack(ISN + 1), Reason::Pinned, B1);
        assert_eq!(worlds.state().pinned[&flow.hash()].backend, B1);
        change(worlds, &ring_of(&[B2]));
        worlds.sends(&flow.data(ISN), Reason::Flow, B1);
        let other = flow.at_port(50_000);
        worlds.sends(&other.plain_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&other.ack(ISN + 1), Reason::Ring, B2);
    });
}

#[test]
fn case_86_a_dead_backend_takes_nobody_with_it() {
    in_both_worlds(|worlds, flow| {
        let all = connections(worlds, flow, 60);
        worlds.change(|world| world.write_backend(B2, Backend::GONE));
        let (dead, living): (Vec<_>, Vec<_>) = all.into_iter().partition(|connection| connection.backend == B2);
        assert!(!dead.is_empty() && !living.is_empty());
        all_stay(worlds, &living);
        for connection in dead {
            worlds.refuses(&connection.first.data(ISN), Reason::BackendGone);
            worlds.refuses(&connection.subflow.data(ISN), Reason::BackendGone);
        }
    });
}

#[test]
fn case_90_plain_tcp_leaves_no_trace() {
    in_both_worlds(|worlds, flow| {
        let before = worlds.state();
        for flow in (20_000..20_030).map(|port| flow.at_port(port)) {
            worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, flow.owner());
            worlds.sends(&flow.ack(ISN + 1), Reason::Ring, flow.owner());
            worlds.sends(&flow.data(ISN), Reason::Ring, flow.owner());
            worlds.sends(&flow.ack(ISN + 500).fin(), Reason::Ring, flow.owner());
            assert_eq!(worlds.state(), before);
        }
    });
}

fn full(kind: Exception, worlds: &mut Worlds) {
    let entry = FlowEntry { backend: B3, state: FlowEntry::OPEN, ..FlowEntry::default() };
    worlds.change(|world| {
        for n in 0..limits::JOINED_FLOWS.min {
            world.write_entry(kind, FlowHash(u64::from(n)), entry);
        }
    });
}

#[test]
fn a_full_table_of_tokens_is_told_and_the_connection_goes_on() {
    in_both_worlds(|worlds, flow| {
        let holder = Holder { flow: FlowHash(0), since: Tick(0), backend: B3, state: Holder::OPEN };
        worlds.change(|world| {
            for n in 0..limits::TOKENS.min {
                world.write_token(TokenKey::new(WEB, Token::from_wire(n.to_be_bytes())), TokenEntry::held_by(holder));
            }
        });
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::LearnFull, flow.owner());
        assert_eq!(worlds.state().holders(TOKEN), []);
        // Room again: the next copy of the keys teaches.
        let key = TokenKey::new(WEB, Token::from_wire([0; 4]));
        worlds.change(|world| world.remove_token(key));
        worlds.sends(&flow.first_data(ISN, SERVER_KEY), Reason::Learned, flow.owner());
    });
}

#[test]
fn a_full_table_of_joined_flows_drops_the_join_and_nothing_else() {
    in_both_worlds(|worlds, flow| {
        let first = worlds.connect_at(flow, B1);
        full(Exception::Joined, worlds);
        let subflow = flow.at_second_address().owned_by(B2);
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.refuses(&subflow.join_ack(ISN), Reason::JoinedFull);
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
        let other = flow.at_second_address().owned_by(B1);
        worlds.sends(&other.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.sends(&other.join_ack(ISN), Reason::Ring, B1);
    });
}

#[test]
fn full_tables_in_a_transition_break_no_old_connection() {
    in_both_worlds(|worlds, flow| {
        let moving: Vec<_> = ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect();
        change(worlds, &moving);
        full(Exception::Moved, worlds);
        full(Exception::Pinned, worlds);
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, B2);
        worlds.refuses(&flow.ack(ISN + 1), Reason::MovedFull);
        let old = flow.at_port(50_000);
        worlds.sends(&old.data(ISN), Reason::RingPrevious, B1);
        change(worlds, &moving.iter().map(|slot| slot.pinning()).collect::<Vec<_>>());
        worlds.sends(&old.data(ISN), Reason::PinnedFull, B1);
    });
}
