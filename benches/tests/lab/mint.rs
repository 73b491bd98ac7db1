//! Minted keys between real MPTCP stacks: the tokens are those that the kernel's own tools print, and another
//! implementation of the hash says whose they are. Needs root and the `weir` command.

use std::{
    collections::BTreeSet,
    fs,
    hash::Hasher as _,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};

use nix::sys::signal::Signal;
use siphasher::sip::SipHasher13;
use socket2::SockRef;
use weir_lab::{
    Backend, Lab, LabError,
    addresses::{Family, SERVICE_PORT, VIP},
    namespace::Namespace,
    oracle::{Counters, JoinTally, Subflow},
    sockets::{self, Transport},
    traffic::{Connection, Mix},
    wait,
    weir::{Agent, Join, Weir, WeirConfig, agent::text},
};

const LIMIT: Duration = Duration::from_mins(2);
const ID: u64 = 5;
const BITS: u32 = 4;

/// One backend, which clients reach without a balancer.
fn lab() -> Lab {
    let lab = Lab::builder().backends(1.try_into().expect("one")).build().expect("a lab");
    lab.router.bypass_balancer(&lab.backends[0]).expect("routes");
    set(&lab.backends[0].namespace, "net.ipv4.tcp_timestamps", 2);
    lab
}

fn set(namespace: &Namespace, setting: &str, value: u32) {
    namespace.output("sysctl", &["-q", "-w", &format!("{setting}={value}")]).expect("a setting");
}

fn syncookies(backend: &Backend) -> String {
    let read = backend.namespace.output("sysctl", &["-n", "net.ipv4.tcp_syncookies"]);
    read.expect("a setting").trim().to_owned()
}

fn secret_file(lab: &Lab) -> PathBuf {
    lab.directory().join("secret")
}

fn secret(lab: &Lab, args: &[&str]) {
    let weir = PathBuf::from(env!("CARGO_BIN_EXE_weir-lab")).with_file_name("weir");
    let file = secret_file(lab);
    let file = file.to_string_lossy();
    let args = [&["secret"], args, &[&file]].concat();
    lab.client.namespace.output(&weir.to_string_lossy(), &args).expect("a secret");
}

/// An agent's configuration that has so many keys ready.
fn config(lab: &Lab, keys: u32) -> String {
    if !secret_file(lab).exists() {
        secret(lab, &["new"]);
    }
    let file = secret_file(lab);
    let file = file.to_string_lossy();
    let token = format!("[token]\nsecret = {file:?}\nid = {ID}\nmax_backends = {}\nkeys = {keys}\n", 1 << BITS);
    format!("{}{token}", text(lab, &lab.backends[0], ""))
}

/// An agent that mints for both VIPs and has all of its keys ready.
fn minting(lab: &Lab, keys: u32) -> Agent {
    let agent = Agent::start_from(lab, &lab.backends[0], &config(lab, keys)).expect("an agent");
    wait_until_it_mints(&agent, keys);
    agent
}

fn wait_until_it_mints(agent: &Agent, keys: u32) {
    wait_for(agent, "it mints", |value| {
        value("weir_agent_services", "minting") == 2 && value("weir_agent_keys", "ready") >= u64::from(keys)
    });
}

/// Waits for what the agent's metrics say.
fn wait_for(agent: &Agent, what: &str, is: impl Fn(&dyn Fn(&str, &str) -> u64) -> bool) {
    let mut last = Vec::new();
    let waited = wait::until(what, LIMIT, || {
        last = agent.metrics()?;
        Ok(is(&|name, label| sample(&last, name, label)).then_some(()))
    });
    if let Err(error) = waited {
        panic!("{error}: {last:?}\n{}", agent.log());
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts")]
fn sample(samples: &[weir_lab::weir::Sample], name: &str, label: &str) -> u64 {
    let is = |sample: &&weir_lab::weir::Sample| sample.name == name && sample.labels.iter().any(|(_, v)| v == label);
    samples.iter().find(is).map_or(0, |sample| sample.value as u64)
}

fn count(agent: &Agent, outcome: &str) -> u64 {
    sample(&agent.metrics().expect("a page"), "weir_agent_mints_total", outcome)
}

/// The epoch of a token, if it names the backend as another implementation of the hash has it.
fn epoch(lab: &Lab, token: u32) -> Option<u32> {
    let secret = fs::read_to_string(secret_file(lab)).expect("a secret");
    secret.split("[[epoch]]").skip(1).find_map(|written| {
        let field = |name: &str| written.lines().find_map(|line| line.strip_prefix(name)).expect("a field").trim();
        let key = u128::from_str_radix(field("key = ").trim_matches('"'), 16).expect("hexadecimal").to_be_bytes();
        let epoch = field("number = ").parse().expect("a number");
        let mut hasher = SipHasher13::new_with_key(&key);
        hasher.write(&token.to_be_bytes());
        (token >> 30 == epoch && hasher.finish() & ((1 << BITS) - 1) == ID).then_some(epoch)
    })
}

/// The tokens as `ss` prints them, each of which names the backend.
fn tokens(lab: &Lab) -> BTreeSet<u32> {
    let subflows = Subflow::read(&lab.backends[0].namespace).expect("ss");
    let tokens: BTreeSet<_> = subflows.iter().map(|subflow| subflow.token.number()).collect();
    let foreign = tokens.iter().filter(|&&token| epoch(lab, token).is_none()).count();
    assert_eq!(foreign, 0, "tokens of {} that name another backend", tokens.len());
    tokens
}

fn open(lab: &Lab, count: usize) -> Vec<Connection> {
    (0..count).map(|index| Connection::open(&lab.client, Mix::alternating(index)).expect("a connection")).collect()
}

/// Whether a connection that is opened now speaks MPTCP; if so, with a token of the backend's.
fn speaks_mptcp(lab: &Lab) -> Result<bool, LabError> {
    let mut connection = Connection::open(&lab.client, Mix::V4)?;
    let port = connection.client.port();
    let subflows = Subflow::read(&lab.backends[0].namespace)?;
    let own = subflows.iter().find(|subflow| subflow.peer.port() == port);
    assert!(own.is_none_or(|own| epoch(lab, own.token.number()).is_some()), "a token that names another backend");
    connection.exchange().expect("it works");
    Ok(own.is_some())
}

#[test]
fn every_connection_has_a_token_that_names_the_backend_and_is_joined() {
    let lab = Lab::builder().backends(1.try_into().expect("one")).build().expect("a lab");
    set(&lab.backends[0].namespace, "net.ipv4.tcp_timestamps", 2);
    let agent = minting(&lab, 64);
    let _weir = Weir::start_alone(&lab.balancer, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let before = JoinTally::read(&lab).expect("counters");
    let mut connections = open(&lab, 40);
    let joins = (0..40).map(|index| Mix::alternating(index).joins()).sum();
    let tally = JoinTally::settled_since(&before, &lab, joins, LIMIT).expect("counters");
    let outcome = |word| count(&agent, word);
    assert_eq!((tally.established(), tally.lost()), (joins, 0), "{:?}", agent.metrics());
    assert_eq!((tokens(&lab).len(), outcome("minted"), outcome("plain")), (40, 40, 0));
    for connection in &mut connections {
        connection.transfer(100_000).expect("it works");
    }
    assert_eq!(syncookies(&lab.backends[0]), "1");
    wait_for(&agent, "all keys have come back", |value| value("weir_agent_keys", "out") == 0);
    let said = agent.log();
    for token in tokens(&lab) {
        assert!(!said.contains(&format!("{token:08x}")) && !said.contains(&token.to_string()), "a token is told");
    }
}

#[test]
fn without_keys_connections_are_plain_and_a_new_agent_goes_on() {
    const KEYS: usize = 64;
    let lab = lab();
    let mut agent = minting(&lab, 64);
    agent.end_by(Signal::SIGKILL).expect("it ends");
    // What was ready is used up, and nobody finds more.
    let mut first = open(&lab, KEYS + 20);
    let with_first = tokens(&lab);
    assert!(with_first.len() <= KEYS && with_first.len() >= KEYS - 8, "{} of {KEYS} keys", with_first.len());
    for connection in &mut first {
        connection.exchange().expect("it works");
    }
    agent.start_again().expect("another runs");
    wait_until_it_mints(&agent, 64);
    let _second = open(&lab, 20);
    assert_eq!(tokens(&lab).len(), with_first.len() + 20);
}

#[test]
fn a_dead_agent_means_plain_tcp_before_the_kernel_refuses_cookies() {
    let lab = lab();
    let mut agent = minting(&lab, 8192);
    assert!(speaks_mptcp(&lab).expect("a connection"));
    agent.end_by(Signal::SIGKILL).expect("it ends");
    wait::until("it is plain TCP", LIMIT, || Ok((!speaks_mptcp(&lab)?).then_some(()))).expect("no connection is lost");
}

#[test]
fn what_a_cookie_carries_is_as_the_kernel_would_have_it_and_the_rest_is_left_to_it() {
    let lab = lab();
    let agent = minting(&lab, 256);
    let client = &lab.client.namespace;
    let mut minted = 0;
    for (setting, value) in
        [("tcp_ecn", 1), ("tcp_sack", 0), ("tcp_window_scaling", 0), ("tcp_sack", 1), ("tcp_ecn", 2)]
    {
        set(client, &format!("net.ipv4.{setting}"), value);
        for mix in [Mix::V4, Mix::V6] {
            let mut one = Connection::open(&lab.client, mix).expect("a connection");
            one.transfer(1_000_000).unwrap_or_else(|error| panic!("{setting} {value}: {error}"));
            minted += 1;
        }
        assert_eq!((count(&agent, "minted"), count(&agent, "not_carried")), (minted, 0), "{setting} {value}");
    }
    set(client, "net.ipv4.tcp_timestamps", 0);
    let mut plain = open(&lab, 2);
    for connection in &mut plain {
        connection.transfer(100_000).expect("it works");
    }
    assert_eq!((count(&agent, "minted"), count(&agent, "not_carried"), count(&agent, "plain")), (minted, 2, 2));
    assert!(tokens(&lab).is_empty());
}

#[test]
fn where_the_kernel_would_read_cookies_otherwise_nothing_is_minted() {
    let lab = lab();
    let backend = &lab.backends[0];
    let agent = minting(&lab, 64);
    set(&backend.namespace, "net.ipv4.tcp_timestamps", 1);
    wait_for(&agent, "it has noticed", |value| value("weir_agent_services", "unwell") == 2);
    assert!(!speaks_mptcp(&lab).expect("a connection") && agent.log().contains("sysctl -w net.ipv4.tcp_timestamps=2"));
    set(&backend.namespace, "net.ipv4.tcp_timestamps", 2);
    wait_until_it_mints(&agent, 64);
    assert!(speaks_mptcp(&lab).expect("a connection"));
}

#[test]
fn a_listener_that_is_replaced_is_minted_for_again_and_no_connection_is_lost() {
    let mut lab = lab();
    let agent = minting(&lab, 64);
    lab.stop_server(0);
    wait_for(&agent, "nobody listens", |value| value("weir_agent_services", "minting") == 0);
    lab.start_server(0).expect("it listens");
    wait_until_it_mints(&agent, 64);
    let _open = open(&lab, 8);
    assert_eq!(tokens(&lab).len(), 8);
}

#[test]
fn a_moment_of_cookies_for_all_ends_with_the_next_agent_if_not_with_its_own() {
    let lab = lab();
    let backend = &lab.backends[0];
    let mut agent = minting(&lab, 64);
    agent.end_by(Signal::SIGKILL).expect("it ends");
    // As one is that is killed in the moment.
    let pins = lab.pins().join(format!("agent-{}", backend.name)).join(format!("v{}", lb_common::tables::ABI));
    let note = pins.join("weir_syncookies-1");
    if !note.exists() {
        let out = pins.join("weir_mint_out");
        let args = ["map", "pin", "pinned", &out.to_string_lossy(), &note.to_string_lossy()];
        backend.namespace.output("bpftool", &args).expect("a note");
    }
    set(&backend.namespace, "net.ipv4.tcp_syncookies", 2);
    agent.start_again().expect("another runs");
    assert!(agent.log().contains("net.ipv4.tcp_syncookies is what it was"), "{}", agent.log());
    wait_until_it_mints(&agent, 64);
    let is_over = || Ok((!note.exists() && syncookies(backend) == "1").then_some(()));
    wait::until("the moment is over", LIMIT, is_over).expect("restored");
}

#[test]
fn a_new_epoch_is_minted_from_its_time_on_and_connections_of_before_live_on() {
    let lab = lab();
    let agent = minting(&lab, 64);
    let mut before = open(&lab, 4);
    assert!(tokens(&lab).iter().all(|&token| epoch(&lab, token) == Some(0)));
    secret(&lab, &["rotate", "--after", "1s"]);
    wait::until("the new epoch is minted", LIMIT, || {
        let connection = Connection::open(&lab.client, Mix::V6)?;
        let is_new = tokens(&lab).iter().any(|&token| epoch(&lab, token) == Some(1));
        drop(connection);
        Ok(is_new.then_some(()))
    })
    .expect("rotated");
    for connection in &mut before {
        connection.exchange().expect("it works");
    }
    wait_until_it_mints(&agent, 64);
    assert!(count(&agent, "no_key") == 0, "keys of before were used until there were others");
}

/// A service that takes its clients when it is told to.
struct SlowService {
    listener: TcpListener,
    taken: Vec<TcpStream>,
}

impl SlowService {
    const GREETING: [u8; 3] = *b"b1\n";

    /// One whose accept queue has room for so many.
    fn start(lab: &mut Lab, room: u32) -> Self {
        lab.stop_server(0);
        let namespace = &lab.backends[0].namespace;
        set(namespace, "net.core.somaxconn", room);
        let listener = namespace.run(|| sockets::listen(SERVICE_PORT)).expect("a namespace").expect("a port");
        listener.set_nonblocking(true).expect("a setting");
        Self { listener, taken: Vec::new() }
    }

    /// Takes a client, and whoever waits before it: the agent's own connections.
    fn take(&self, client: &TcpStream) -> TcpStream {
        let port = client.local_addr().expect("an address").port();
        let is_this = |taken: &TcpStream| taken.peer_addr().is_ok_and(|peer| peer.port() == port);
        let taken = wait::until("the client waits", LIMIT, || {
            Ok(self.listener.accept().ok().map(|(taken, _)| taken).filter(is_this))
        });
        taken.expect("the client")
    }

    /// Takes a client and greets it.
    fn greet(&mut self, client: &TcpStream) {
        let mut taken = self.take(client);
        taken.write_all(&Self::GREETING).expect("it listens");
        self.taken.push(taken);
    }

    /// Takes a client, and closes in order before it does.
    fn let_go_first(&self, mut client: TcpStream) {
        let taken = self.take(&client);
        for stream in [&taken, &client] {
            SockRef::from(stream).set_linger(None).expect("a setting");
        }
        drop(taken);
        client.read_to_end(&mut Vec::new()).expect("it closes in order");
    }

    /// Takes who waits.
    fn take_all(&mut self) {
        while let Ok((mut client, _)) = self.listener.accept() {
            // The agent's own connections have ended already.
            let _ = client.write_all(&Self::GREETING);
            self.taken.push(client);
        }
    }
}

/// A client may use its port again before its former connection is forgotten where it was closed first (TIME-WAIT).
#[test]
fn a_connection_between_the_ports_of_a_former_one_is_the_kernels_and_works() {
    const PORT: u16 = 40_000;
    let mut lab = lab();
    let mut service = SlowService::start(&mut lab, 64);
    let backend = &lab.backends[0];
    let agent = minting(&lab, 64);
    let client = &lab.client.namespace;
    client
        .output("sysctl", &["-q", "-w", &format!("net.ipv4.ip_local_port_range={PORT} {PORT}")])
        .expect("one port for all");
    for (index, family) in (1..).zip([Family::V4, Family::V6]) {
        let connect = |transport| {
            let connected = client.run(|| sockets::connect_by(transport, VIP.service(family), LIMIT));
            connected.expect("a namespace").expect("it is answered")
        };
        let former = connect(Transport::Tcp);
        assert_eq!(former.local_addr().expect("an address").port(), PORT);
        service.let_go_first(former);
        let rests = || {
            Ok(backend
                .namespace
                .output("ss", &["-ntH", "state", "time-wait"])?
                .contains(&PORT.to_string())
                .then_some(()))
        };
        wait::until("the former connection is in TIME-WAIT", LIMIT, rests).expect("closed in order");

        let mut second = connect(Transport::Mptcp);
        assert_eq!(second.local_addr().expect("an address").port(), PORT);
        service.greet(&second);
        let mut greeting = [0; SlowService::GREETING.len()];
        second.read_exact(&mut greeting).expect("it is served");
        assert_eq!((count(&agent, "minted"), count(&agent, "has_socket"), count(&agent, "plain")), (0, index, index));
    }
}

/// How many wait in the service's accept queue, and how many there is room for, as `ss` prints them.
fn accept_queue(backend: &Backend) -> Result<(u32, u32), LabError> {
    let printed = backend.namespace.output("ss", &["-lntH", "sport", "=", &format!(":{SERVICE_PORT}")])?;
    let mut columns = printed.split_whitespace().skip(1).map(|column| column.parse().expect("a number"));
    Ok((columns.next().expect("it listens"), columns.next().expect("a backlog")))
}

#[test]
fn while_an_accept_queue_is_nearly_full_the_kernel_answers_and_nobody_is_refused() {
    const ROOM: u32 = 64;
    const FIRST: u32 = ROOM / 2 + 1;
    const MORE: u32 = 8;
    let mut lab = lab();
    let mut service = SlowService::start(&mut lab, ROOM);
    let backend = &lab.backends[0];
    let agent = minting(&lab, 256);
    let connect =
        || lab.client.namespace.run(|| sockets::connect(VIP.service(Family::V4), LIMIT)).expect("a namespace");
    let fallbacks =
        || Counters::read(&lab.client.namespace).expect("counters").value("MPTcpExtMPCapableFallbackSYNACK");

    let mut clients: Vec<_> = (0..FIRST).map(|_| connect().expect("it is answered")).collect();
    wait_for(&agent, "the queue is nearly full", |value| value("weir_agent_services", "queue_full") == 2);
    assert_eq!((count(&agent, "minted"), count(&agent, "paused"), fallbacks()), (FIRST.into(), 0, 0));
    clients.extend((0..MORE).map(|_| connect().expect("it is answered")));
    assert_eq!((count(&agent, "minted"), count(&agent, "paused")), (FIRST.into(), MORE.into()));
    assert_eq!((count(&agent, "plain"), fallbacks()), (MORE.into(), MORE.into()), "they are plain TCP");
    let all_wait = || {
        let (waiting, room) = accept_queue(backend)?;
        assert_eq!(room, ROOM);
        Ok((waiting >= FIRST + MORE).then_some(()))
    };
    wait::until("all of them wait", LIMIT, all_wait).expect("the queue has them");

    service.take_all();
    for client in &mut clients {
        let mut greeting = [0; SlowService::GREETING.len()];
        client.read_exact(&mut greeting).expect("it is served");
        assert_eq!(greeting, SlowService::GREETING);
    }
    wait_for(&agent, "it mints again", |value| value("weir_agent_services", "minting") == 2);
    let log = agent.log();
    assert_eq!(log.matches("is nearly full: until its program takes connections").count(), 2, "{log}");
    clients.push(connect().expect("it is answered"));
    assert_eq!((count(&agent, "minted"), fallbacks()), (u64::from(FIRST) + 1, MORE.into()));
    assert_eq!(tokens(&lab).len(), FIRST as usize + 1);
}
