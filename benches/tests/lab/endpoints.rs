//! Join endpoints between real MPTCP stacks, the backends set up by what `weir backend setup` prints. The kernels' own
//! counters and sockets judge. Needs root and the `weir` command (`cargo test --workspace` builds it).

use std::time::Duration;

use weir_lab::{
    Lab,
    addresses::{join_address, join_port},
    oracle::{JoinTally, Subflow},
    traffic::{Connection, Mix},
    weir::{Join, Weir, WeirConfig},
};

const CONNECTIONS: usize = 24;
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn every_join_finds_its_backend_by_the_destination_alone() {
    let lab = Lab::builder().build().expect("a lab");
    let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Endpoint)).expect("weir runs");
    weir.set_up_backends(&lab).expect("the scripts run");
    // It can be run again.
    weir.set_up_backends(&lab).expect("the scripts run");

    let before = JoinTally::read(&lab).expect("counters");
    let mut connections: Vec<_> = (0..CONNECTIONS)
        .map(|index| Connection::open(&lab.client, Mix::alternating(index)).expect("it is answered"))
        .collect();
    let tally = JoinTally::settled_since(&before, &lab, CONNECTIONS as u64, LIMIT).expect("counters");
    for connection in &mut connections {
        connection.exchange().expect("it lives");
    }

    assert!(tally.attempted >= CONNECTIONS as u64, "{tally:?}");
    assert_eq!((tally.misrouted(), tally.refused(), tally.lost()), (0, 0, 0), "{tally:?}");
    for backend in &lab.backends {
        let subflows = Subflow::read(&backend.namespace).expect("ss tells");
        let joined = |subflow: &&Subflow| connections.iter().all(|connection| connection.client != subflow.peer);
        for subflow in subflows.iter().filter(joined) {
            let at_own_port = subflow.local.port() == join_port(backend.number);
            let at_own_address = subflow.local.ip() == join_address(backend.number);
            assert!(at_own_port || at_own_address, "{subflow:?} is at no endpoint of {}", backend.name);
        }
    }
    let metrics = weir.metrics().expect("a page");
    let total = |name: &str, label: &str, value: &str| -> String {
        let samples = metrics.iter().filter(|sample| sample.name == name && sample.label(label) == Some(value));
        samples.map(|sample| sample.value).sum::<f64>().to_string()
    };
    assert_eq!(total("weir_joins_total", "way", "endpoint"), tally.attempted.to_string(), "each join's SYN once");
    for table in ["tokens", "joined_flows"] {
        assert_eq!(total("weir_table_entries", "table", table), "0", "{table} has entries");
    }
}
