//! Several balancers at one router: the router's own word for where flows go, the delay line, the endpoints that kernels
//! join at, and the drill. Needs root and the `weir` command.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::UdpSocket,
    path::Path as File,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use serde_json::Value;
use weir_lab::{
    Backend, Lab,
    addresses::{Family, Path, VIP},
    fleet::{Fleet, TcpFlow},
    leftovers,
    namespace::Namespace,
    oracle::{Counters, Flow, JoinTally, open_joined, path_mtus},
    sockets::{self, Transport},
    traffic::{Connection, Mix},
    wait,
    weir::Join,
};

const LIMIT: Duration = Duration::from_secs(20);

fn two_backends() -> weir_lab::LabBuilder {
    Lab::builder().backends(2.try_into().expect("a lab may have two"))
}

#[test]
fn a_line_keeps_order_and_loses_nothing() {
    const DATAGRAMS: u32 = 3000;
    // So many are on their way: a burst of more would not fit the queues of the kernel's own links.
    const WINDOW: u32 = 128;
    let lab = two_backends().round_trip(Duration::from_millis(30)).build().expect("a lab");
    let router = &lab.router.namespace;
    let (to, before) = (Path::One.client().router().v4, Counters::read(router).expect("nstat"));
    let sink = router.run(|| UdpSocket::bind((to, 9000))).expect("a namespace").expect("a socket");
    setsockopt(&sink, RcvBufForce, &(64 << 20)).expect("room");
    sink.set_read_timeout(Some(LIMIT)).expect("a limit");
    let source = lab.client.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a namespace").expect("a socket");
    let arrivals = AtomicU32::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..DATAGRAMS {
                let has_room = || (number < arrivals.load(Ordering::Relaxed) + WINDOW).then_some(());
                wait::until("the earlier ones arrive", LIMIT, || Ok(has_room())).expect("nothing is lost");
                source.send_to(&number.to_be_bytes(), (to, 9000)).expect("it is sent");
            }
        });
        for number in 0..DATAGRAMS {
            let mut datagram = [0; 4];
            sink.recv(&mut datagram).expect("it is received");
            assert_eq!(u32::from_be_bytes(datagram), number);
            arrivals.store(number + 1, Ordering::Relaxed);
        }
    });
    let arrived = |counters: &Counters| counters.value("UdpInDatagrams");
    let now = Counters::read(router).expect("nstat");
    assert_eq!(arrived(&now) - arrived(&before), u64::from(DATAGRAMS));
    let tally = lab.line.as_ref().expect("a line").tally().expect("ss");
    assert!(tally.carried >= u64::from(DATAGRAMS) && tally.lost == 0, "{tally:?}");
}

/// The kernel's own measure of both paths.
#[test]
fn a_round_trip_takes_its_time() {
    let lab = two_backends().round_trip(Duration::from_millis(30)).build().expect("a lab");
    lab.router.bypass_balancer(&lab.backends[1]).expect("a route");
    let before = JoinTally::read(&lab).expect("counters");
    let mut connection = Connection::open(&lab.client, Mix::V6).expect("a connection");
    let tally = JoinTally::settled_since(&before, &lab, 1, LIMIT).expect("counters");
    assert_eq!(tally.established(), 1);
    connection.exchange().expect("the connection works");
    let sockets = lab.client.namespace.output("ss", &["-tniHO", "state", "established"]).expect("ss");
    let shortest = sockets.split_whitespace().filter_map(|word| word.strip_prefix("minrtt:")?.parse::<f64>().ok());
    let shortest: Vec<f64> = shortest.collect();
    assert_eq!(shortest.len(), 2, "{sockets}");
    assert!(shortest.iter().all(|milliseconds| *milliseconds >= 30.0), "{shortest:?}");
}

/// Packets that the router has sent by an interface.
fn sent_by(router: &Namespace, interface: &str) -> u64 {
    let printed = router.output("ip", &["-json", "-statistics", "link", "show", "dev", interface]).expect("ip");
    let links: Value = serde_json::from_str(&printed).expect("JSON");
    links[0]["stats64"]["tx"]["packets"].as_u64().expect("a count")
}

#[test]
fn flows_go_where_the_router_says() {
    const EXCHANGES: u64 = 300;
    let fleet = Fleet::start(two_backends().round_trip(Duration::ZERO).build().expect("a lab"), 2, Join::Learn, false)
        .expect("a fleet");
    let router = &fleet.lab.router.namespace;
    // Of a path's flows one in 17 goes to the other balancer: 300 leave it out with a chance of 1 in 10^7.
    let mut chosen = BTreeSet::new();
    for index in 0..300 {
        if index >= 12 && chosen.len() == 2 {
            break;
        }
        let service = VIP.service(if index % 2 == 0 { Family::V4 } else { Family::V6 });
        let connect = || sockets::connect_by(Transport::Tcp, service, LIMIT);
        let mut stream = fleet.lab.client.namespace.run(connect).expect("a namespace").expect("a connection");
        let flow = TcpFlow { client: stream.local_addr().expect("an address"), service };
        let choice = fleet.choices(&[flow]).expect("a choice")[0].to_owned();
        let counts = || ["weir", "lb2"].map(|interface| sent_by(router, interface));
        let before = counts();
        stream.read_exact(&mut [0; 3]).expect("the greeting");
        for _ in 0..EXCHANGES {
            stream.write_all(b"x").expect("it is sent");
            stream.read_exact(&mut [0]).expect("its echo");
        }
        let [first, second] = [0, 1].map(|side| counts()[side] - before[side]);
        let (here, elsewhere) = if choice == "lb1" { (first, second) } else { (second, first) };
        assert!(here >= EXCHANGES && elsewhere < EXCHANGES / 2, "{choice}: {first} and {second}");
        chosen.insert(choice);
    }
    assert_eq!(chosen, BTreeSet::from(["lb1".to_owned(), "lb2".to_owned()]), "both have some");
}

fn drill(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-lab"));
    command.args(["drill", "fleet", "--json"]).args(args);
    command
}

/// Nothing of another balancer is known without a bus: its joins are dropped, and never misrouted.
#[test]
fn without_a_bus_joins_at_other_balancers_are_lost_and_noticed() {
    let output = drill(&["--ways", "learn", "--no-bus", "--connections", "40", "--rtt", "10"]).output();
    let output = output.expect("weir-lab starts");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON: {output:?}"));
    assert!(!output.status.success(), "{report}");
    let figure = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
    assert_eq!(["joins_misrouted", "connections_broken", "frames_lost"].map(figure), [0; 3], "{report}");
    assert!(figure("joins_attempted") >= 50, "{report}");
    let (established, elsewhere) = (figure("joins_established"), figure("joins_through_another"));
    assert!(established < figure("joins_attempted") && elsewhere * 2 < established, "{report}");
    let by_balancer = report["by_balancer"].as_object().expect("an object");
    assert_eq!(by_balancer.keys().collect::<Vec<_>>(), ["lb1", "lb2", "lb3"], "{report}");
    // A join may come about by a SYN that is sent again, and break, while nobody looks: the slower the machine, the more.
    let seen: u64 = by_balancer.values().filter_map(Value::as_u64).sum();
    assert!(seen <= established && seen * 2 > established, "{report}");
}

/// What one balancer learns, or an agent reports, the others know before the join comes; or when its SYN comes again. One
/// balancer dies, one comes, and the bus is away for a while.
#[test]
fn with_a_bus_joins_find_their_backend_through_any_balancer() {
    for ways in ["learn", "report"] {
        let output = drill(&["--ways", ways, "--connections", "60", "--rtt", "10"]).output().expect("weir-lab starts");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON: {output:?}"));
        let figure = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
        assert!(output.status.success(), "{output:?}");
        let attempted = figure("joins_attempted");
        assert!(attempted >= 60, "{report}");
        assert_eq!(figure("joins_established"), attempted, "{report}");
        assert_eq!(["joins_misrouted", "joined_flows_broken", "frames_lost"].map(figure), [0; 3], "{report}");
        assert!(figure("joins_through_another") * 3 > attempted, "{report}");
    }
}

/// The destination alone names the backend, so any balancer knows it: nothing is shared, and nothing lost.
#[test]
fn joins_at_endpoints_go_through_any_balancer() {
    let output = drill(&["--ways", "endpoint", "--connections", "60", "--rtt", "10"]).output();
    let output = output.expect("weir-lab starts");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON: {output:?}"));
    let figure = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(figure("joins_attempted"), 60, "{report}");
    assert_eq!(["joins_established", "joins_misrouted", "joined_flows_broken"].map(figure), [60, 0, 0], "{report}");
    assert!(figure("joins_through_another") > 30, "{report}");
    let by_balancer = report["by_balancer"].as_object().expect("an object");
    assert_eq!(by_balancer.values().filter_map(Value::as_u64).sum::<u64>(), 60, "{report}");
}

#[test]
fn nothing_is_left_of_a_killed_drill() {
    let mut process = drill(&["--ways", "learn", "--no-bus", "--connections", "8", "--rtt", "10"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir-lab starts");
    let mut said = BufReader::new(process.stderr.take().expect("a pipe")).lines();
    let line = said.find(|line| line.as_ref().is_ok_and(|line| line.contains("connections more")));
    line.expect("it has opened connections").expect("text");
    process.kill().expect("it runs");
    process.wait().expect("it ends");

    let prefix = format!("weirlab-{}-", process.id());
    let left = || -> Vec<String> {
        let places = ["/run/netns", "/run", "/sys/fs/bpf"].map(File::new);
        let entries = places.iter().filter_map(|place| place.read_dir().ok()).flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    };
    assert!(left().iter().any(|name| name.ends_with("lb2")), "{:?}", left());
    // Another lab that begins may be clearing the same one.
    wait::until("it is cleared", LIMIT, || {
        leftovers::clear_dead()?;
        Ok(left().is_empty().then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", left()));
}

/// Agents tell what their kernels know, whatever a client echoes; what balancers learn from clients can be spoilt, one token
/// by each handshake, and is never taken over.
#[test]
fn who_forges_handshakes_takes_over_no_join() {
    const CONNECTIONS: u64 = 20;
    const FORGED: u64 = 2000;
    for ways in ["learn", "report"] {
        let numbers = [CONNECTIONS.to_string(), FORGED.to_string()];
        let args = ["drill", "poison", "--json", "--ways", ways, "--connections", &numbers[0], "--forged", &numbers[1]];
        let output = Command::new(env!("CARGO_BIN_EXE_weir-lab")).args(args).output().expect("weir-lab starts");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("JSON: {output:?}"));
        assert!(output.status.success(), "{output:?}");
        let figure = |name: &str| report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"));
        assert_eq!(["joins_attempted", "keys_echoed"].map(figure), [CONNECTIONS; 2], "{report}");
        assert_eq!(["joins_misrouted", "connections_broken"].map(figure), [0; 2], "{report}");
        let counted = |name: &str| report["counted"][name].as_u64().expect("a count");
        if ways == "report" {
            assert_eq!(figure("joins_established"), CONNECTIONS, "{report}");
            assert_eq!(report["tokens"], serde_json::json!([CONNECTIONS, 2 * CONNECTIONS]), "{report}");
        } else {
            assert!(counted("learn_ambiguous") > 0 && counted("learn_unseen") >= FORGED, "{report}");
        }
    }
}

/// ICMP errors that a balancer has brought to backends.
fn errors_brought(fleet: &Fleet, name: &str) -> f64 {
    let samples = fleet.weir(name).expect("a member").metrics().expect("a page");
    let of_errors = samples.iter().filter(|sample| sample.label("reason") == Some("icmp_error"));
    of_errors.filter(|sample| sample.name == "weir_packets_total").map(|sample| sample.value).sum()
}

/// The path MTU that a backend's kernel has for a subflow.
fn mtu_of(flow: TcpFlow, backend: &Backend) -> Option<u16> {
    path_mtus(&backend.namespace).expect("ss").get(&(flow.service, flow.client)).copied()
}

/// A router's "too big" is a flow of its own: it comes to the balancer of the router's choice, not the subflow's.
#[test]
fn an_error_at_another_balancer_reaches_the_backend_of_the_joined_subflow() {
    const NARROW: u16 = 1400;
    let lab = two_backends().round_trip(Duration::ZERO).build().expect("a lab");
    let fleet = Fleet::start(lab, 2, Join::Learn, true).expect("a fleet");
    let (lab, client) = (&fleet.lab, Path::Two.client().v4);
    let narrow = format!("route replace {client}/32 dev path2 mtu lock {NARROW}");
    lab.router.namespace.output("ip", &narrow.split(' ').collect::<Vec<_>>()).expect("a route");

    let mut errors_go_to = None;
    // Each joined subflow has a chance of one in 17 at least to come to the other balancer than the errors.
    for _ in 0..300 {
        let (mut connections, joins) = open_joined(lab, 1, LIMIT).expect("a connection");
        assert_eq!((joins.established(), joins.misrouted()), (1, 0));
        let connection = &mut connections[0];
        let flows = Flow::read(&lab.client.namespace).expect("ss");
        let joined = flows.iter().find(|flow| flow.joined && flow.local.ip() == client).expect("a joined subflow");
        let flow = TcpFlow { client: joined.local, service: joined.peer };
        let choice = fleet.choices(&[flow]).expect("a choice")[0].to_owned();
        if errors_go_to.as_ref() == Some(&choice) {
            continue;
        }
        let backend = lab.backends.iter().find(|backend| backend.name == connection.backend).expect("a backend");
        // What its kernel has learned by an error before.
        backend.namespace.output("ip", &["route", "flush", "cache"]).expect("ip");
        let names: Vec<String> = fleet.names().map(str::to_owned).collect();
        let before: Vec<f64> = names.iter().map(|name| errors_brought(&fleet, name)).collect();
        wait::until("the backend learns the path MTU", LIMIT, || {
            connection.transfer(1 << 20).unwrap_or_else(|error| panic!("a megabyte and back: {error}"));
            Ok((mtu_of(flow, backend) == Some(NARROW)).then_some(()))
        })
        .expect("an error has come");
        let brought = names.iter().zip(before).filter(|(name, before)| errors_brought(&fleet, name) > *before);
        let brought: Vec<&String> = brought.map(|(name, _)| name).collect();
        assert_eq!(brought.len(), 1, "the router has one choice for its errors");
        if *brought[0] != choice {
            return;
        }
        errors_go_to = Some(choice);
    }
    panic!("every joined subflow went the way of the errors");
}
