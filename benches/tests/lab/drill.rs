//! What operators do to Weir, and what befalls it, loses nothing: each of `weir-lab drill` on a small scale. Needs root and
//! the `weir` command (`cargo test --workspace` builds it).

use std::process::{Command, Output};

use serde_json::{Value, json};

const CONNECTIONS: u64 = 20;

fn drill(kind: &str, options: &[&str]) -> (Output, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["drill", kind, "--json", "--connections", &CONNECTIONS.to_string()])
        .args(options)
        .output()
        .expect("weir-lab starts");
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("one JSON object: {output:?}"));
    (output, report)
}

fn figure(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

/// Nothing is lost; returns the figures.
fn unharmed(kind: &str, times: u64) -> Value {
    unharmed_with(kind, &["--times", &times.to_string()])
}

fn unharmed_with(kind: &str, options: &[&str]) -> Value {
    let (output, report) = drill(kind, options);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(report["drill"], kind);
    for name in ["packets_lost", "connections_broken", "flows_lost", "joins_misrouted", "joins_lost"] {
        assert_eq!(figure(&report, name), 0, "{name} in {report}");
    }
    let [sent, opened] = ["packets_sent", "connections"].map(|name| figure(&report, name));
    assert!(sent > 0 && opened > CONNECTIONS, "{report}");
    assert_eq!(figure(&report, "joins_attempted"), figure(&report, "joins_established"), "{report}");
    report
}

#[test]
fn a_restart_loses_nothing() {
    let report = unharmed("restart", 3);
    assert_eq!(["controllers", "programs"].map(|name| figure(&report, name)), [4, 4]);
    // Each of the connections is MPTCP or not in turn; the MPTCP ones were joined when they were opened, and again at the end.
    assert_eq!(figure(&report, "joins_established"), figure(&report, "connections"));
}

#[test]
fn an_upgrade_loses_nothing() {
    let report = unharmed("upgrade", 2);
    assert_eq!(["controllers", "programs"].map(|name| figure(&report, name)), [3, 3]);
}

#[test]
fn a_thousand_backends_come_and_go_and_nothing_is_lost() {
    unharmed("reload", 1);
}

#[test]
fn a_drained_backend_loses_nothing() {
    unharmed("drain", 1);
}

#[test]
fn only_what_a_killed_backend_held_is_lost() {
    // Of three backends the killed one would have none of 20 connections every three-thousandth time.
    let report = unharmed_with("kill-backend", &["--times", "1", "--backends", "2"]);
    assert!(figure(&report, "broken_of_killed") > 0, "{report}");
}

#[test]
fn another_cluster_key_loses_nothing() {
    let report = unharmed("rekey", 2);
    assert_eq!(figure(&report, "controllers"), 2);
}

#[test]
fn what_is_lost_is_noticed() {
    let (output, report) = drill("restart", &["--times", "2", "--on-stop", "detach"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(figure(&report, "packets_lost") > 0 && figure(&report, "connections_broken") > 0, "{report}");
}

/// Whatever happens to secrets and agents, a token leads to the backend that has it, and no table is needed for that.
fn joined_by_token_alone(kind: &str, options: &[&str]) -> Value {
    let (output, report) = drill(kind, &[&["--rtt", "10"], options].concat());
    assert!(output.status.success(), "{output:?}");
    for name in ["connections_broken", "joins_misrouted", "tokens_foreign", "tokens_in_tables"] {
        assert_eq!(figure(&report, name), 0, "{name} in {report}");
    }
    assert_eq!(figure(&report, "joins_attempted"), figure(&report, "joins_established"), "{report}");
    assert!(figure(&report, "tokens") >= CONNECTIONS, "{report}");
    report
}

#[test]
fn joins_in_a_burst_are_all_established() {
    for options in [&[][..], &["--duplicate-syns"]] {
        let report = joined_by_token_alone("token-burst", options);
        assert_eq!((figure(&report, "joins_established"), figure(&report, "plain")), (2 * CONNECTIONS, 0));
    }
}

#[test]
fn a_rotated_secret_loses_no_join() {
    assert_eq!(figure(&joined_by_token_alone("rotate", &[]), "epochs"), 6);
}

#[test]
fn without_agents_connections_are_plain_tcp() {
    assert!(figure(&joined_by_token_alone("agent-kill", &[]), "plain") > 0);
}

#[test]
fn minted_handshakes_are_mptcp_and_keys_are_found_as_fast_as_they_go() {
    let (output, report) = drill("mint", &["--rounds", "2", "--megabytes", "1"]);
    assert!(output.status.success(), "{output:?}");
    // Those of both rounds, and one in each that carries much.
    let minted = 2 * (CONNECTIONS + 1);
    assert_eq!(report["mptcp_connections"], json!([minted, minted]), "{report}");
    assert_eq!(report["minted_handshakes"][1], 0, "{report}");
    assert!(figure(&report, "keys_ready_after") >= figure(&report, "keys_ready_before"), "{report}");
    for ratio in ["connections_ratio", "throughput_ratio"] {
        assert!(report[ratio].as_f64().is_some_and(f64::is_normal), "{ratio} in {report}");
    }
}

#[test]
fn a_client_that_sprays_its_token_takes_nobodys_joins() {
    let report = joined_by_token_alone("token-burst", &["--spray", "5000"]);
    assert!(figure(&report, "sprayed") > 0, "{report}");
}
