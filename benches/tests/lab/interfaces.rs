//! A balancer with two interfaces: packets come in by one and leave by the other, where their backends are. Needs root and
//! the `weir` command.

use std::time::Duration;

use nix::sys::signal::Signal;
use weir_lab::{
    Lab,
    addresses::VIP,
    namespace::Namespace,
    oracle::JoinTally,
    traffic::{Connection, Mix},
    wait,
    weir::{Join, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_secs(10);

fn run(namespace: &Namespace, command: &str) -> String {
    let mut words = command.split(' ');
    let program = words.next().expect("a program");
    namespace.output(program, &words.collect::<Vec<_>>()).expect("it is done")
}

/// Another link between router and balancer, by which the VIPs are reached from now on.
fn add_link(lab: &Lab) {
    let (router, balancer) = (&lab.router.namespace, &lab.balancer.namespace);
    run(router, &format!("ip link add weir2 type veth peer name eth1 netns {}", balancer.name()));
    for (namespace, interface, host) in [(router, "weir2", 1), (balancer, "eth1", 2)] {
        run(namespace, &format!("ethtool -K {interface} tx off tso off gso off gro off"));
        run(namespace, &format!("ip address add 10.72.0.{host}/24 dev {interface}"));
        run(namespace, &format!("ip address add fd72::{host}/64 dev {interface} nodad"));
        run(namespace, &format!("ip link set {interface} up"));
    }
    run(router, &format!("ip route replace {}/32 via 10.72.0.2", VIP.v4));
    run(router, &format!("ip route replace {}/128 via fd72::2", VIP.v6));
}

#[test]
fn packets_go_out_by_the_interface_of_their_backend() {
    let lab = Lab::builder().build().expect("a lab");
    add_link(&lab);
    let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn).with_interface("eth1")).expect("weir runs");
    for interface in ["eth0", "eth1"] {
        let link = run(&lab.balancer.namespace, &format!("ip -json link show dev {interface}"));
        assert!(link.contains("\"xdp\""), "{interface}: {link}");
    }
    let modes = weir.metrics().expect("a metrics page");
    let modes = modes.iter().filter(|sample| sample.name == "weir_xdp_mode");
    assert_eq!(modes.filter_map(|sample| sample.label("interface")).collect::<Vec<_>>(), ["eth0", "eth1"]);

    let before = JoinTally::read(&lab).expect("counters");
    let mut joins = 0;
    for index in 0..8 {
        let mix = Mix::alternating(index);
        joins += mix.joins();
        let mut connection = Connection::open(&lab.client, mix).expect("a connection");
        let tally = JoinTally::settled_since(&before, &lab, joins, LIMIT).expect("counters");
        assert_eq!((tally.established(), tally.misrouted(), tally.lost()), (joins, 0, 0));
        connection.exchange().expect("it works");
    }

    let status = || weir.ask(&["status"]);
    assert!(status().expect("a status").contains(" on eth0, eth1 (native XDP), up "));
    run(&lab.router.namespace, "ip link delete weir2");
    let told = " (eth0 native, eth1 none XDP, configured native), up ";
    wait::until("the mode is what the kernel tells", LIMIT, || Ok(status()?.contains(told).then_some(())))
        .unwrap_or_else(|error| panic!("{error}: {:?}", status()));
}

/// Whether each of the two interfaces has an XDP program.
fn steered(lab: &Lab) -> [bool; 2] {
    let has_program =
        |interface| run(&lab.balancer.namespace, &format!("ip -json link show dev {interface}")).contains("\"xdp\"");
    ["eth0", "eth1"].map(has_program)
}

#[test]
fn a_controller_takes_the_interfaces_as_they_are_now() {
    let lab = Lab::builder().build().expect("a lab");
    add_link(&lab);
    let both = || WeirConfig::for_lab(&lab, Join::Learn).with_interface("eth1");
    let mut weir = Weir::start(&lab, &both()).expect("weir runs");

    weir.end_by(Signal::SIGKILL).expect("it ends");
    run(&lab.router.namespace, "ip link delete weir2");
    add_link(&lab);
    assert_eq!(steered(&lab), [true, false], "another interface has the name");
    weir.start_again().expect("another runs");
    assert_eq!(steered(&lab), [true, true]);
    Connection::open(&lab.client, Mix::V4).expect("a connection by the new interface");

    weir.end_by(Signal::SIGKILL).expect("it ends");
    weir.configure(&WeirConfig::for_lab(&lab, Join::Learn)).expect("another file");
    weir.start_again().expect("another runs");
    wait::until("the program leaves the other interface", LIMIT, || Ok((steered(&lab) == [true, false]).then_some(())))
        .expect("it is configured no more");
}
