//! The demonstration end to end: `weir run` and `weir decap` between real MPTCP stacks. Needs root
//! and the `weir` command (`cargo test --workspace` builds it).

use std::process::Command;

use serde_json::Value;

const CONNECTIONS: u64 = 24;
/// Every fourth connection is joined once more, over IPv6.
const JOINS: u64 = CONNECTIONS + CONNECTIONS / 4;

#[test]
fn weir_brings_every_join_home_and_a_plain_balancer_does_not() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["demo", "--json", "--connections", &CONNECTIONS.to_string()])
        .output()
        .expect("weir-lab starts");
    assert!(output.status.success(), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let figure = |run: &str, name: &str| report[run][name].as_u64().expect("a number");

    for run in ["blind", "learn"] {
        assert_eq!(figure(run, "connections"), CONNECTIONS, "{run}");
        assert_eq!(figure(run, "joins_attempted"), JOINS, "{run}");
        let ended = figure(run, "joins_established") + figure(run, "joins_misrouted");
        assert_eq!(ended, JOINS, "{run}");
    }
    assert_eq!(figure("learn", "joins_misrouted"), 0);
    // Two of three on average; as few as one in four has a chance of about 1 in 700,000.
    assert!(figure("blind", "joins_misrouted") > JOINS / 4, "{report}");
}
