//! What operators watch Weir by, with a real Prometheus that scrapes a real balancer and real agents as docs/monitoring.md
//! says: each query of the dashboard has data, no alert is near while all is well, and the right ones come when it is not.
//! Needs root and the `weir` command.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_lab::{
    Backend, Lab, LabError,
    addresses::BALANCER,
    oracle::JoinTally,
    process::Process,
    traffic::{Connection, Mix},
    wait,
    weir::{Agent, Bus, Join, Weir, WeirConfig, agent},
};

const LIMIT: Duration = Duration::from_mins(2);
const CONNECTIONS: usize = 12;
/// Keys that an agent keeps ready: more than the connections and checks of a moment.
const KEYS: u32 = 512;
const LISTEN: &str = "127.0.0.1:9107";
const PROMETHEUS: &str = "127.0.0.1:9090";
/// Panels without data while all is well, and why.
const EMPTY_IS_GOOD: [(&str, &str); 1] = [("Alerts that fire", "none is to fire while all is well")];

/// A lab with all that can be watched: a bus, a balancer that checks its backends, and agents that choose tokens.
struct Watched {
    connections: Vec<Connection>,
    prometheus: Process,
    agents: Vec<Agent>,
    weir: Weir,
    bus: Process,
    /// Last, so that all that runs in it is gone before.
    lab: Lab,
}

impl Watched {
    fn start() -> Self {
        let lab = Lab::builder().backends(2.try_into().expect("two")).build().expect("a lab");
        let bus = start_bus(&lab);
        let weir_program = PathBuf::from(env!("CARGO_BIN_EXE_weir-lab")).with_file_name("weir");
        let secret = agent::token_secret(&lab);
        let args = ["secret", "new", &secret.to_string_lossy()];
        lab.balancer.namespace.output(&weir_program.to_string_lossy(), &args).expect("a secret");
        let agents: Vec<_> = lab.backends.iter().map(|backend| start_agent(&lab, backend)).collect();
        let config = WeirConfig::for_lab(&lab, Join::Token)
            .with_token_secret(secret, agent::TOKEN_BACKENDS)
            .with_bus(member("lb1"))
            .with_health("check = \"mptcp\"\ninterval_ms = 500\n");
        let weir = Weir::start_alone(&lab.balancer, &config).expect("weir runs");
        let prometheus = start_prometheus(&lab);
        Self { connections: Vec::new(), prometheus, agents, weir, bus, lab }
    }

    /// What Prometheus answers, a line for each series; nothing where it has no data.
    fn ask(&self, query: &str) -> Result<String, LabError> {
        let server = format!("http://{PROMETHEUS}");
        self.lab.balancer.namespace.output("promtool", &["query", "instant", &server, query])
    }

    /// Waits until one series of an answer is a number.
    fn await_data(&self, what: &str, query: &str) {
        let has_data = || Ok(self.ask(query)?.lines().any(is_number).then_some(()));
        let found = wait::until(&format!("{what}: {query} has data"), LIMIT, has_data);
        found.unwrap_or_else(|error| panic!("{error}\n{}", self.prometheus.log()));
    }

    /// Waits until an alert is on its way, which fires when its time is over.
    fn await_alert(&self, name: &str) {
        self.await_data(name, &format!("ALERTS{{alertname=\"{name}\"}}"));
    }

    fn open_connections(&mut self) {
        let before = JoinTally::read(&self.lab).expect("counters");
        let open = |index| Connection::open(&self.lab.client, Mix::alternating(index)).expect("a connection");
        self.connections = (0..CONNECTIONS).map(open).collect();
        let joins = (0..CONNECTIONS).map(|index| Mix::alternating(index).joins()).sum();
        let tally = JoinTally::settled_since(&before, &self.lab, joins, LIMIT).expect("counters");
        assert_eq!((tally.established(), tally.lost()), (joins, 0));
    }
}

fn start_bus(lab: &Lab) -> Process {
    let (namespace, store) = (&lab.balancer.namespace, lab.directory().join("jetstream"));
    let args = ["--addr", "0.0.0.0", "--port", "4222", "--jetstream", "--store_dir", &store.to_string_lossy()];
    let log = lab.directory().join("nats.log");
    let mut bus = Process::start(namespace, Path::new("nats-server"), &args, log).expect("nats-server starts");
    bus.wait_until("listens", LIMIT, |bus| Ok(bus.log().contains("Server is ready"))).expect("a bus");
    bus
}

fn member(name: &str) -> Bus {
    Bus { servers: vec![format!("nats://{}:4222", BALANCER.v4)], cluster: "lab", name: name.to_owned() }
}

/// An agent that chooses tokens, and may be scraped from elsewhere.
fn start_agent(lab: &Lab, backend: &Backend) -> Agent {
    backend.namespace.output("sysctl", &["-q", "-w", "net.ipv4.tcp_timestamps=2"]).expect("a setting");
    let text = agent::text(lab, backend, "");
    assert!(text.contains(LISTEN), "{text}");
    let text = text.replace(LISTEN, "0.0.0.0:9107");
    let Bus { servers, cluster, name } = member(&backend.name);
    let bus = format!("[bus]\nservers = {servers:?}\ncluster = {cluster:?}\nname = {name:?}\n");
    let (secret, id, max) = (agent::token_secret(lab), backend.number, agent::TOKEN_BACKENDS);
    let token = format!("[token]\nsecret = \"{}\"\nid = {id}\nmax_backends = {max}\nkeys = {KEYS}\n", secret.display());
    let agent = Agent::start_from(lab, backend, &format!("{text}{bus}{token}")).expect("an agent");
    agent.wait_until_minting(1).unwrap_or_else(|error| panic!("{error}: {}", agent.log()));
    agent
}

fn start_prometheus(lab: &Lab) -> Process {
    let agents: Vec<_> = lab.backends.iter().map(|backend| format!("{}:9107", backend.address.v4)).collect();
    let (file, data) = (lab.directory().join("prometheus.yml"), lab.directory().join("prometheus"));
    fs::write(&file, configuration(&agents)).expect("a configuration");
    let args = [
        format!("--config.file={}", file.display()),
        format!("--storage.tsdb.path={}", data.display()),
        format!("--web.listen-address={PROMETHEUS}"),
    ];
    let args = args.each_ref().map(String::as_str);
    let log = lab.directory().join("prometheus.log");
    let mut prometheus = Process::start(&lab.balancer.namespace, Path::new("prometheus"), &args, log)
        .expect("prometheus is installed: `cargo xtask setup` does it");
    prometheus.wait_until("is ready", LIMIT, |it| Ok(it.log().contains("Server is ready"))).expect("a Prometheus");
    prometheus
}

/// The configuration that the document shows, quicker and with the lab's own targets and the repository's rules.
fn configuration(agents: &[String]) -> String {
    let document = read("docs/monitoring.md");
    let (_, rest) = document.split_once("```yaml\n").expect("the document shows a configuration");
    let (shown, _) = rest.split_once("```").expect("the block ends");
    let rules = root().join("deploy/monitoring/weir.rules.yml").display().to_string();
    let mut text = shown.to_owned();
    for (theirs, ours) in [
        ("15s", "1s"),
        ("/etc/prometheus/weir.rules.yml", &rules),
        ("[\"lb1:9107\", \"lb2:9107\"]", &format!("{:?}", [LISTEN])),
        ("[\"web1:9108\", \"web2:9108\"]", &format!("{agents:?}")),
    ] {
        assert!(text.contains(theirs), "the document does not show {theirs}:\n{shown}");
        text = text.replace(theirs, ours);
    }
    text
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Whether a line of promtool, `{...} => VALUE @[TIME]`, has a number.
fn is_number(line: &str) -> bool {
    let value = line.rsplit_once(" => ").and_then(|(_, rest)| rest.split_whitespace().next());
    value.and_then(|value| value.parse::<f64>().ok()).is_some_and(|value| !value.is_nan())
}

/// The queries of the dashboard, as Grafana sends them with all instances and pools, each with its panel's title.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/monitoring/weir-dashboard.json")).expect("JSON");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let filled = |query: &str| {
        let query = query.replace("$__rate_interval", "5m");
        ["$instance", "$pool", "$agent"].iter().fold(query, |query, variable| query.replace(variable, ".+"))
    };
    let mut queries = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            queries.push((text(&panel["title"]), filled(&text(&target["expr"]))));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        let query = text(&variable["query"]["query"]);
        let inside = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        if let Some((series, label)) = inside.and_then(|inside| inside.rsplit_once(", ")) {
            queries.push((format!("variable {}", variable["name"]), filled(&format!("group by ({label}) ({series})"))));
        }
    }
    queries
}

#[test]
fn every_query_has_data_and_alerts_come_when_something_is_wrong_and_only_then() {
    let mut watched = Watched::start();
    watched.await_data("all are scraped", "count(up == 1) == 3");
    watched.open_connections();
    let queries = queries();
    assert!(queries.len() > 60, "{queries:?}");
    for (panel, query) in &queries {
        if EMPTY_IS_GOOD.iter().any(|(name, _)| name == panel) {
            watched.ask(query).unwrap_or_else(|error| panic!("{panel}: {error}"));
        } else {
            watched.await_data(panel, query);
        }
    }
    watched.await_data("the rules are evaluated", "weir:table_fill:ratio and on () weir:joins_missed:ratio5m == 0");
    let calm = || Ok(watched.ask("ALERTS")?.trim().is_empty().then_some(()));
    wait::until("no alert is near", LIMIT, calm).unwrap_or_else(|error| panic!("{error}: {:?}", watched.ask("ALERTS")));

    watched.weir.reload_text("nonsense").expect("it is refused");
    watched.await_alert("WeirReloadFailed");
    watched.lab.stop_server(1);
    watched.await_alert("WeirBackendUnhealthy");
    watched.lab.stop_server(0);
    watched.await_alert("WeirPoolFailsOpen");
    watched.bus.end_by(Signal::SIGKILL).expect("it ends");
    watched.await_alert("WeirBusDisconnected");
    watched.agents[0].end_by(Signal::SIGKILL).expect("it ends");
    watched.await_alert("WeirAgentDown");
    watched.weir.end_by(Signal::SIGKILL).expect("it ends");
    watched.await_alert("WeirDown");
    watched.await_alert("WeirAbsent");
}
