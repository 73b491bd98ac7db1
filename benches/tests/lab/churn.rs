//! Connections stay with their backends while the pool changes: `weir-lab churn` on a small scale. Needs root and the
//! `weir` command (`cargo test --workspace` builds it).

use std::process::Command;

use serde_json::Value;

const CONNECTIONS: u64 = 200;
const CHANGES: u64 = 6;
/// After each change one for every fifty that are held, but at least four; half are MPTCP and joined once.
const OPENED: u64 = CONNECTIONS + CHANGES * 4;

#[test]
fn only_connections_of_a_killed_backend_break() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["churn", "--json", "--transition-s", "20", "--seed", "2"])
        .args(["--connections", &CONNECTIONS.to_string(), "--changes", &CHANGES.to_string()])
        .output()
        .expect("weir-lab starts");
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("one JSON object: {output:?}"));
    let figure = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));

    assert!(output.status.success(), "{output:?}");
    assert_eq!((figure("broken"), figure("flows_lost"), figure("joins_misrouted")), (0, 0, 0), "{report}");
    assert_eq!((figure("connections"), figure("changes")), (OPENED, CHANGES));
    assert_eq!((figure("joins_attempted"), figure("joins_established")), (OPENED / 2, OPENED / 2));
    // The seed has all kinds of change in six, so that each of these is put to the proof.
    for name in ["broken_of_killed", "slots_changed", "in_transition_max", "entries_pinned_max", "entries_joined_max"] {
        assert!(figure(name) > 0, "{name} in {report}");
    }
    assert_eq!(figure("in_transition_at_end"), 0);
}
