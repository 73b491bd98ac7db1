//! MPTCP through GUE tunnels whose sources are spread, VIPs that are prefixes with any port, and pings that Weir answers:
//! between kernel sockets, judged by the kernels' counters and tcpdump. Needs root and the `weir` command.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use weir_lab::{
    Lab, LabError,
    addresses::{BALANCER, SERVICE_PORT, VIP},
    oracle::JoinTally,
    ping::ping,
    process::Process,
    server::Server,
    traffic::{Connection, Mix},
    wait,
    weir::{Join, Vip, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 16;
/// Where no machine has an address: it would drop what comes from there.
const SOURCES: [&str; 2] = ["10.71.209.0/24", "fd71:d1::/96"];
/// A prefix of VIPs, two addresses of it, and ports that no other VIP has.
const PREFIX: [&str; 2] = ["198.51.100.0/24", "2001:db8:100::/64"];
const WITHIN: [&str; 2] = ["198.51.100.77", "2001:db8:100::77"];
const OTHER_PORT: u16 = 8443;

fn lab() -> Lab {
    Lab::builder().build().expect("a lab")
}

fn ip(namespace: &weir_lab::namespace::Namespace, command: &str) {
    let args: Vec<&str> = command.split(' ').collect();
    namespace.output("ip", &args).expect("ip takes it");
}

fn packets(weir: &Weir, labels: &[(&str, &str)]) -> f64 {
    let samples = weir.metrics().expect("a metrics page");
    samples
        .iter()
        .filter(|sample| sample.name == "weir_packets_total")
        .filter(|sample| labels.iter().all(|(label, value)| sample.label(label) == Some(value)))
        .map(|sample| sample.value)
        .sum()
}

/// Opens connections one after the other, and keeps them; every join of each must be at its own backend.
fn open_all(lab: &Lab, mut open: impl FnMut(usize) -> (Connection, u64)) -> Vec<Connection> {
    let before = JoinTally::read(lab).expect("counters");
    let mut joins = 0;
    let mut connections = Vec::new();
    for index in 0..CONNECTIONS {
        let (connection, further) = open(index);
        joins += further;
        connections.push(connection);
        JoinTally::settled_since(&before, lab, joins, LIMIT).expect("counters");
    }
    let tally = &JoinTally::read(lab).expect("counters") - &before;
    let fate = (tally.attempted, tally.established(), tally.misrouted(), tally.lost());
    assert_eq!(fate, (joins, joins, 0, 0));
    for connection in &mut connections {
        connection.exchange().expect("it works");
    }
    connections
}

/// What tcpdump sees on the router's side of a backend, until dropped.
fn capture(lab: &Lab, interface: &str, filter: &str) -> Process {
    let log = lab.directory().join(format!("tcpdump-{interface}.log"));
    let args = ["-i", interface, "-n", "-l", "-Q", "out", filter];
    let mut tcpdump = Process::start(&lab.router.namespace, Path::new("tcpdump"), &args, log).expect("tcpdump");
    tcpdump.wait_for_word("listening", LIMIT).expect("it captures");
    tcpdump
}

/// The source addresses of the captured tunnels, which all go to the port of GUE.
fn gue_sources(log: &str) -> BTreeSet<String> {
    let tunnels = log.lines().filter_map(|line| line.split_once(" > "));
    tunnels
        .map(|(before, after)| {
            assert!(after.contains(".6080: UDP"), "{before} > {after}");
            let source = before.rsplit(' ').next().expect("an address and a port");
            source.rsplit_once('.').expect("a port").0.to_owned()
        })
        .collect()
}

#[test]
fn joins_come_home_through_gue_from_many_sources() {
    let lab = lab();
    let config = WeirConfig::for_lab(&lab, Join::Learn).with_forward("gue").with_sources(SOURCES[0], SOURCES[1]);
    let _weir = Weir::start(&lab, &config).expect("weir runs");
    let captures =
        [capture(&lab, "b1", "net 10.71.209.0/24 and not icmp"), capture(&lab, "b2", "net fd71:d1::/96 and not icmp6")];
    let mut connections = open_all(&lab, |index| {
        let mix = Mix::alternating(index);
        (Connection::open(&lab.client, mix).expect("a connection"), mix.joins())
    });
    for tcpdump in captures {
        let seen = wait::until("tcpdump writes", LIMIT, || {
            let sources = gue_sources(&tcpdump.log());
            if sources.len() > 3 {
                return Ok(Some(sources));
            }
            // By chance this backend has few connections yet.
            connections.push(Connection::open(&lab.client, Mix::alternating(connections.len()))?);
            Ok(None)
        });
        let sources = seen.unwrap_or_else(|error| panic!("{error}: {}", tcpdump.log()));
        let own = BALANCER.both().map(|address| address.to_string());
        assert!(sources.iter().any(|source| !own.contains(source)), "{sources:?}");
    }
}

#[test]
fn a_join_to_another_vip_of_the_pool_finds_its_connection() {
    let lab = lab();
    ip(&lab.router.namespace, &format!("route add {} via {}", PREFIX[0], BALANCER.v4));
    ip(&lab.router.namespace, &format!("route add {} via {}", PREFIX[1], BALANCER.v6));
    let mut servers = Vec::new();
    for backend in &lab.backends {
        for prefix in PREFIX {
            ip(&backend.namespace, &format!("route add local {prefix} dev lo"));
        }
        ip(&backend.namespace, &format!("address add {}/32 dev lo", WITHIN[0]));
        // The kernel listens on this port by itself, and tells the client of it.
        ip(&backend.namespace, &format!("mptcp endpoint add {} port 8001 dev lo signal", WITHIN[0]));
        servers.push(Server::start_on(&backend.namespace, &backend.name, OTHER_PORT).expect("a service"));
    }
    let config = WeirConfig::for_lab(&lab, Join::Learn)
        .with_vip(Vip { name: "all4", address: PREFIX[0], protocol: "tcp", ports: "any" })
        .with_vip(Vip { name: "all6", address: PREFIX[1], protocol: "tcp", ports: "8000-9000" });
    let weir = Weir::start(&lab, &config).expect("weir runs");

    open_all(&lab, |index| {
        // Joined from path two, and at the addresses of its socket's families that the backend announces.
        let (mix, joins, destination): (_, _, SocketAddr) = match index % 3 {
            0 => (Mix::V4, 2, VIP.service(Mix::V4.family())),
            1 => (Mix::V4, 2, (WITHIN[0].parse::<IpAddr>().expect("an address"), OTHER_PORT).into()),
            _ => (Mix::V6, 3, (WITHIN[1].parse::<IpAddr>().expect("an address"), SERVICE_PORT).into()),
        };
        (Connection::open_to(&lab.client, mix, destination).expect("a connection"), joins)
    });
    assert!(packets(&weir, &[("vip", "all4"), ("reason", "join_token")]) > 5.0, "{}", weir.log());
    assert!(packets(&weir, &[("vip", "all6"), ("reason", "join_token")]) > 4.0);
    assert!(packets(&weir, &[("vip", "web6"), ("reason", "join_token")]) > 4.0);

    let closed: SocketAddr = (WITHIN[1].parse::<IpAddr>().expect("an address"), 9001).into();
    let outside = Connection::open_to(&lab.client, Mix::V6, closed);
    assert!(matches!(outside, Err(LabError::System { .. })), "no rule has this port");
}

#[test]
fn pings_of_a_vip_are_answered_and_others_left_alone() {
    let lab = lab();
    let config = WeirConfig::for_lab(&lab, Join::Learn).with_vip(Vip {
        name: "all4",
        address: PREFIX[0],
        protocol: "tcp",
        ports: "any",
    });
    ip(&lab.router.namespace, &format!("route add {} via {}", PREFIX[0], BALANCER.v4));
    assert!(ping(&lab.client, VIP.v4.into()).is_err(), "nobody has the VIP here but the backends");
    let weir = Weir::start(&lab, &config).expect("weir runs");
    let answered = || packets(&weir, &[("reason", "echo_answered")]);
    for address in VIP.both().into_iter().chain([WITHIN[0].parse().expect("an address")]) {
        let before = answered();
        ping(&lab.client, address).unwrap_or_else(|error| panic!("{error}: {:?}", weir.metrics()));
        assert!((answered() - before - 1.0).abs() < f64::EPSILON, "{address}");
    }
    let before = answered();
    for address in BALANCER.both() {
        ping(&lab.client, address).expect("the balancer's own kernel answers for its own address");
    }
    assert!((answered() - before).abs() < f64::EPSILON);
}
