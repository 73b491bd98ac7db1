//! What outlives a controller, and what `weir detach` leaves, judged by `bpftool`, `ip` and the sockets of the lab. Needs
//! root and the `weir` command.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_lab::{
    Lab, LabError,
    addresses::VIP,
    oracle::open_joined,
    ping::ping,
    topology::INTERFACE,
    traffic::Connection,
    wait,
    weir::{Join, PoolBackend, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_mins(1);
const TRANSITION_S: u32 = 600;

fn lab_of(backends: u8) -> Lab {
    Lab::builder().backends(backends.try_into().expect("a few")).build().expect("a lab")
}

/// The lab's backends, b1 in a state of its own.
fn config(lab: &Lab, state_of_b1: &'static str) -> WeirConfig {
    let backend =
        |(index, backend)| PoolBackend { backend, weight: 100, state: if index == 0 { state_of_b1 } else { "up" } };
    WeirConfig::for_lab(lab, Join::Learn)
        .with_transition(TRANSITION_S, 0)
        .with_backends(lab.backends.iter().enumerate().map(backend).collect())
}

fn json(lab: &Lab, program: &str, args: &[&str]) -> Value {
    let printed = lab.balancer.namespace.output(program, args).expect("it runs");
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{program} {args:?}: {error}"))
}

/// The number of the XDP program on the balancer's interface.
fn program(lab: &Lab) -> Option<u64> {
    let link = json(lab, "ip", &["-json", "-details", "link", "show", "dev", INTERFACE]);
    link[0]["xdp"]["prog"]["id"].as_u64()
}

/// A pinned table as `bpftool` reads it.
fn table(lab: &Lab, name: &str) -> BTreeSet<String> {
    let pins = lab.pins();
    let version = names(&pins).into_iter().find(|name| name.starts_with('v')).expect("a version");
    let path = pins.join(version).join(name);
    let dump = json(lab, "bpftool", &["--json", "map", "dump", "pinned", &path.to_string_lossy()]);
    dump.as_array().expect("a list").iter().map(|entry| entry["formatted"].to_string()).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let listing = fs::read_dir(directory).expect("a directory").flatten();
    listing.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Opens connections of all kinds and waits until their joins have ended.
fn open(lab: &Lab, count: usize) -> Vec<Connection> {
    let (connections, tally) = open_joined(lab, count, LIMIT).expect("connections");
    let joins = connections.iter().map(|connection| connection.mix.joins()).sum();
    assert_eq!((tally.established(), tally.lost()), (joins, 0));
    connections
}

fn end_of(error: &LabError) -> String {
    let LabError::Ended { log, .. } = error else { panic!("it ended: {error}") };
    log.clone()
}

#[test]
fn case_82_tokens_entries_and_deadlines_outlive_the_controller() {
    let lab = lab_of(3);
    let mut weir = Weir::start(&lab, &config(&lab, "up")).expect("weir runs");
    let mut open = open(&lab, 12);
    weir.reload(&config(&lab, "drain").with_drain_timeout(3600)).expect("a reload");
    let before = weir.status().expect("a status");
    let (tokens, joined) = (table(&lab, "weir_tokens"), table(&lab, "weir_joined"));
    assert!(tokens.len() == 12 && !joined.is_empty(), "{} tokens, {} joined", tokens.len(), joined.len());

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let steering = program(&lab).expect("a program");
        weir.end_by(signal).expect("it ends");
        assert_eq!(program(&lab), Some(steering), "it steers on");
        for connection in &mut open {
            connection.exchange().expect("it works without a controller");
        }
        for vip in VIP.both() {
            ping(&lab.client, vip).expect("the programs that others go on to are still there");
        }
        weir.start_again().expect("another runs");
        assert_ne!(program(&lab), Some(steering), "the new controller's own program");
        assert!(table(&lab, "weir_tokens") == tokens, "a token is lost, or is elsewhere");
        let after = weir.status().expect("a status");
        assert_eq!(after.slots_in_transition, before.slots_in_transition);
        let drain = |status: &weir_lab::weir::WeirStatus| {
            let b1 = status.backend("b1").expect("it is known");
            (b1.state.clone(), b1.slots, b1.slots_previous, b1.drain_ends_in_s.expect("it drains"))
        };
        let (was, is) = (drain(&before), drain(&after));
        assert_eq!((&was.0, was.1, was.2), (&is.0, is.1, is.2));
        assert!(is.3 <= was.3 && is.3 > 3000, "it goes on, and does not begin anew: {was:?}, {is:?}");
    }
    for connection in &mut open {
        connection.exchange().expect("it works");
    }
}

#[test]
fn a_drain_that_is_over_while_nobody_runs_ends_with_the_next_controller() {
    let lab = lab_of(2);
    let mut weir = Weir::start(&lab, &config(&lab, "up")).expect("weir runs");
    weir.reload(&config(&lab, "drain").with_drain_timeout(3600)).expect("a reload");
    weir.end_by(Signal::SIGKILL).expect("it ends");
    weir.configure(&config(&lab, "drain").with_drain_timeout(1)).expect("another file");
    weir.start_again().expect("another runs");
    wait::until("the drain ends", LIMIT, || {
        let status = weir.status()?;
        let b1 = status.backend("b1").filter(|b1| b1.drain_ends_in_s == Some(0) && b1.slots_previous == 0);
        Ok(b1.is_some().then_some(()))
    })
    .expect("its time was counted from before");
}

#[test]
fn detach_removes_all_that_is_weirs_and_nothing_else() {
    let lab = lab_of(1);
    let mut weir = Weir::start(&lab, &config(&lab, "up")).expect("weir runs");
    let refused = weir.detach().expect_err("a controller runs").to_string();
    assert!(refused.contains("another weir has the tables"), "{refused}");
    weir.end_by(Signal::SIGTERM).expect("it ends");
    assert!(weir.log().contains("goes on steering, until `weir detach`"), "{}", weir.log());

    let foreign = lab.pins().join("foreign");
    fs::create_dir(&foreign).expect("a directory");
    let said = weir.detach().expect("it detaches");
    assert!(said.contains("no longer on eth0"), "{said}");
    wait::until("the program goes", LIMIT, || Ok(program(&lab).is_none().then_some(()))).expect("the link is gone");
    assert_eq!(names(&lab.pins()), ["foreign"]);
    fs::remove_dir(&foreign).expect("it is still there");
    assert!(weir.detach().expect("nothing to do").contains("nothing of Weir's"));
}

#[test]
fn on_stop_detach_takes_the_data_path_down() {
    let lab = lab_of(1);
    let mut weir = Weir::start(&lab, &config(&lab, "up").with_on_stop("detach")).expect("weir runs");
    weir.end_by(Signal::SIGTERM).expect("it ends");
    wait::until("the program goes", LIMIT, || Ok(program(&lab).is_none().then_some(()))).expect("the link is gone");
    assert!(!lab.pins().exists());
}

#[test]
fn tables_that_are_not_the_configurations_are_refused_with_a_way_out() {
    let lab = lab_of(1);
    let mut weir = Weir::start(&lab, &config(&lab, "up")).expect("weir runs");
    weir.end_by(Signal::SIGKILL).expect("it ends");
    let steering = program(&lab);

    weir.configure(&config(&lab, "up").with_tokens(4096)).expect("another file");
    let said = end_of(&weir.start_again().expect_err("other sizes"));
    assert!(said.contains("weir_tokens has 1048576 entries at most, and 4096 are asked for"), "{said}");
    assert!(said.contains("`weir detach`"), "{said}");

    weir.configure(&config(&lab, "up")).expect("the former file");
    let strange = lab.pins().join("v1");
    fs::create_dir(&strange).expect("a directory");
    let said = end_of(&weir.start_again().expect_err("another version"));
    assert!(said.contains("layout 1, this one has") && said.contains("`weir detach`"), "{said}");
    fs::remove_dir(&strange).expect("it is still there");

    assert_eq!(program(&lab), steering, "what steers is untouched");
    weir.start_again().expect("the tables are good");
}

#[test]
fn one_controller_at_a_time_has_the_tables() {
    let lab = lab_of(1);
    let mut weir = Weir::start(&lab, &config(&lab, "up")).expect("weir runs");
    let said = weir.run_beside().expect_err("the tables are another's").to_string();
    assert!(said.contains("another weir has the tables") && said.contains("stop it first"), "{said}");
    weir.reload(&config(&lab, "up")).expect("the first goes on");
}

#[test]
fn another_program_on_the_interface_is_named() {
    let lab = lab_of(1);
    let mut weir = Weir::start(&lab, &config(&lab, "up").with_on_stop("detach")).expect("weir runs");
    weir.end_by(Signal::SIGTERM).expect("it ends");
    wait::until("the program goes", LIMIT, || Ok(program(&lab).is_none().then_some(()))).expect("the link is gone");

    let decap = weir.occupy(&lab).expect("a program of another process");
    let other = program(&lab).expect("a program");
    let said = end_of(&weir.start_again().expect_err("the interface is taken"));
    let expected =
        format!("eth0 already has an XDP program, program {other} `weir_decap`, open in process {decap} (weir)");
    assert!(said.contains(&expected), "{said}");
    assert_eq!(program(&lab), Some(other), "it is left alone");
    assert!(!lab.pins().exists(), "and nothing was made for nothing");
}
