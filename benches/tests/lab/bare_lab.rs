//! The lab itself, without a balancer: real MPTCP connections by plain routes, judged by what the
//! kernels' own tools print. These tests need root.

use std::{net::IpAddr, process::Command, time::Duration};

use weir_lab::{
    Backend, Lab,
    addresses::{Path, VIP},
    namespace::Namespace,
    oracle::{JoinCounts, JoinTally, Monitor, Subflow},
    traffic::{Connection, Mix},
};

const LIMIT: Duration = Duration::from_secs(10);

/// A lab of two backends in which the router sends everything to the second.
fn lab_bypassing_to_b2() -> Lab {
    let backends = 2.try_into().expect("a lab may have two backends");
    let lab = Lab::builder().backends(backends).build().expect("a lab");
    lab.router.bypass_balancer(&lab.backends[1]).expect("a route");
    lab
}

/// Opens a connection and waits for the end of its joins.
fn open(lab: &Lab, mix: Mix) -> (Connection, JoinTally) {
    let before = JoinTally::read(lab).expect("counters");
    let connection = Connection::open(&lab.client, mix).expect("a connection");
    let tally = JoinTally::settled_since(&before, lab, mix.joins(), LIMIT).expect("counters");
    (connection, tally)
}

/// What the MPTCP sockets themselves say: one line each.
fn mptcp_sockets(backend: &Backend) -> Vec<String> {
    let printed = backend.namespace.output("ss", &["-MniHO"]).expect("ss");
    printed.lines().map(str::to_owned).collect()
}

fn peers(subflows: &[Subflow]) -> Vec<IpAddr> {
    let mut peers: Vec<_> = subflows.iter().map(|subflow| subflow.peer.ip()).collect();
    peers.sort();
    peers
}

#[test]
fn every_subflow_of_a_connection_is_at_the_backend_that_answered() {
    let lab = lab_bypassing_to_b2();
    let (one, two) = (Path::One.client(), Path::Two.client());
    let cases: [(Mix, Vec<IpAddr>); 3] = [
        (Mix::V4, vec![one.v4.into(), two.v4.into()]),
        (Mix::V6, vec![one.v6.into(), two.v6.into()]),
        (Mix::V4JoinedOverV6, vec![one.v4.into(), two.v4.into(), one.v6.into()]),
    ];
    for (mix, from) in cases {
        let monitor = Monitor::start(&lab.backends[1]).expect("a monitor");
        let (mut connection, tally) = open(&lab, mix);
        connection.exchange().expect("the connection works");
        assert_eq!(connection.backend, "b2", "{mix:?}");
        assert_eq!(tally.attempted, mix.joins(), "{mix:?}");
        let joined = JoinCounts { established: mix.joins(), ..JoinCounts::default() };
        assert_eq!(tally.backends, [JoinCounts::default(), joined], "{mix:?}");

        let subflows = Subflow::read(&lab.backends[1].namespace).expect("ss");
        assert_eq!(peers(&subflows), from, "{mix:?}");
        assert!(subflows.iter().all(|subflow| subflow.token == subflows[0].token), "{mix:?}");
        assert_eq!(monitor.created(), [subflows[0].token], "{mix:?}");

        let sockets = mptcp_sockets(&lab.backends[1]);
        let further = format!("subflows:{} ", mix.joins());
        assert_eq!(sockets.len(), 1, "{mix:?}: {sockets:?}");
        assert!(sockets[0].contains(&further), "{mix:?}: {sockets:?}");
        assert!(mptcp_sockets(&lab.backends[0]).is_empty());

        drop(connection);
        weir_lab::wait::until("the connection ends", LIMIT, || {
            Ok(Subflow::read(&lab.backends[1].namespace)?.is_empty().then_some(()))
        })
        .expect("the reset arrives");
    }
}

#[test]
fn a_join_at_another_backend_is_counted_misrouted() {
    let lab = lab_bypassing_to_b2();
    let stranger = lab.backends[0].address.v4.to_string();
    let vip = VIP.v4.to_string();
    let router = |args: &[&str]| lab.router.namespace.output("ip", args).expect("a route");
    router(&["route", "add", &vip, "via", &stranger, "table", "7"]);
    router(&["rule", "add", "iif", "path2", "table", "7"]);

    let (mut connection, tally) = open(&lab, Mix::V4);
    assert_eq!(tally.attempted, 1);
    assert_eq!((tally.established(), tally.misrouted()), (0, 1));
    assert_eq!(tally.backends[0].misrouted, 1, "b1 is the stranger");
    assert_eq!(tally.lost(), 0);
    connection.exchange().expect("the first subflow is untouched");
}

#[test]
fn nothing_is_left_of_a_dropped_lab_and_its_neighbour_goes_on() {
    let (lab, neighbour) = (lab_bypassing_to_b2(), lab_bypassing_to_b2());
    let (_connection, _) = open(&lab, Mix::V6);
    let namespaces: Vec<Namespace> = lab.namespaces().cloned().collect();
    let name = lab.name();
    assert!(weir_lab::leftovers::labs().expect("labs").contains(&name));

    drop(lab);
    assert!(!weir_lab::leftovers::labs().expect("labs").contains(&name));
    for namespace in namespaces {
        assert!(!namespace.path().exists(), "{}", namespace.name());
    }
    let (connection, _) = open(&neighbour, Mix::V4);
    assert_eq!(connection.backend, "b2");
}

#[test]
fn a_panic_takes_the_lab_down() {
    let lab = lab_bypassing_to_b2();
    let name = lab.name();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _lab = lab;
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(!weir_lab::leftovers::labs().expect("labs").contains(&name));
}

#[test]
fn the_labs_addresses_are_never_on_the_host() {
    let lab = lab_bypassing_to_b2();
    let host = Command::new("ip").args(["-oneline", "address"]).output().expect("ip");
    let host = String::from_utf8(host.stdout).expect("text");
    assert!(host.contains("127.0.0.1"), "{host}");
    let inside = lab.backends[1].namespace.output("ip", &["-oneline", "address"]).expect("ip");
    let vips = VIP.both();
    let rest = Path::ALL.map(|path| path.client().both());
    for address in rest.as_flattened().iter().chain(&vips) {
        assert!(!host.contains(&format!(" {address}/")), "{address}: {host}");
    }
    assert!(inside.contains(&format!(" {}/32", VIP.v4)), "{inside}");
}
