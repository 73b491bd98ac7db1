//! What `state`, `drain_timeout_s` and `slow_start_s` of a backend do to real connections, judged by the kernels at both
//! ends; what `weir status` says of it. Needs root and the `weir` command.

use std::time::Duration;

use weir_lab::{
    Lab,
    oracle::JoinTally,
    traffic::{Connection, Mix},
    wait,
    weir::{BackendStatus, Join, PoolBackend, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_secs(30);
const TRANSITION_S: u32 = 600;

/// The lab's backends, b1 in a state of its own.
fn config(lab: &Lab, state_of_b1: &'static str) -> WeirConfig {
    let backend =
        |(index, backend)| PoolBackend { backend, weight: 100, state: if index == 0 { state_of_b1 } else { "up" } };
    WeirConfig::for_lab(lab, Join::Learn)
        .with_transition(TRANSITION_S, 0)
        .with_backends(lab.backends.iter().enumerate().map(backend).collect())
}

fn lab_of(backends: u8) -> Lab {
    Lab::builder().backends(backends.try_into().expect("a few")).build().expect("a lab")
}

/// Opens connections until one is at the backend.
fn open_at(lab: &Lab, backend: &str) -> Connection {
    wait::until("a connection comes to the backend", LIMIT, || {
        let before = JoinTally::read(lab)?;
        let connection = Connection::open(&lab.client, Mix::V4)?;
        JoinTally::settled_since(&before, lab, Mix::V4.joins(), LIMIT)?;
        Ok((connection.backend == backend).then_some(connection))
    })
    .expect("one in a few")
}

fn status(weir: &Weir, backend: &str) -> BackendStatus {
    weir.status().expect("a status").backend(backend).expect("it is known").clone()
}

/// The sum of the samples that have these labels.
fn metric(weir: &Weir, name: &str, labels: &[(&str, &str)]) -> u64 {
    let samples = weir.metrics().expect("a metrics page");
    let fits = |sample: &&weir_lab::weir::Sample| {
        sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == Some(value))
    };
    let sum: f64 = samples.iter().filter(fits).map(|sample| sample.value).sum();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counters and gauges of whole things")]
    let sum = sum as u64;
    sum
}

#[test]
fn a_drained_backend_keeps_its_connections_until_its_time_is_up() {
    let lab = lab_of(3);
    let mut weir = Weir::start(&lab, &config(&lab, "up")).expect("weir runs");
    let (mut on_b1, mut on_b2) = (open_at(&lab, "b1"), open_at(&lab, "b2"));

    weir.reload(&config(&lab, "drain").with_drain_timeout(3600)).expect("a reload");
    on_b1.exchange().expect("a drained backend serves");
    for _ in 0..12 {
        let backend = Connection::open(&lab.client, Mix::V6).expect("a connection").backend;
        assert_ne!(backend, "b1", "a drained backend takes no new connection");
    }
    let drained = status(&weir, "b1");
    assert_eq!((drained.state.as_str(), drained.slots, drained.leaving), ("drain", 0, false));
    assert!(drained.slots_previous > 20_000 && drained.drain_ends_in_s > Some(3500), "{drained:?}");
    assert_eq!(metric(&weir, "weir_backend_state", &[("backend", "b1"), ("state", "drain")]), 1);
    assert!(metric(&weir, "weir_slots_in_transition", &[]) >= drained.slots_previous);

    weir.reload(&config(&lab, "drain").with_drain_timeout(1)).expect("a reload");
    wait::until("the drain ends", LIMIT, || {
        Ok((weir.status()?.backend("b1").and_then(|backend| backend.drain_ends_in_s) == Some(0)).then_some(()))
    })
    .expect("a second is over");
    assert_eq!(status(&weir, "b1").slots_previous, 0, "its windows end with it");
    assert!(on_b1.exchange().is_err(), "its time is up");
    on_b2.exchange().expect("the others are untouched");
}

#[test]
fn a_join_to_a_backend_that_is_down_goes_to_no_other() {
    let lab = lab_of(3);
    let mut weir = Weir::start(&lab, &config(&lab, "up")).expect("weir runs");
    let mut connection = open_at(&lab, "b1");
    weir.reload(&config(&lab, "down")).expect("a reload");
    let down = status(&weir, "b1");
    assert_eq!((down.state.as_str(), down.slots, down.slots_previous), ("down", 0, 0));

    // The client's kernel joins from a further address.
    let before = JoinTally::read(&lab).expect("counters");
    let gone = |weir: &Weir| metric(weir, "weir_packets_total", &[("vip", "web4"), ("reason", "backend_gone")]);
    let gone_before = gone(&weir);
    let client = |args: &[&str]| lab.client.namespace.output("ip", args).expect("ip");
    client(&["address", "add", "10.71.1.7/24", "dev", "eth0"]);
    client(&["mptcp", "endpoint", "add", "10.71.1.7", "dev", "eth0", "subflow"]);
    wait::until("the join is dropped", LIMIT, || Ok((gone(&weir) > gone_before).then_some(()))).expect("it is counted");
    let tally = &JoinTally::read(&lab).expect("counters") - &before;
    assert_eq!((tally.attempted, tally.established(), tally.misrouted()), (1, 0, 0));

    // The backend was not dead in truth: its connection is still there for the join that is sent again.
    weir.reload(&config(&lab, "up")).expect("a reload");
    let tally = JoinTally::settled_since(&before, &lab, 1, LIMIT).expect("counters");
    assert_eq!((tally.established(), tally.misrouted(), tally.backends[0].established), (1, 0, 1));
    connection.exchange().expect("the connection works");
}

#[test]
fn a_backend_that_comes_gets_its_share_in_steps() {
    let lab = lab_of(2);
    let mut weir = Weir::start(&lab, &config(&lab, "down").with_transition(TRANSITION_S, 600)).expect("weir runs");
    assert_eq!(status(&weir, "b2").share_percent, 100, "at the start there is nobody to share with");

    let shares = [(15, 20), (600, 10)].map(|(slow_start_s, at_least)| {
        weir.reload(&config(&lab, "down").with_transition(TRANSITION_S, slow_start_s)).expect("a reload");
        weir.reload(&config(&lab, "up").with_transition(TRANSITION_S, slow_start_s)).expect("a reload");
        wait::until("it rises", LIMIT, || {
            let status = weir.status()?;
            Ok(status.backend("b1").filter(|backend| backend.share_percent >= at_least).cloned())
        })
        .expect("a step")
    });
    for BackendStatus { share_percent, slots, .. } in shares {
        // b1 has p parts of 10 and b2 all 10, both of the same weight.
        let parts = share_percent / 10;
        assert_eq!(slots, (65_537 * parts * 2 + 10 + parts) / (2 * (10 + parts)), "{share_percent} %");
    }
    weir.reload(&config(&lab, "up")).expect("a reload");
    let whole = status(&weir, "b1");
    assert_eq!((whole.share_percent, whole.slots / 2), (100, 16_384));
}
