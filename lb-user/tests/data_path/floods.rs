//! Floods: what each may cost is bounded by a limit, none takes away what a live connection has, and every packet of one is
//! counted.

use crate::worlds::{
    State, World, Worlds,
    client::ISN,
    host::Host,
    in_both_worlds, in_both_worlds_of,
    kernel::Kernel,
    mptcp::{Key, SERVER_KEY, TOKEN, V1, token},
    packet::Flow,
    setup::{B1, B2, Setup, WEB, ring_of},
};
use lb_common::{
    ids::Tick,
    limits,
    reason::Reason,
    tables::{Exception, Slot},
    wire::ip::Family,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

/// What became of many packets.
#[derive(Debug)]
pub(crate) struct Counts {
    reasons: BTreeMap<Reason, u32>,
    /// Budgets last for a tick: how many ticks there may have been.
    pub(crate) spans: u32,
    /// How many CPUs may have had a budget each.
    pub(crate) cpus: u32,
}

impl Counts {
    pub(crate) fn of(&self, reason: Reason) -> u32 {
        self.reasons.get(&reason).copied().unwrap_or_default()
    }
}

/// Sends many packets, of which a world counts each once.
pub(crate) fn flood(world: &mut dyn World, frames: impl Iterator<Item = Vec<u8>>) -> Counts {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let began = Instant::now();
    let mut reasons = BTreeMap::new();
    for frame in frames {
        *reasons.entry(world.send(&frame).reason).or_default() += 1;
    }
    let ticks = began.elapsed().as_nanos() / u128::from(Tick::NANOS);
    let number = |n: u128| u32::try_from(n).expect("a short test");
    Counts { reasons, spans: number(ticks) + 2, cpus: number(cpus as u128) }
}

/// Runs a test over each world alone: budgets go by the clock, which the kernel's world cannot set.
pub(crate) fn apart(setup: &Setup, test: impl Fn(&mut dyn World, Flow)) {
    for family in [Family::V4, Family::V6] {
        test(&mut Host::new(setup), Flow::new(family));
        let mut kernel = Kernel::of(setup);
        test(&mut kernel, Flow::new(family));
        kernel.leave();
    }
}

/// Flows from as many networks, none of them the client's.
fn strangers(flow: Flow, count: u16) -> impl Iterator<Item = Flow> {
    (0..count).map(move |n| {
        let [high, low] = n.to_be_bytes();
        let address = match flow.vip.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(100, 64 + high, low, 1)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x4000 + n, 0, 0, 0, 0, 1)),
        };
        Flow { client: SocketAddr::new(address, 1024 + n), ..flow }
    })
}

/// Flows from one network.
fn neighbours(flow: Flow, count: u16) -> impl Iterator<Item = Flow> {
    (0..count).map(move |n| flow.at_second_address().at_port(1024 + n))
}

fn key(n: u32) -> Key {
    (u64::from(n) + 0x1000).to_be_bytes()
}

/// A connection with a joined subflow that only its entry keeps where it is.
fn live(worlds: &mut Worlds, flow: Flow) -> (Flow, Flow, State) {
    let first = worlds.connect_at(flow, B1);
    let subflow = flow.at_second_address().owned_by(B2);
    worlds.join(subflow, B1);
    worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    (first, subflow, worlds.state())
}

/// All slots go from B1 to B2.
fn moving() -> Vec<Slot> {
    ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect()
}

#[test]
fn a_flood_of_syns_fills_only_what_strangers_may_fill() {
    in_both_worlds(|worlds, flow| {
        let (first, subflow, before) = live(worlds, flow);
        for stranger in strangers(flow, 1500) {
            worlds.sends(&stranger.capable_syn(ISN), Reason::RingNew, stranger.owner());
        }
        let after = worlds.state();
        assert_eq!((&after.tokens, &after.joined), (&before.tokens, &before.joined));
        assert!(after.moved.is_empty() && after.pinned.is_empty());
        let (pending, embryonic) = after.recent_count();
        assert!(pending > 500 && pending <= limits::PENDING_HANDSHAKES.min as usize, "{pending}");
        assert_eq!(embryonic, before.recent_count().1, "a settled slot has nothing to confirm");
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn a_flood_of_syns_in_a_transition_makes_no_entry_and_ends_none() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow, before) = live(worlds, flow);
        worlds.change(|world| world.write_ring(WEB, &moving()));
        let moved = flow.at_port(50_000);
        worlds.sends(&moved.plain_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&moved.ack(ISN + 1), Reason::Moved, B2);
        worlds.sends(&moved.data(ISN), Reason::Flow, B2);
        for stranger in strangers(flow, 1500) {
            worlds.sends(&stranger.plain_syn(ISN), Reason::RingNew, B2);
        }
        let after = worlds.state();
        assert_eq!((&after.tokens, &after.joined, after.moved.len()), (&before.tokens, &before.joined, 1));
        let (_, embryonic) = after.recent_count();
        assert!(embryonic > 500 && embryonic <= limits::EMBRYONIC_FLOWS.min as usize, "{embryonic}");
        worlds.sends(&moved.data(ISN), Reason::Flow, B2);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn a_flood_of_joins_that_are_confirmed_is_bounded_by_its_table() {
    const ENTRIES: u32 = 20;
    let mut setup = Setup::farm();
    setup.limits.entries = ENTRIES;
    in_both_worlds_of(&setup, |worlds, flow| {
        let (first, subflow, _) = live(worlds, flow);
        let mut made = 0;
        for stranger in strangers(flow, 200).filter(|stranger| stranger.owner() == B2) {
            worlds.sends(&stranger.join(ISN, TOKEN), Reason::JoinToken, B1);
            let outcome = worlds.send(&stranger.join_ack(ISN).frame());
            let is_full = worlds.state().joined.len() == ENTRIES as usize && outcome.reason != Reason::Joined;
            assert_eq!(outcome.reason, if is_full { Reason::JoinedFull } else { Reason::Joined });
            made += u32::from(!is_full);
        }
        assert_eq!(made, ENTRIES - 1, "one is the live subflow's");
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
        worlds.sends(&first.data(ISN), Reason::Ring, B1);
        let by_ring = flow.at_port(50_000).owned_by(B1);
        worlds.sends(&by_ring.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.sends(&by_ring.join_ack(ISN), Reason::Ring, B1);
    });
}

#[test]
fn a_flood_of_joins_is_bounded_by_the_budget_of_its_token() {
    const BUDGET: u32 = 5;
    let mut setup = Setup::farm();
    setup.limits.joins_per_token = BUDGET;
    apart(&setup, |world, flow| {
        // What the other family has spent in this tick stays spent.
        let keys = if flow.vip.is_ipv4() { [1, 2] } else { [3, 4] }.map(key);
        for (first, key) in [flow, flow.at_port(50_000)].into_iter().zip(keys) {
            world.send(&first.capable_syn(ISN).frame());
            assert_eq!(world.send(&first.third_ack(ISN, key).frame()).reason, Reason::Learned);
        }
        let [sprayed, other] = keys.map(|key| token(V1, key));
        let counts = flood(world, strangers(flow, 400).map(|stranger| stranger.join(ISN, sprayed).frame()));
        let passed = counts.of(Reason::JoinToken);
        assert!((BUDGET..=BUDGET * counts.spans).contains(&passed), "{passed} came through: {counts:?}");
        assert_eq!(passed + counts.of(Reason::JoinOverBudget), 400);
        // No other connection is the poorer.
        let others = flood(world, strangers(flow, 5).map(|stranger| stranger.join(ISN, other).frame()));
        assert_eq!(others.of(Reason::JoinToken), 5);
    });
}

#[test]
fn a_flood_of_third_packets_without_their_syns_teaches_nothing() {
    in_both_worlds(|worlds, flow| {
        let (_, subflow, before) = live(worlds, flow);
        for (stranger, n) in strangers(flow, 500).zip(0..) {
            worlds.sends(&stranger.third_ack(ISN, key(n)), Reason::LearnUnseen, stranger.owner());
        }
        // Nor does one that claims a live connection's token.
        let claim = flow.at_port(50_000).owned_by(B2);
        worlds.sends(&claim.third_ack(ISN, SERVER_KEY), Reason::LearnUnseen, B2);
        assert_eq!(worlds.state(), before);
        worlds.sends(&subflow.data(ISN), Reason::Flow, B1);
    });
}

#[test]
fn a_flood_of_third_packets_is_bounded_by_the_budget_of_its_network() {
    const BUDGET: u32 = 5;
    let mut setup = Setup::farm();
    setup.limits.entries_per_network = BUDGET;
    apart(&setup, |world, flow| {
        let handshake = |(flow, n): (Flow, u32)| [flow.capable_syn(ISN).frame(), flow.third_ack(ISN, key(n)).frame()];
        let counts = flood(world, neighbours(flow, 400).zip(0..).flat_map(handshake));
        let learned = counts.of(Reason::Learned);
        assert!((BUDGET..=BUDGET * counts.spans).contains(&learned), "{learned} were learned: {counts:?}");
        assert_eq!(counts.of(Reason::RingNew), 400);
        assert_eq!(learned + counts.of(Reason::LearnOverBudget), 400);
        assert_eq!(world.tokens().len(), learned as usize);
        // Nobody else is the poorer.
        let others = flood(world, strangers(flow, 20).zip(1000..).flat_map(handshake));
        assert_eq!((others.of(Reason::Learned), others.of(Reason::LearnOverBudget)), (20, 0));
    });
}

#[test]
fn a_flood_of_third_packets_is_bounded_by_the_table_of_tokens() {
    const ENTRIES: u32 = 20;
    let mut setup = Setup::farm();
    setup.limits.entries = ENTRIES;
    in_both_worlds_of(&setup, |worlds, flow| {
        let (_, subflow, before) = live(worlds, flow);
        for (stranger, n) in strangers(flow, 100).zip(1..) {
            worlds.sends(&stranger.capable_syn(ISN), Reason::RingNew, stranger.owner());
            let reason = if n < ENTRIES { Reason::Learned } else { Reason::LearnFull };
            worlds.sends(&stranger.third_ack(ISN, key(n)), reason, stranger.owner());
        }
        let after = worlds.state();
        assert_eq!(after.tokens.len(), ENTRIES as usize);
        assert!(before.tokens.iter().all(|(key, holders)| after.tokens[key] == *holders), "none was taken");
        let other = subflow.at_port(50_000).owned_by(B2);
        worlds.join(other, B1);
    });
}

#[test]
fn a_flood_of_connections_in_a_transition_is_bounded_by_the_budget_of_its_network() {
    const BUDGET: u32 = 5;
    let mut setup = Setup::farm();
    setup.limits.entries_per_network = BUDGET;
    setup.pools[0].ring = moving();
    apart(&setup, |world, flow| {
        let handshake = |flow: Flow| [flow.plain_syn(ISN).frame(), flow.ack(ISN + 1).frame()];
        let counts = flood(world, neighbours(flow, 400).flat_map(handshake));
        let moved = counts.of(Reason::Moved);
        assert!((BUDGET..=BUDGET * counts.spans).contains(&moved), "{moved} have an entry: {counts:?}");
        assert_eq!(moved + counts.of(Reason::MovedOverBudget), 400);
        assert_eq!(world.entries(Exception::Moved).len(), moved as usize);
        let others = flood(world, strangers(flow, 20).flat_map(handshake));
        assert_eq!((others.of(Reason::Moved), others.of(Reason::MovedOverBudget)), (20, 0));
    });
}

#[test]
fn a_flood_of_connections_in_a_transition_is_bounded_by_its_table() {
    const ENTRIES: u32 = 20;
    let mut setup = Setup::farm();
    setup.limits.entries = ENTRIES;
    in_both_worlds_of(&setup, |worlds, flow| {
        worlds.change(|world| world.write_ring(WEB, &moving()));
        worlds.sends(&flow.plain_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&flow.ack(ISN + 1), Reason::Moved, B2);
        for (stranger, n) in strangers(flow, 100).zip(1..) {
            worlds.sends(&stranger.plain_syn(ISN), Reason::RingNew, B2);
            if n < ENTRIES {
                worlds.sends(&stranger.ack(ISN + 1), Reason::Moved, B2);
            } else {
                worlds.refuses(&stranger.ack(ISN + 1), Reason::MovedFull);
            }
        }
        assert_eq!(worlds.state().moved.len(), ENTRIES as usize);
        worlds.sends(&flow.data(ISN), Reason::Flow, B2);
        // Those that the previous owner has need none.
        worlds.sends(&flow.at_port(50_000).data(ISN), Reason::RingPrevious, B1);
    });
}
