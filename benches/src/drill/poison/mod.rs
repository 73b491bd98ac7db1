//! The poisoning drill: somebody completes handshakes and echoes the keys of other clients' servers, sends third packets
//! of handshakes that never began, and floods the balancers with handshakes that no server sees. What that did to others is
//! told by their kernels: each of their connections is joined once more.

pub(super) mod forger;
mod frames;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::Screen;
use crate::{
    BackendCount, Lab, LabError,
    fleet::Fleet,
    oracle::JoinTally,
    sockets,
    traffic::{Connection, Mix},
    wait,
    weir::{Join, Weir},
};
use forger::{Forger, overhear};

const BALANCERS: u8 = 2;
/// A join whose SYN is dropped comes again after 1 s and 3 s, and then is given up.
const JOIN_LIMIT: Duration = Duration::from_secs(8);
/// What has been sent, and what is known, is counted in this time.
const COUNT_LIMIT: Duration = Duration::from_mins(1);
/// An address that the client gets to join from.
const NEW_ADDRESS: &str = "10.71.1.7";
/// Why a balancer did not learn from a third packet, or not only.
const REASONS: [&str; 5] = ["learn_ambiguous", "learn_full", "learn_over_budget", "learn_repeated", "learn_unseen"];

/// How joins find their connections: by what somebody has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ways {
    /// By tokens that balancers learn from clients
    Learn,
    /// By tokens that the backends' agents tell
    Report,
}

impl From<Ways> for Join {
    fn from(ways: Ways) -> Self {
        match ways {
            Ways::Learn => Self::Learn,
            Ways::Report => Self::Report,
        }
    }
}

/// What to run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// How joins find their connections
    #[arg(long, value_enum)]
    pub ways: Ways,
    /// How many connections are to be poisoned
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// How many third packets without a handshake, and how many handshakes that no server sees
    #[arg(long, default_value_t = 10_000)]
    pub forged: usize,
    /// How many backends (2 to 64)
    #[arg(long, default_value = "4", value_parser = super::two_or_more)]
    pub backends: BackendCount,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// The figures of the drill: the one object that `--json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `poison`.
    pub drill: &'static str,
    /// How joins found their connections.
    pub ways: Ways,
    /// Connections that somebody tried to poison.
    pub connections: usize,
    /// Those that broke.
    pub connections_broken: usize,
    /// Handshakes with a backend that echoed the key of one of them.
    pub keys_echoed: usize,
    /// Third packets of handshakes that never began, with the same keys.
    pub third_packets_spoofed: usize,
    /// Handshakes that no server sees, with keys that nobody has.
    pub handshakes_pretended: usize,
    /// Joins that the client's kernel began after all that.
    pub joins_attempted: u64,
    /// Those that the right backend's kernel completed.
    pub joins_established: u64,
    /// Those that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
    /// Tokens that a balancer had in its table at most, before all that and after.
    pub tokens: [u64; 2],
    /// Third packets that taught the balancers nothing, or what is ambiguous now, by reason.
    pub counted: BTreeMap<&'static str, u64>,
}

/// Runs the drill, showing on `screen` what happens; returns the figures, and what Weir did not keep of its promise.
///
/// # Errors
///
/// If the fleet cannot be built, or a signal asks for the end.
pub fn run(options: Options, screen: Screen) -> Result<(Report, Vec<String>), LabError> {
    sockets::allow_many()?;
    screen.introduce_poison(options);
    let lab = Lab::builder().backends(options.backends).round_trip(Duration::ZERO).build()?;
    let fleet = Fleet::start(lab, BALANCERS, options.ways.into(), true)?;
    let lab = &fleet.lab;

    let (mut victims, keys) = overhear(lab, || open(lab, options.connections))?;
    let keys: Vec<_> = keys.into_iter().collect();
    screen.step(&format!("{} connections, and somebody has overheard {} keys", victims.len(), keys.len()));
    let tokens_before = tokens(&fleet)?;

    let forger = Forger::place(lab)?;
    let keys_echoed = forger.echo(&keys).map_err(LabError::system("forge packets"))?;
    screen.step(&format!("{keys_echoed} handshakes have echoed one of them"));
    forger.spoof(&keys, options.forged).map_err(LabError::system("forge packets"))?;
    forger.pretend(options.forged).map_err(LabError::system("forge packets"))?;
    let counted = settled(&fleet)?;
    screen.step(&format!("{} third packets of no handshake, and as many handshakes of no server", options.forged));

    let before = JoinTally::read(lab)?;
    join_again(lab)?;
    let joins = JoinTally::settled_since(&before, lab, victims.len() as u64, JOIN_LIMIT)?;
    let connections_broken = victims.iter_mut().filter_map(|victim| victim.exchange().err()).count();
    let report = Report {
        drill: "poison",
        ways: options.ways,
        connections: victims.len(),
        connections_broken,
        keys_echoed,
        third_packets_spoofed: options.forged,
        handshakes_pretended: options.forged,
        joins_attempted: joins.attempted,
        joins_established: joins.established(),
        joins_misrouted: joins.misrouted(),
        tokens: [tokens_before, tokens(&fleet)?],
        counted,
    };
    let failures = report.objections();
    screen.conclude_poison(&report, &failures);
    Ok((report, failures))
}

/// Opens connections whose keys can be overheard, and waits for their joins.
fn open(lab: &Lab, count: usize) -> Result<Vec<Connection>, LabError> {
    let before = JoinTally::read(lab)?;
    let opened: Result<Vec<_>, _> = (0..count).map(|_| Connection::open(&lab.client, Mix::V4)).collect();
    JoinTally::settled_since(&before, lab, count as u64, JOIN_LIMIT)?;
    opened
}

/// Has the client's kernel join each of its connections once more.
fn join_again(lab: &Lab) -> Result<(), LabError> {
    lab.client.namespace.ip_batch(&format!(
        "address add {NEW_ADDRESS}/24 dev eth0\nmptcp endpoint add {NEW_ADDRESS} dev eth0 subflow\n"
    ))
}

/// The most tokens that a balancer has now: they are counted now and then.
fn tokens(fleet: &Fleet) -> Result<u64, LabError> {
    let begun = Instant::now();
    let mut most = 0;
    for weir in fleet.weirs() {
        let entries = wait::until("the tokens are counted", COUNT_LIMIT, || {
            let printed = weir.ask(&["tokens", "--output", "json"])?;
            let answer: serde_json::Value = serde_json::from_str(&printed).unwrap_or_default();
            let (Some(entries), Some(age)) = (answer["entries"].as_u64(), answer["counted_s_ago"].as_u64()) else {
                return Err(LabError::Output { program: "weir tokens", line: printed });
            };
            // The age is cut to whole seconds.
            Ok((Duration::from_secs(age + 1) <= begun.elapsed()).then_some(entries))
        })?;
        most = most.max(entries);
    }
    Ok(most)
}

/// What all balancers have counted, when it no longer grows.
fn settled(fleet: &Fleet) -> Result<BTreeMap<&'static str, u64>, LabError> {
    let mut last = None;
    wait::until("what was sent is counted", COUNT_LIMIT, || {
        let mut counted: BTreeMap<_, u64> = REASONS.iter().map(|reason| (*reason, 0)).collect();
        for weir in fleet.weirs() {
            for (reason, count) in reasons(weir)? {
                if let Some(sum) = counted.get_mut(reason.as_str()) {
                    *sum += count;
                }
            }
        }
        let is_settled = last.as_ref() == Some(&counted);
        last = Some(counted.clone());
        Ok(is_settled.then_some(counted))
    })
}

/// The packets of all VIPs, by reason.
fn reasons(weir: &Weir) -> Result<Vec<(String, u64)>, LabError> {
    let printed = weir.ask(&["status", "--output", "json"])?;
    let answer: Answer =
        serde_json::from_str(&printed).map_err(|_| LabError::Output { program: "weir status", line: printed })?;
    Ok(answer.vips.into_iter().flat_map(|vip| vip.reasons).collect())
}

#[derive(Deserialize)]
struct Answer {
    vips: Vec<Vip>,
}

#[derive(Deserialize)]
struct Vip {
    reasons: Vec<(String, u64)>,
}

impl Report {
    /// What should not be.
    fn objections(&self) -> Vec<String> {
        let lost = self.joins_attempted.saturating_sub(self.joins_established + self.joins_misrouted);
        let [before, after] = self.tokens;
        let (echoed, pretended) = (self.keys_echoed as u64, self.handshakes_pretended as u64);
        let mut objections = Vec::new();
        let mut object = |is_so: bool, what: String| {
            if is_so {
                objections.push(what);
            }
        };
        object(self.joins_attempted < self.connections as u64, "not every connection was joined again".to_owned());
        object(self.keys_echoed < self.connections, "not every key was echoed".to_owned());
        object(self.connections_broken > 0, format!("{} connections broke", self.connections_broken));
        object(self.joins_misrouted > 0, format!("{} joins were misrouted", self.joins_misrouted));
        if self.ways == Ways::Learn {
            // A handshake poisons one token at most, and what a network may teach is limited.
            object(lost > echoed, format!("{lost} joins were lost to {echoed} handshakes"));
            object(self.counted["learn_ambiguous"] < lost, format!("{lost} joins were lost, but not noticed before"));
            object(after - before > echoed + pretended, "third packets of no handshake have taught tokens".to_owned());
            let unseen = self.counted["learn_unseen"];
            object(
                unseen < self.third_packets_spoofed as u64,
                format!("only {unseen} third packets were seen through"),
            );
        } else {
            object(lost > 0, format!("{lost} joins were lost"));
            // The backends that were really connected to have tokens for that.
            let grown = after.saturating_sub(before);
            object(grown > echoed, format!("{grown} tokens more, but {echoed} connections"));
        }
        objections
    }
}
