//! The agent on backends, between real MPTCP stacks: its reports are held against `ip mptcp monitor` and `ss`, its clamp
//! against what tshark sees on the client's side, its tunnels against the sockets and the interface. Needs root and the
//! `weir` command.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    thread,
    time::Duration,
};

use lb_user::{
    agent::{Op, Report, Reporter},
    config::AgentConfig,
};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot};
use weir_lab::{
    Backend, Lab, LabError,
    addresses::{BALANCER, CLIENT_MTU},
    oracle::{JoinTally, Monitor, Subflow, Token},
    process::Process,
    topology::INTERFACE,
    traffic::{Connection, Mix},
    wait,
    weir::{Agent, Join, Sample, Weir, WeirConfig, agent::text},
};

const LIMIT: Duration = Duration::from_mins(1);

/// The agent's reports on a backend, by the code that `weir agent` runs, in a thread of its own.
struct Reports {
    live: BTreeSet<Token>,
    heard: mpsc::UnboundedReceiver<Vec<Report>>,
    counts: Arc<lb_user::agent::Counts>,
    /// Ends it.
    _stop: oneshot::Sender<()>,
}

impl Reports {
    /// Begins to listen. `pause` is waited for between the start and the first event that is read.
    fn start(lab: &Lab, backend: &Backend, more: &str, pause: Option<oneshot::Receiver<()>>) -> Self {
        let config = AgentConfig::parse(&text(lab, backend, more), "agent.toml").unwrap_or_else(|e| panic!("{e}"));
        let (stop, stopped) = oneshot::channel::<()>();
        let (mut sink, heard) = mpsc::unbounded_channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let follow = async move {
            let mut reporter = Reporter::subscribe(Arc::new(config)).await.expect("events");
            reporter.resync(&mut sink).await.expect("the sockets");
            ready.send(reporter.counts()).expect("the test waits");
            if let Some(pause) = pause {
                let _ = pause.await;
            }
            tokio::select! {
                Err(error) = reporter.follow(&mut sink) => panic!("{error}"),
                _ = stopped => {}
            }
        };
        let namespace = backend.namespace.clone();
        thread::spawn(move || {
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            namespace.run(|| runtime().block_on(follow)).expect("the namespace");
        });
        let counts = is_ready.recv_timeout(LIMIT).expect("it listens");
        Self { live: BTreeSet::new(), heard, counts, _stop: stop }
    }

    /// The tokens that are held by all that was told so far.
    fn live(&mut self) -> &BTreeSet<Token> {
        while let Ok(reports) = self.heard.try_recv() {
            for report in reports {
                assert_eq!(report.pool.as_str(), "web");
                let token = Token::parse(&report.token.to_string()).expect("hexadecimal");
                let is_news = match report.op {
                    Op::Hold => self.live.insert(token),
                    Op::Close => self.live.remove(&token),
                };
                assert!(is_news, "only changes are told");
            }
        }
        &self.live
    }

    fn wait_for(&mut self, expected: &BTreeSet<Token>) {
        let agree =
            wait::until("the reports agree with the kernel", LIMIT, || Ok((self.live() == expected).then_some(())));
        agree.unwrap_or_else(|error| panic!("{error}: {} told, {} expected", self.live.len(), expected.len()));
    }
}

fn lab() -> Lab {
    let lab = Lab::builder().backends(1.try_into().expect("one")).build().expect("a lab");
    lab.router.bypass_balancer(&lab.backends[0]).expect("routes");
    lab
}

fn open(lab: &Lab, count: usize) -> Vec<Connection> {
    (0..count).map(|index| Connection::open(&lab.client, Mix::alternating(index)).expect("a connection")).collect()
}

/// What `ss` says.
fn by_ss(backend: &Backend) -> BTreeSet<Token> {
    Subflow::read(&backend.namespace).expect("ss").into_iter().map(|subflow| subflow.token).collect()
}

#[test]
fn reported_tokens_are_those_of_the_kernel() {
    let mut lab = lab();
    let backend = &lab.backends[0];
    let before = open(&lab, 3);
    let monitor = Monitor::start(backend).expect("a monitor");
    let mut reports = Reports::start(&lab, backend, "", None);
    reports.wait_for(&by_ss(backend));
    assert_eq!(reports.live().len(), 3, "those that were there before");

    let mut after = open(&lab, 12);
    let expected = by_ss(backend);
    assert_eq!(expected.len(), 15);
    reports.wait_for(&expected);
    assert!(monitor.created().iter().all(|token| expected.contains(token)) && monitor.created().len() == 12);

    // A client that resets: the kernel tells of no end.
    drop(before);
    after.truncate(4);
    let is_over = || Ok((by_ss(backend).len() == 4).then_some(()));
    wait::until("the sockets are gone", LIMIT, is_over).expect("closed");
    reports.wait_for(&by_ss(backend));
    assert_eq!(reports.live().len(), 4);

    // A server that closes: it does.
    lab.stop_server(0);
    wait::until("the kernel closes four", LIMIT, || Ok((monitor.closed().len() == 4).then_some(()))).expect("closed");
    reports.wait_for(&BTreeSet::new());
    assert_eq!(reports.counts.closed.load(Relaxed), 4, "by the events");
}

#[test]
fn a_lost_event_heals() {
    let lab = lab();
    let backend = &lab.backends[0];
    let (go_on, pause) = oneshot::channel();
    let mut reports = Reports::start(&lab, backend, "event_buffer_bytes = 2048", Some(pause));
    let mut open = open(&lab, 40);
    open.truncate(25);
    let expected = || by_ss(backend);
    wait::until("the sockets are gone", LIMIT, || Ok((expected().len() == 25).then_some(()))).expect("closed");
    go_on.send(()).expect("it waits");
    reports.wait_for(&expected());
    let lost = reports.counts.lost.load(Relaxed);
    assert!(lost >= 1, "the buffer was too small for 40 connections");
}

/// The value of a sample.
fn value(metrics: &[Sample], name: &str, label: &str) -> f64 {
    let of = |sample: &&Sample| sample.name == name && sample.labels.iter().all(|(_, value)| value == label);
    metrics.iter().find(of).map_or(f64::NAN, |sample| sample.value)
}

fn wait_for_connections(agent: &Agent, count: usize) -> Result<(), LabError> {
    wait::until("the agent counts the connections", LIMIT, || {
        let known = value(&agent.metrics()?, "weir_agent_connections", "web");
        Ok((format!("{known}") == count.to_string()).then_some(()))
    })
}

#[test]
fn an_agent_that_dies_loses_no_packet_and_its_follower_knows_the_connections() {
    let lab = Lab::builder().build().expect("a lab");
    let mut agents: Vec<_> =
        lab.backends.iter().map(|backend| Agent::start(&lab, backend, "").expect("an agent")).collect();
    let _weir = Weir::start_alone(&lab.balancer, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let before = JoinTally::read(&lab).expect("counters");
    let mut connections = open(&lab, 12);
    let joins = (0..12).map(|index| Mix::alternating(index).joins()).sum();
    let tally = JoinTally::settled_since(&before, &lab, joins, LIMIT).expect("counters");
    assert_eq!((tally.established(), tally.lost()), (joins, 0));

    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        for agent in &mut agents {
            agent.end_by(signal).expect("it ends");
        }
        for connection in &mut connections {
            connection.exchange().expect("it works without an agent");
        }
        for (agent, backend) in agents.iter_mut().zip(&lab.backends) {
            agent.start_again().expect("another runs");
            wait_for_connections(agent, by_ss(backend).len()).expect("it knows the connections");
        }
        for connection in &mut connections {
            connection.exchange().expect("it works");
        }
    }
    let said = agents.iter().map(Agent::log).collect::<String>();
    for token in lab.backends.iter().flat_map(by_ss_digits) {
        assert!(!said.contains(&token), "a token is told");
    }
    agents[0].end_by(Signal::SIGTERM).expect("it ends");
    assert!(agents[0].log().contains("goes on taking tunnels off"), "{}", agents[0].log());
    assert!(agents[0].detach().expect("it detaches").contains("no longer on eth0"));
    let is_gone = || Ok((!link_of(&lab.backends[0])?.contains("xdp")).then_some(()));
    wait::until("the program goes", LIMIT, is_gone).expect("the link is gone");
    assert!(agents[0].detach().expect("nothing to do").contains("nothing of an agent's"));
}

fn link_of(backend: &Backend) -> Result<String, LabError> {
    backend.namespace.output("ip", &["link", "show", "dev", INTERFACE])
}

/// The tokens as `ss` prints them.
fn by_ss_digits(backend: &Backend) -> Vec<String> {
    let printed = backend.namespace.output("ss", &["-tniHO", "state", "established"]).expect("ss");
    let tokens = printed.split_whitespace().filter_map(|word| word.strip_prefix("token:")?.split_once('/'));
    tokens.map(|(_, own)| own.chars().take_while(char::is_ascii_hexdigit).collect()).collect()
}

#[test]
fn tunnels_of_strangers_are_not_taken_off() {
    let lab = Lab::builder().backends(1.try_into().expect("one")).build().expect("a lab");
    let agent = Agent::start(&lab, &lab.backends[0], "").expect("an agent");
    let config = WeirConfig::for_lab(&lab, Join::Learn);
    let _weir = Weir::start_alone(&lab.balancer, &config).expect("weir runs");
    let _open = open(&lab, 2);
    let metrics = agent.metrics().expect("a page");
    assert!(value(&metrics, "weir_agent_frames_total", "taken") >= 2.0);
    assert!(value(&metrics, "weir_bus_connected", "").is_nan(), "there is no bus");

    // The same tunnels, where another balancer is the only one.
    drop(agent);
    let [v4, v6] = BALANCER.both().map(|address| address.to_string());
    let elsewhere = text(&lab, &lab.backends[0], "").replace(&v4, "203.0.113.1").replace(&v6, "2001:db8:113::1");
    let bus = "[bus]\nservers = [\"nats://127.0.0.1:4222\"]\ncluster = \"nobody\"\n";
    let agent = Agent::start_from(&lab, &lab.backends[0], &format!("{elsewhere}\n{bus}")).expect("an agent");
    assert!(Connection::open(&lab.client, Mix::V4).is_err(), "nobody takes the tunnel off");
    let metrics = agent.metrics().expect("a page");
    assert!(value(&metrics, "weir_agent_frames_total", "stranger") >= 1.0);
    assert!(value(&metrics, "weir_agent_frames_total", "taken") < 1.0);
    assert!(value(&metrics, "weir_bus_connected", "") < 1.0);
}

/// The MSS of the SYN/ACKs that reach the client, by tshark, and whether all their checksums are right.
fn synacks(lab: &Lab, open: impl FnOnce()) -> Vec<(SocketAddr, u16, bool)> {
    let file = lab.directory().join("synacks.pcap");
    let name = file.to_string_lossy();
    let mut dump = Process::start(
        &lab.client.namespace,
        Path::new("tcpdump"),
        &[
            "-i",
            "any",
            "-U",
            "-w",
            &name,
            "tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack) or (ip6 and ip6[53] & 0x12 == 0x12)",
        ],
        lab.directory().join("tcpdump.log"),
    )
    .expect("tcpdump");
    dump.wait_for_word("listening", LIMIT).expect("it listens");
    open();
    let read = || {
        let args = [
            "-r",
            &*name,
            "-o",
            "tcp.check_checksum:TRUE",
            "-T",
            "fields",
            "-E",
            "separator=/s",
            "-e",
            "ip.src",
            "-e",
            "ipv6.src",
            "-e",
            "tcp.srcport",
            "-e",
            "tcp.options.mss_val",
            "-e",
            "tcp.checksum.status",
        ];
        let printed = lab.client.namespace.output("tshark", &args)?;
        let line = |line: &str| {
            let [address, port, mss, status] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
            let local = SocketAddr::new(address.parse().ok()?, port.parse().ok()?);
            Some((local, mss.parse().ok()?, status == "1"))
        };
        Ok(printed.lines().filter_map(line).collect::<Vec<_>>())
    };
    wait::until("tcpdump sees the handshakes", LIMIT, || {
        let seen = read()?;
        Ok(([4, 6].iter().all(|family| seen.iter().any(|(a, ..)| a.is_ipv4() == (*family == 4)))).then_some(seen))
    })
    .expect("a capture")
}

#[test]
fn the_mss_of_syn_acks_is_lowered_never_raised_and_their_checksum_is_right() {
    let lab = lab();
    let backend = &lab.backends[0];
    let mtu = CLIENT_MTU.to_string();
    backend.namespace.output("ip", &["link", "set", "dev", INTERFACE, "mtu", &mtu]).expect("ip");
    let seen = |more: &str| {
        let agent = Agent::start(&lab, backend, more).expect("an agent");
        let seen = synacks(&lab, || drop(open(&lab, 4)));
        assert!(seen.iter().all(|(_, _, is_right)| *is_right), "checksums: {seen:?}");
        let of = |is_v4: bool| -> BTreeSet<u16> {
            seen.iter().filter(|(from, ..)| from.is_ipv4() == is_v4).map(|(_, mss, _)| *mss).collect()
        };
        let counts = agent.metrics().expect("a page");
        let count = |word| value(&counts, "weir_agent_syns_total", word) >= 4.0;
        ([of(true), of(false)].map(|mss| mss.into_iter().collect::<Vec<_>>()), count("lowered"), count("fits"))
    };
    // The longest tunnel is GUE over IPv6.
    let fitting = CLIENT_MTU - 52 - 20;
    assert_eq!(seen(""), ([vec![fitting - 20], vec![fitting - 40]], true, false));
    assert_eq!(seen("mss_max = 1300"), ([vec![1300], vec![1300]], true, false));
    for family in ["-4", "-6"] {
        let route = backend.namespace.output("ip", &[family, "route", "show", "default"]).expect("a route");
        let words = route.lines().next().expect("a line").split_whitespace().collect::<Vec<_>>();
        backend
            .namespace
            .output("ip", &[&[family, "route", "replace"], &words[..], &["advmss", "900"]].concat())
            .expect("ip");
    }
    assert_eq!(seen("mss_max = 1300"), ([vec![900], vec![900]], false, true), "it is never raised");
}
