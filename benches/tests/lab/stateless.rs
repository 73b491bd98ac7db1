//! Tokens that name backends, between real MPTCP stacks: agents choose them, and a balancer that learns nothing sends joins
//! by them; what its health checks make of backends that choose others, or none. Judged by the kernels' counts and the
//! servers' own names. Needs root and the `weir` command.

use std::{collections::BTreeSet, fs, net::TcpListener, path::PathBuf, thread, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_lab::{
    Backend, Lab, LabError,
    addresses::SERVICE_PORT,
    oracle::{Flow, JoinTally, Subflow, TokenOracle},
    traffic::{Connection, Mix},
    wait,
    weir::{Agent, Join, PoolBackend, Weir, WeirConfig, agent::text},
};

const LIMIT: Duration = Duration::from_mins(1);
const MAX_BACKENDS: u32 = 16;
const CONNECTIONS: usize = 24;

fn lab_of(backends: u8) -> Lab {
    Lab::builder().backends(backends.try_into().expect("a few")).build().expect("a lab")
}

fn secret_file(lab: &Lab) -> PathBuf {
    lab.directory().join("token.secret")
}

/// Runs `weir secret`.
fn secret(lab: &Lab, args: &[&str]) -> String {
    let weir = PathBuf::from(env!("CARGO_BIN_EXE_weir-lab")).with_file_name("weir");
    let args: Vec<_> = std::iter::once("secret").chain(args.iter().copied()).collect();
    lab.balancer.namespace.output(&weir.to_string_lossy(), &args).expect("weir secret")
}

fn new_secret(lab: &Lab) -> PathBuf {
    let file = secret_file(lab);
    secret(lab, &["new", &file.to_string_lossy()]);
    file
}

fn set(backend: &Backend, setting: &str, value: &str) {
    backend.namespace.output("sysctl", &["-q", "-w", &format!("{setting}={value}")]).expect("a setting");
}

/// A service that speaks plain TCP, until the lab is gone.
fn serve_plainly(backend: &Backend) {
    // The kernel takes an MPTCP listener apart after its program has closed it.
    let bind = || Ok(backend.namespace.run(|| TcpListener::bind(("::", SERVICE_PORT)))?.ok());
    let listener = wait::until("the service's port is free", LIMIT, bind).expect("a port");
    thread::spawn(move || listener.incoming().for_each(drop));
}

/// An agent that takes tunnels off, and chooses tokens with an id if it is given one.
fn agent(lab: &Lab, backend: &Backend, id: Option<u16>) -> Agent {
    set(backend, "net.ipv4.tcp_timestamps", "2");
    let token = id.map_or_else(String::new, |id| {
        let secret = secret_file(lab);
        format!("[token]\nsecret = \"{}\"\nid = {id}\nmax_backends = {MAX_BACKENDS}\n", secret.display())
    });
    let agent = Agent::start_from(lab, backend, &format!("{}{token}", text(lab, backend, ""))).expect("an agent");
    if id.is_some() {
        wait_until_it_mints(&agent);
    }
    agent
}

/// Waits until it mints for every VIP, and has keys for all connections that a test opens at once.
fn wait_until_it_mints(agent: &Agent) {
    let has_keys = || {
        let samples = agent.metrics()?;
        let ready = samples.iter().find(|one| one.name == "weir_agent_keys" && one.label("state") == Some("ready"));
        Ok(ready.filter(|ready| ready.value > 100.0).map(drop))
    };
    agent
        .wait_until_minting(1)
        .and_then(|()| wait::until("it has keys", LIMIT, has_keys))
        .unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
}

fn agents(lab: &Lab) -> Vec<Agent> {
    lab.backends.iter().map(|backend| agent(lab, backend, Some(backend.number.into()))).collect()
}

fn config(lab: &Lab) -> WeirConfig {
    WeirConfig::for_lab(lab, Join::Token).with_token_secret(secret_file(lab), MAX_BACKENDS)
}

fn show(weir: &Weir, backend: &str) -> Result<Value, LabError> {
    let printed = weir.ask(&["backend", "show", backend, "--output", "json"])?;
    Ok(serde_json::from_str(&printed).expect("JSON"))
}

fn metric(weir: &Weir, name: &str, labels: &[(&str, &str)]) -> f64 {
    let samples = weir.metrics().expect("a metrics page");
    let fits = |sample: &&weir_lab::weir::Sample| {
        sample.name == name && labels.iter().all(|(label, value)| sample.label(label) == Some(value))
    };
    samples.iter().filter(fits).map(|sample| sample.value).sum()
}

/// Opens connections of all kinds, whose joins are all established.
fn open_all(lab: &Lab) -> (Vec<Connection>, u64) {
    let before = JoinTally::read(lab).expect("counters");
    let open = |index| Connection::open(&lab.client, Mix::alternating(index)).expect("a connection");
    let connections: Vec<_> = (0..CONNECTIONS).map(open).collect();
    let joins = connections.iter().map(|connection| connection.mix.joins()).sum();
    let tally = JoinTally::settled_since(&before, lab, joins, LIMIT).expect("counters");
    assert_eq!((tally.established(), tally.lost()), (joins, 0));
    (connections, joins)
}

/// Opens connections over IPv4, each of which is joined from so many addresses.
fn open_v4(lab: &Lab, addresses: usize) -> Vec<Connection> {
    let (before, joins) = (JoinTally::read(lab).expect("counters"), (CONNECTIONS * addresses) as u64);
    let connections: Vec<_> =
        (0..CONNECTIONS).map(|_| Connection::open(&lab.client, Mix::V4).expect("a connection")).collect();
    let tally = JoinTally::settled_since(&before, lab, joins, LIMIT).expect("counters");
    assert_eq!((tally.established(), tally.lost()), (joins, 0));
    connections
}

/// Has the client's kernel join so many connections over IPv4 from one more address.
fn join_again(lab: &Lab, address: &str, joins: usize) -> JoinTally {
    let before = JoinTally::read(lab).expect("counters");
    let ip = |args: &str| lab.client.namespace.output("ip", &args.split(' ').collect::<Vec<_>>()).expect("an address");
    ip(&format!("address add {address}/24 dev eth0"));
    ip(&format!("mptcp endpoint add {address} dev eth0 subflow"));
    let tally = JoinTally::settled_since(&before, lab, joins as u64, LIMIT).expect("counters");
    assert_eq!((tally.attempted, tally.lost()), (joins as u64, 0));
    tally
}

/// How many of the tokens that the backends' kernels print name another backend than their own.
fn foreign(lab: &Lab) -> usize {
    let oracle = TokenOracle::read(&secret_file(lab), MAX_BACKENDS.ilog2()).expect("a secret");
    let of = |backend: &Backend| {
        let subflows = Subflow::read(&backend.namespace).expect("ss");
        subflows.iter().filter(|flow| oracle.id(flow.token) != Some(backend.number.into())).count()
    };
    lab.backends.iter().map(of).sum()
}

#[test]
fn joins_go_where_their_tokens_say_and_the_balancer_remembers_no_token() {
    let lab = lab_of(3);
    new_secret(&lab);
    let _agents = agents(&lab);
    let mut weir = Weir::start_alone(&lab.balancer, &config(&lab)).expect("weir runs");
    let (mut connections, joins) = open_all(&lab);
    let backends: BTreeSet<_> = connections.iter().map(|open| open.backend.clone()).collect();
    assert!(backends.len() > 1, "they are spread: {backends:?}");
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let expected = joins as f64;
    let forwarded = metric(&weir, "weir_joins_total", &[("way", "token"), ("outcome", "forwarded")]);
    assert!(forwarded > expected - 0.5, "{forwarded} of {joins}");
    assert!(metric(&weir, "weir_joins_total", &[("way", "none")]).abs() < 0.5, "some were unknown");
    assert!(metric(&weir, "weir_table_entries", &[("table", "tokens")]).abs() < 0.5, "there is a token in the table");

    // A rotation that only balancers have read so far, and one more: connections of before are joined, and new ones too.
    for after in ["1h", "2h"] {
        secret(&lab, &["rotate", &secret_file(&lab).to_string_lossy(), "--after", after]);
        weir.reload(&config(&lab)).expect("it holds");
        let (more, _) = open_all(&lab);
        connections.extend(more);
    }
    for connection in &mut connections {
        connection.transfer(50_000).expect("it works");
    }
}

#[test]
fn an_id_of_a_backend_is_not_given_to_another_while_its_epoch_lives() {
    let lab = lab_of(2);
    new_secret(&lab);
    let mut weir = Weir::start(&lab, &config(&lab)).expect("weir runs");
    let alone = lab.backends.iter().take(1).map(|backend| PoolBackend { backend, weight: 100, state: "up" });
    let alone = WeirConfig::for_lab(&lab, Join::Token).with_backends(alone.collect());
    weir.reload(&alone.with_token_secret(secret_file(&lab), MAX_BACKENDS)).expect("one leaves");

    let refused = |weir: &Weir, config: &WeirConfig| {
        weir.configure(config).expect("another file");
        weir.ask(&["reload"]).expect_err("an id is given away").to_string()
    };
    let said = refused(&weir, &config(&lab).with_token_id(0, 2).with_token_id(1, 1));
    assert!(said.contains("means another backend in epoch 0 of the secret"), "{said}");
    let wider = WeirConfig::for_lab(&lab, Join::Token).with_token_secret(secret_file(&lab), 2 * MAX_BACKENDS);
    let said = refused(&weir, &wider);
    assert!(said.contains("ids have 5 bits, but in epoch 0 of the secret they have 4"), "{said}");

    // Who comes after this controller knows it too.
    weir.end_by(Signal::SIGKILL).expect("it ends");
    weir.configure(&config(&lab)).expect("the first file");
    weir.start_again().expect("another controller");
    let said = refused(&weir, &config(&lab).with_token_id(0, 2).with_token_id(1, 1));
    assert!(said.contains("means another backend in epoch 0 of the secret"), "{said}");
    weir.reload(&config(&lab)).expect("each has its own");
}

#[test]
fn an_id_is_another_backends_once_the_secret_has_been_rotated_three_times() {
    let lab = lab_of(2);
    new_secret(&lab);
    let mut weir = Weir::start(&lab, &config(&lab)).expect("weir runs");
    let first = PoolBackend { backend: &lab.backends[0], weight: 100, state: "up" };
    let alone = WeirConfig::for_lab(&lab, Join::Token).with_backends(vec![first]);
    let alone = alone.with_token_secret(secret_file(&lab), MAX_BACKENDS);
    weir.reload(&alone).expect("one leaves");
    let other = config(&lab).with_address(1, "10.71.12.99");
    for rotation in 1..=3 {
        weir.configure(&other).expect("another file");
        let said = weir.ask(&["reload"]).expect_err("its epoch is read").to_string();
        assert!(said.contains("backend \"b2\" has token_id 2, which means another backend"), "{rotation}: {said}");
        rotate(&lab);
        weir.reload(&alone).expect("one epoch more");
    }
    weir.reload(&other).expect("nobody reads an epoch that knows it");
}

/// Adds an epoch to the secret as soon as there may be one.
fn rotate(lab: &Lab) {
    let (weir, file) = (PathBuf::from(env!("CARGO_BIN_EXE_weir-lab")).with_file_name("weir"), secret_file(lab));
    let args = ["secret", "rotate", &file.to_string_lossy(), "--after", "1s"];
    let rotated = || Ok(lab.balancer.namespace.output(&weir.to_string_lossy(), &args).ok());
    wait::until("the secret has one epoch more", LIMIT, rotated).expect("rotated");
}

#[test]
fn a_backend_that_comes_back_anew_has_its_joins_and_those_of_before_go_nowhere_else() {
    let mut lab = lab_of(2);
    new_secret(&lab);
    let mut agents = agents(&lab);
    let _weir = Weir::start_alone(&lab.balancer, &config(&lab)).expect("weir runs");
    let (mut dead, mut living): (Vec<_>, Vec<_>) = open_v4(&lab, 1).into_iter().partition(|open| open.backend == "b1");
    assert!(!dead.is_empty() && !living.is_empty(), "they are spread");

    // As after a power cut: no reset gets out, and nothing is left of the keys that were given out.
    agents[0].end_by(Signal::SIGKILL).expect("it ends");
    lab.kill_backend(0).expect("no link");
    agents[0].detach().expect("it takes all away");
    lab.revive_backend(0).expect("a link");
    agents[0].start_again().expect("another agent");
    wait_until_it_mints(&agents[0]);

    let tally = join_again(&lab, "10.71.1.101", dead.len() + living.len());
    let [b1, b2] = &tally.backends[..] else { panic!("two backends") };
    assert_eq!(
        (b1.misrouted, b1.established),
        (dead.len() as u64, 0),
        "they come to their backend, which knows them not"
    );
    assert_eq!((b2.misrouted, b2.established), (0, living.len() as u64));
    let firsts: BTreeSet<_> = dead.iter().map(|connection| connection.client).collect();
    for connection in &mut dead {
        connection.say().expect("the client does not know yet");
    }
    let are_reset =
        || Ok(Flow::read(&lab.client.namespace)?.iter().all(|flow| !firsts.contains(&flow.local)).then_some(()));
    wait::until("they are reset", LIMIT, are_reset).expect("their backend knows them not");
    for connection in &mut living {
        connection.exchange().expect("it works");
    }
    let new = open_v4(&lab, 2);
    assert!(new.iter().any(|open| open.backend == "b1") && foreign(&lab) == 0);
}

#[test]
fn a_pool_turns_from_learned_tokens_to_those_that_name_backends_under_live_connections() {
    let lab = lab_of(2);
    new_secret(&lab);
    let plain_agents: Vec<_> = lab.backends.iter().map(|backend| agent(&lab, backend, None)).collect();
    let weir = Weir::start_alone(&lab.balancer, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let mut connections = open_v4(&lab, 1);
    assert!(foreign(&lab) > 0, "tokens by chance name anybody");

    drop(plain_agents);
    let _agents = agents(&lab);
    connections.extend(open_v4(&lab, 1));
    let alone = config(&lab).to_toml();
    let both = alone.replace("join = [\"token\"]", "join = [\"learn\", \"token\"]");
    assert_ne!(both, alone);
    for (addresses, address, text) in [(2, "10.71.1.101", &both), (3, "10.71.1.102", &alone)] {
        fs::write(weir.config(), text).expect("another file");
        weir.ask(&["reload"]).expect("it holds");
        let tally = join_again(&lab, address, connections.len());
        assert_eq!((tally.misrouted(), tally.established()), (0, connections.len() as u64), "{address}");
        connections.extend(open_v4(&lab, addresses));
    }
    for connection in &mut connections {
        connection.exchange().expect("it works");
    }
    assert!(metric(&weir, "weir_joins_total", &[("way", "table"), ("outcome", "forwarded")]) > 0.5);
    assert!(metric(&weir, "weir_joins_total", &[("way", "token"), ("outcome", "forwarded")]) > 0.5);
}

#[test]
fn a_check_fails_where_tokens_name_another_backend_and_is_good_where_there_is_plain_tcp() {
    let mut lab = lab_of(3);
    new_secret(&lab);
    lab.stop_server(2);
    serve_plainly(&lab.backends[2]);
    let ids = [Some(1), Some(9), None];
    let _agents: Vec<_> = lab.backends.iter().zip(ids).map(|(backend, id)| agent(&lab, backend, id)).collect();
    let health = "check = \"mptcp\"\ninterval_ms = 100\n";
    let weir = Weir::start_alone(&lab.balancer, &config(&lab).with_health(health)).expect("weir runs");
    let await_found = |backend: &str, what: &str, is_found: &dyn Fn(&Value) -> bool| {
        let found = || {
            let shown = show(&weir, backend)?;
            Ok(is_found(&shown["health"]).then_some(()))
        };
        wait::until(what, LIMIT, found)
            .unwrap_or_else(|error| panic!("{error}: {:?}: {}", show(&weir, backend), weir.log()));
    };
    await_found("b1", "b1 mints and is well", &|health| health["verdict"] == "up" && health["mints_tokens"] == true);
    await_found("b2", "b2 is down for its tokens", &|health| {
        let error = health["last_error"].as_str().unwrap_or_default();
        health["verdict"] == "down" && error.contains("its token names token_id 9, not 2")
    });
    await_found("b3", "b3 is well", &|health| health["verdict"] == "up" && health["mints_tokens"] == false);
    let told = || Ok(weir.log().contains("its token names token_id 9, not 2").then_some(()));
    wait::until("the log tells why", LIMIT, told).unwrap_or_else(|error| panic!("{error}: {}", weir.log()));
    assert!(metric(&weir, "weir_health_checks_plain_tcp_total", &[("backend", "b3")]) > 0.5);
    assert!((metric(&weir, "weir_backend_mints_tokens", &[("backend", "b1")]) - 1.0).abs() < 0.5);
}

#[test]
fn a_check_fails_where_a_server_speaks_mptcp_and_chooses_no_token() {
    let lab = lab_of(1);
    new_secret(&lab);
    let health = "check = \"mptcp\"\ninterval_ms = 100\nfall = 1\n";
    let weir = Weir::start(&lab, &config(&lab).with_health(health)).expect("weir runs");
    // One token in 64 would name this backend by chance.
    let failed = || {
        let shown = show(&weir, "b1")?;
        Ok((shown["health"]["failed"].as_u64() > Some(3)).then_some(shown))
    };
    let shown = wait::until("it fails its checks", LIMIT, failed).unwrap_or_else(|e| panic!("{e}: {}", weir.log()));
    assert!(shown["health"]["passed"].as_u64() < shown["health"]["failed"].as_u64(), "{shown}");
}
