//! The sweeper on the kernel's own tables. Needs root.

use lb_common::{
    ids::{BackendId, FlowHash, Tick},
    tables::FlowEntry,
};
use lb_user::{
    bpf::{Balancer, Sizes},
    sweep::Sweeper,
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
        let swept = Sweeper::default().sweep(&mut balancer, NOW, |_| true).expect("the kernel lets it");
        assert_eq!(swept.moved_flows_evicted, u64::from(evicted));
        assert_eq!(swept.moved_flows, u64::from(count - evicted));
        let oldest = (1..=count).filter(|&number| !is_proven(number)).nth(evicted as usize).expect("one remains");
        let expected: Vec<u32> = (1..=count).filter(|&number| is_proven(number) || number >= oldest).collect();
        assert_eq!(remaining(&balancer), expected);
    }
}
