//! `weir reload` by the command: what it says, what it changes, and what a bad file does. Needs root and the `weir` command.

use serde_json::Value;
use weir_lab::{
    Lab,
    weir::{Bus, Join, PoolBackend, Weir, WeirConfig},
};

const RESULT: &str = "weir_config_last_reload_successful";
const TRIED: &str = "weir_config_last_reload_timestamp_seconds";
const IN_FORCE: &str = "weir_config_last_reload_success_timestamp_seconds";

/// The lab's backends, but for the last, b1 with this weight.
fn config(lab: &Lab, weight_of_b1: u32, without: usize) -> WeirConfig {
    let backends = lab.backends.iter().take(lab.backends.len() - without).enumerate().map(|(index, backend)| {
        PoolBackend { backend, weight: if index == 0 { weight_of_b1 } else { 100 }, state: "up" }
    });
    WeirConfig::for_lab(lab, Join::Learn).with_backends(backends.collect())
}

fn metric(weir: &Weir, name: &str) -> f64 {
    let samples = weir.metrics().expect("a metrics page");
    samples.iter().find(|sample| sample.name == name).unwrap_or_else(|| panic!("{name}")).value
}

fn asked(weir: &Weir, args: &[&str]) -> Value {
    let printed = weir.ask(args).expect("weir answers");
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{args:?}: {error}: {printed}"))
}

#[test]
fn a_dry_run_says_what_a_reload_does_and_does_nothing() {
    let lab = Lab::builder().build().expect("a lab");
    let weir = Weir::start(&lab, &config(&lab, 100, 1)).expect("weir runs");
    let before = weir.status().expect("a status");
    weir.configure(&config(&lab, 300, 0)).expect("another file");

    let planned = asked(&weir, &["reload", "--dry-run", "--output", "json"]);
    assert_eq!(planned["dry_run"], true);
    assert_eq!(planned["backends"]["added"], serde_json::json!(["web/b3"]));
    let changed = serde_json::json!([{ "name": "web/b1", "what": "weight 100 -> 300" }]);
    assert_eq!(planned["backends"]["changed"], changed);
    assert_eq!((&planned["vips"]["added"], &planned["slots"]), (&serde_json::json!([]), &65_537.into()));
    assert_eq!(planned["touched"]["flows"], 0);
    let after = weir.status().expect("a status");
    assert_eq!(after.backend("b1").expect("known").slots, before.backend("b1").expect("known").slots);
    assert!(after.backend("b3").is_none() && after.slots_in_transition == 0);

    let said = weir.ask(&["reload", "--dry-run"]).expect("weir answers");
    for line in ["+ backend web/b3", "~ backend web/b1: weight 100 -> 300", "nothing has been changed"] {
        assert!(said.lines().any(|told| told == line), "{line:?} in {said}");
    }

    let done = asked(&weir, &["reload", "--output", "json"]);
    assert_eq!((&done["dry_run"], &done["slots_changed"]), (&false.into(), &planned["slots_changed"]));
    let after = weir.status().expect("a status");
    assert!(after.backend("b3").expect("it is new").slots > 0);
    assert_eq!(Some(after.slots_in_transition), done["slots_changed"].as_u64());
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let lab = Lab::builder().build().expect("a lab");
    let weir = Weir::start(&lab, &config(&lab, 100, 0)).expect("weir runs");
    assert!((metric(&weir, RESULT) - 1.0).abs() < f64::EPSILON);
    let (tried, in_force) = (metric(&weir, TRIED), metric(&weir, IN_FORCE));
    let before = weir.status().expect("a status");

    let bad = config(&lab, 20_000, 0);
    weir.configure(&bad).expect("another file");
    for args in [&["reload"][..], &["reload", "--dry-run"]] {
        let refused = weir.ask(args).expect_err("it does not hold").to_string();
        assert!(refused.contains("20000 is out of range; choose 0 to 10000"), "{refused}");
        assert!(refused.contains("weir.toml:"), "{refused}");
    }
    assert!(metric(&weir, RESULT).abs() < f64::EPSILON);
    assert!(metric(&weir, TRIED) >= tried && (metric(&weir, IN_FORCE) - in_force).abs() < f64::EPSILON);
    let after = weir.status().expect("a status");
    assert_eq!(after.backend("b1").expect("known").slots, before.backend("b1").expect("known").slots);

    let fixed = config(&lab, 100, 0).with_tokens(4096);
    weir.configure(&fixed).expect("another file");
    let refused = weir.ask(&["reload"]).expect_err("tables have their sizes").to_string();
    assert!(refused.contains("[limits] cannot change while weir runs"), "{refused}");

    let bus = Bus { servers: vec!["nats://127.0.0.1:4222".to_owned()], cluster: "edge1", name: "lb1".to_owned() };
    weir.configure(&config(&lab, 100, 0).with_bus(bus)).expect("another file");
    for args in [&["reload"][..], &["reload", "--dry-run"]] {
        let refused = weir.ask(args).expect_err("a member for its life").to_string();
        assert!(refused.contains("[bus]") && refused.contains("restart it for that"), "{refused}");
    }

    weir.configure(&config(&lab, 100, 0)).expect("the former file");
    weir.ask(&["reload"]).expect("it holds");
    assert!((metric(&weir, RESULT) - 1.0).abs() < f64::EPSILON);
}
