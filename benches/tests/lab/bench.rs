//! `weir-lab bench` as a program that reads it sees it. What it measures is not judged: only that every case ran, and
//! on the path that it claims, which the bench itself checks. Needs root.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

#[test]
fn a_quick_run_has_a_figure_for_every_case() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["bench", "--quick", "--json"])
        .output()
        .expect("weir-lab starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");

    assert!(report["stub_ns"].is_number(), "{report}");
    let cases = report["cases"].as_array().expect("a list");
    let names: BTreeSet<_> = cases.iter().filter_map(|case| case["name"].as_str()).collect();
    assert_eq!(
        names,
        BTreeSet::from([
            "ack",
            "ack6",
            "ack_gue",
            "ack_tracked",
            "clamp_pass",
            "decap_pass",
            "join_table",
            "join_token",
            "learn",
            "mint_pass",
            "pass",
            "plain_pass",
            "syn",
            "udp"
        ])
    );
    for case in cases {
        assert!(case["ns"].is_number() && case["stub_ns"].is_number() && case["floor_ns"].is_number(), "{case}");
        assert!(case["flows"].as_u64() >= Some(1) && case["tracked"].is_u64(), "{case}");
    }
    let of_ack = |case: &&Value| case["name"] == "ack" && case["flows"] == 10_000_000;
    let tracked: Vec<_> = cases.iter().filter(of_ack).filter_map(|case| case["tracked"].as_u64()).collect();
    assert_eq!(tracked, [0, 65_536, 1_000_000]);

    let maps = report["maps"].as_array().expect("a list");
    let tokens = maps.iter().find(|map| map["name"] == "weir_tokens").expect("the balancer has a token table");
    assert!(tokens["bytes"].as_u64() > tokens["entries"].as_u64(), "an entry takes more than a byte: {tokens}");
}
