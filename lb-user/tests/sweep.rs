//! The sweeper, and the filter's renewal, on the kernel's own tables. Needs root.

use lb_common::{
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId, Tick, Token},
    limits::{FILTER_BITS_PER_FLOW, FILTER_WORDS_MIN},
    recent::filter_place,
    tables::{FlowEntry, Holder, Span, TokenEntry, TokenKey},
};
use lb_user::{
    bpf::{Balancer, Lender, Sizes},
    refilter,
    sweep::{PIECE, Sweeper},
};

const LIMIT: u32 = 1024;
const NOW: Tick = Tick(5000);

fn balancer() -> Balancer {
    let small = 1024;
    let sizes = Sizes {
        pools: 1,
        tokens: small,
        joined_flows: small,
        moved_flows: LIMIT,
        pinned_flows: small,
        pending_handshakes: small,
        embryonic_flows: small,
        datagram_flows: small,
        fragmented_datagrams: small,
        ..Sizes::default()
    };
    Balancer::load(&sizes).unwrap_or_else(|error| panic!("{error}"))
}

/// Moved flows with numbers from 1 on, each a tick younger than the one before; every fourth is in use.
fn fill(balancer: &mut Balancer, count: u32) {
    for number in 1..=count {
        let unproven = if is_proven(number) { 0 } else { FlowEntry::UNPROVEN };
        let seen = Tick(NOW.0 - 2000 + number);
        let entry = FlowEntry { sequence: 1, seen, backend: BackendId(1), state: FlowEntry::OPEN | unproven };
        balancer.moved.write(FlowHash(number.into()), entry).expect("there is room");
    }
}

const fn is_proven(number: u32) -> bool {
    number.is_multiple_of(4)
}

fn remaining(balancer: &Balancer) -> Vec<u32> {
    let entries = balancer.moved.entries().map(|entry| entry.expect("the kernel tells").0);
    let mut numbers: Vec<u32> = entries.map(|FlowHash(number)| u32::try_from(number).expect("small")).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn under_pressure_the_oldest_unproven_flows_end_and_no_other() {
    for (count, evicted) in [(LIMIT * 95 / 100, 0), (LIMIT * 95 / 100 + 1, LIMIT * 95 / 100 + 1 - LIMIT * 9 / 10)] {
        let mut balancer = balancer();
        fill(&mut balancer, count);
        let swept = Sweeper::default().sweep(&mut balancer, NOW).expect("the kernel lets it");
        assert_eq!(swept.moved_flows_evicted, u64::from(evicted));
        assert_eq!(swept.moved_flows, u64::from(count - evicted));
        let oldest = (1..=count).filter(|&number| !is_proven(number)).nth(evicted as usize).expect("one remains");
        let expected: Vec<u32> = (1..=count).filter(|&number| is_proven(number) || number >= oldest).collect();
        assert_eq!(remaining(&balancer), expected);
    }
}

fn filter_asked(balancer: &Balancer) -> Span {
    let globals = balancer.globals.read(0).expect("one element");
    globals.filters[globals.filter_asked as usize]
}

/// The flows that a filter of so many words is for.
const fn filter_flows(words: u32) -> u32 {
    words * u64::BITS / FILTER_BITS_PER_FLOW
}

/// Whether the filter that is asked has the bits of a flow.
fn may_have_entry(balancer: &Balancer, flow: FlowHash) -> bool {
    let (index, bits) = filter_place(flow, filter_asked(balancer));
    let word = balancer.filter.read(index).expect("within the filter");
    word & bits == bits
}

/// A flow hash that has nothing in common with its number.
fn scattered(number: u64) -> FlowHash {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    FlowHash((mixed ^ mixed >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9))
}

#[test]
fn a_filter_full_of_ended_flows_is_renewed_and_keeps_those_that_live() {
    let mut balancer = balancer();
    let key = SipKey::from_bytes([7; 16]);
    let globals = Sizes { joined_flows: 1024, moved_flows: LIMIT, pinned_flows: 1024, ..Sizes::default() }.globals(key);
    balancer.globals.write(0, globals).expect("one element");
    for index in 0..balancer.filter.len() {
        balancer.filter.write(index, u64::MAX).expect("within the filter");
    }
    let entry = FlowEntry { sequence: 1, seen: NOW, backend: BackendId(1), state: FlowEntry::OPEN };
    let live: Vec<_> = (0..300).map(scattered).collect();
    for (table, flows) in
        [&mut balancer.joined, &mut balancer.moved, &mut balancer.pinned].into_iter().zip(live.chunks(100))
    {
        for &flow in flows {
            table.write(flow, entry).expect("there is room");
        }
    }

    assert!(refilter::renew_if_unfit(&mut balancer, 300).expect("the kernel lets it"), "it was full of nothing");
    assert!(live.iter().all(|&flow| may_have_entry(&balancer, flow)), "a false no");
    let strangers = (1000..11_000).filter(|&number| may_have_entry(&balancer, scattered(number))).count();
    assert!(strangers < 100, "{strangers} of 10,000 strangers pass a filter of {} words", balancer.filter.len() / 2);
    assert!(!refilter::renew_if_unfit(&mut balancer, 300).expect("the kernel lets it"), "it is no longer full");
}

/// Every packet reads a word of the filter, so it is to be no larger than the entries need.
#[test]
fn the_filter_grows_and_shrinks_with_its_entries() {
    let flows = filter_flows(FILTER_WORDS_MIN);
    let sizes = Sizes { pools: 1, tokens: 1024, joined_flows: 8 * flows, ..Sizes::default() };
    let mut balancer = Balancer::load(&sizes).unwrap_or_else(|error| panic!("{error}"));
    balancer.globals.write(0, sizes.globals(SipKey::from_bytes([7; 16]))).expect("one element");
    assert_eq!(filter_asked(&balancer).len, FILTER_WORDS_MIN);

    let live: Vec<_> = (1..=u64::from(flows)).map(scattered).collect();
    let entry = FlowEntry { sequence: 1, seen: NOW, backend: BackendId(1), state: FlowEntry::OPEN };
    for &flow in &live {
        balancer.joined.write(flow, entry).expect("there is room");
        let (index, bits) = filter_place(flow, filter_asked(&balancer));
        let word = balancer.filter.read(index).expect("within the filter");
        balancer.filter.write(index, word | bits).expect("within the filter");
    }
    assert!(refilter::renew_if_unfit(&mut balancer, flows.into()).expect("the kernel lets it"), "it was full");
    assert_eq!(filter_asked(&balancer).len, 2 * FILTER_WORDS_MIN);
    assert!(live.iter().all(|&flow| may_have_entry(&balancer, flow)), "a false no");
    assert!(!refilter::renew_if_unfit(&mut balancer, flows.into()).expect("the kernel lets it"), "it fits");

    // As if eight times as many had been there, and all but a hundred had ended.
    let mut globals = balancer.globals.read(0).expect("one element");
    globals.filters[globals.filter_asked as usize].len = 8 * FILTER_WORDS_MIN;
    balancer.globals.write(0, globals).expect("one element");
    for &flow in &live[100..] {
        balancer.joined.remove(flow).expect("it is there");
    }
    assert!(refilter::renew_if_unfit(&mut balancer, 100).expect("the kernel lets it"), "it was too large");
    assert_eq!(filter_asked(&balancer).len, FILTER_WORDS_MIN);
    assert!(live[..100].iter().all(|&flow| may_have_entry(&balancer, flow)), "a false no");
}

/// The data path may have ended an entry between the controller's look at it and its hand on it.
#[test]
fn what_is_gone_already_can_be_removed() {
    let mut balancer = balancer();
    fill(&mut balancer, 1);
    for _ in 0..2 {
        balancer.moved.remove(FlowHash(1)).expect("it need not be there");
        assert!(remaining(&balancer).is_empty());
    }
}

/// Tables that something happens to when a sweep has looked through them, before it ends anything.
struct Meanwhile<'b, F> {
    balancer: &'b mut Balancer,
    happens: F,
    lent: usize,
}

impl<F: FnMut(&mut Balancer)> Lender for Meanwhile<'_, F> {
    fn lend<T>(&mut self, piece: impl FnOnce(&mut Balancer, &dyn Fn(PoolId) -> bool) -> T) -> T {
        if self.lent == 1 {
            (self.happens)(self.balancer);
        }
        self.lent += 1;
        piece(self.balancer, &|_| true)
    }
}

#[test]
fn a_token_that_is_learned_while_a_sweep_is_about_to_end_it_stays() {
    let mut balancer = balancer();
    let entry = |state| TokenEntry {
        holders: [Holder { flow: FlowHash(1), since: NOW, backend: BackendId(1), state }, Holder::default()],
    };
    let key = |token: u32| TokenKey::new(PoolId(0), Token::from_wire(token.to_be_bytes()));
    for token in [1, 2] {
        balancer.tokens.write(key(token), entry(Holder::CROWD)).expect("there is room");
    }
    let learn = |balancer: &mut Balancer| {
        balancer.tokens.write(key(1), entry(Holder::OPEN)).expect("there is room");
    };
    let mut tables = Meanwhile { balancer: &mut balancer, happens: learn, lent: 0 };
    let swept = Sweeper::default().sweep(&mut tables, NOW).expect("the kernel lets it");
    assert_eq!((swept.tokens, swept.tokens_ended), (1, 1));
    assert_eq!(swept.backends[&BackendId(1)].tokens, 1);
    let left = [1, 2].map(|token| balancer.tokens.read(key(token)).expect("the kernel tells"));
    assert_eq!(left, [Some(entry(Holder::OPEN)), None]);
}

/// Far longer ago than any flow's entry stays.
const LONG_AGO: Tick = Tick(NOW.0.wrapping_sub(1 << 20));

#[test]
fn a_flow_that_speaks_while_a_sweep_is_about_to_end_it_stays_and_the_others_end_in_pieces() {
    let mut balancer = balancer();
    let entry = |seen| FlowEntry { sequence: 1, seen, backend: BackendId(1), state: FlowEntry::OPEN };
    let count = PIECE as u64 + 1;
    for flow in 1..=count {
        balancer.moved.write(FlowHash(flow), entry(LONG_AGO)).expect("there is room");
    }
    let speak = |balancer: &mut Balancer| balancer.moved.write(FlowHash(1), entry(NOW)).expect("it is there");
    let mut tables = Meanwhile { balancer: &mut balancer, happens: speak, lent: 0 };
    let swept = Sweeper::default().sweep(&mut tables, NOW).expect("the kernel lets it");
    assert_eq!(tables.lent, 1 + 2, "descriptors, and two pieces");
    assert_eq!((swept.moved_flows, swept.flows_ended, swept.flows()), (1, count - 1, 1));
    assert_eq!(remaining(&balancer), [1]);
}
