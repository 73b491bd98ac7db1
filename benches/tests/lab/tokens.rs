//! The tokens that Weir learns are those that the backends' kernels gave out, each at its backend. `bpftool` reads its
//! table from outside, and `ss` and `ip mptcp monitor` say what is right. Needs root and the `weir` command
//! (`cargo test --workspace` builds it).

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;
use weir_lab::{
    Lab,
    oracle::{Monitor, Subflow, Token, open_joined},
    topology::INTERFACE,
    traffic::Connection,
    weir::{Join, Weir, WeirConfig},
};

const CONNECTIONS: usize = 12;
const LIMIT: Duration = Duration::from_secs(10);

/// Tokens, each with the number of its backend.
type Tokens = BTreeMap<Token, u64>;

/// Runs a tool in the balancer's namespace and reads the JSON that it prints.
fn json(lab: &Lab, program: &str, args: &[&str]) -> Value {
    let printed = lab.balancer.namespace.output(program, args).expect("it runs");
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{program} {args:?}: {error}"))
}

/// The token table of the program that is on the balancer's interface.
fn table(lab: &Lab) -> Vec<Value> {
    let link = json(lab, "ip", &["-json", "-details", "link", "show", "dev", INTERFACE]);
    let program = link[0]["xdp"]["prog"]["id"].to_string();
    let program = json(lab, "bpftool", &["--json", "prog", "show", "id", &program]);
    let maps = program["map_ids"].as_array().expect("the program's maps").iter().map(Value::to_string);
    let is_tokens = |map: &String| json(lab, "bpftool", &["--json", "map", "show", "id", map])["name"] == "weir_tokens";
    let map = maps.into_iter().find(is_tokens).expect("a table of tokens");
    let dump = json(lab, "bpftool", &["--json", "map", "dump", "id", &map]);
    dump.as_array().expect("a list").iter().map(|entry| entry["formatted"].clone()).collect()
}

/// The token of an entry, as a number.
fn number(entry: &Value) -> u64 {
    let bytes = entry["key"]["token"]["__0"].as_array().expect("four bytes").iter();
    bytes.fold(0, |number, byte| number << 8 | byte.as_u64().expect("a byte"))
}

/// The connections that Weir has learned of.
fn learned(lab: &Lab) -> Tokens {
    table(lab).iter().map(connection).collect()
}

/// A token and its one holder.
fn connection(entry: &Value) -> (Token, u64) {
    let holders = entry["value"]["holders"].as_array().expect("two holders");
    let states = [&holders[0]["state"], &holders[1]["state"]];
    assert_eq!(states, [1, 0], "one open connection holds the token");
    let backend = holders[0]["backend"]["__0"].as_u64().expect("a number");
    (Token::parse(&format!("{:08x}", number(entry))).expect("hexadecimal"), backend)
}

/// What the backends' kernels say: the connections that were created, and those that their sockets belong to.
fn given_out(lab: &Lab, monitors: &[Monitor]) -> [Tokens; 2] {
    let (mut created, mut open) = (Tokens::new(), Tokens::new());
    for (backend, monitor) in lab.backends.iter().zip(monitors) {
        let number = u64::from(backend.number);
        created.extend(monitor.created().into_iter().map(|token| (token, number)));
        let subflows = Subflow::read(&backend.namespace).expect("ss");
        open.extend(subflows.into_iter().map(|subflow| (subflow.token, number)));
    }
    [created, open]
}

/// Opens connections of all kinds and waits until their joins have ended.
fn open_all(lab: &Lab) -> Vec<Connection> {
    let (connections, tally) = open_joined(lab, CONNECTIONS, LIMIT).expect("connections");
    let joins = connections.iter().map(|connection| connection.mix.joins()).sum();
    assert_eq!((tally.attempted, tally.lost()), (joins, 0));
    connections
}

#[test]
fn learned_tokens_are_those_of_the_backends_kernels() {
    let lab = Lab::builder().build().expect("a lab");
    let _weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let monitors: Vec<_> = lab.backends.iter().map(|backend| Monitor::start(backend).expect("a monitor")).collect();
    let _open = open_all(&lab);

    let [created, open] = given_out(&lab, &monitors);
    assert_eq!(open.len(), CONNECTIONS, "every connection speaks MPTCP");
    assert!(created == open, "`ip mptcp monitor` and `ss` disagree");
    assert!(learned(&lab) == open, "Weir learned other tokens than the kernels gave out, or put them elsewhere");
}

#[test]
fn case_88_no_token_and_no_client_is_in_the_metrics_or_the_log() {
    let lab = Lab::builder().build().expect("a lab");
    let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let open = open_all(&lab);
    let metrics = format!("{:?}", weir.metrics().expect("the metrics page"));
    assert!(metrics.contains("\"learned\""), "the page is of this run: {metrics}");
    let said = weir.log() + &metrics;
    let entries = table(&lab);
    assert_eq!(entries.len(), CONNECTIONS);
    for token in entries.iter().map(number) {
        let written = [format!("{token:08x}"), format!("{token:08X}"), token.to_string()];
        assert!(!written.iter().any(|word| said.contains(word)), "a token is told");
    }
    for connection in open {
        assert!(!said.contains(&connection.client.ip().to_string()), "a client is told: {said}");
    }
}

#[test]
fn where_joins_are_off_nothing_is_learned() {
    let lab = Lab::builder().build().expect("a lab");
    let _weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Off)).expect("weir runs");
    let _open = open_all(&lab);
    assert!(learned(&lab).is_empty());
}
