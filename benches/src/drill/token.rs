//! The drills of stateless tokens: many joins at once, secrets that are rotated, agents that die, and very many
//! connections. The balancers have no bus, so nothing but the token tells where a join belongs; whose a token is says
//! another implementation of the hash, about what the backends' kernels print.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde::Serialize;

use super::{Screen, fleet::Traffic, poison::forger::Forger};
use crate::{
    BackendCount, Lab, LabError,
    fleet::Fleet,
    oracle::{Counters, JoinTally, Subflow, TokenOracle},
    sockets,
    traffic::Mix,
    wait,
    weir::{
        Join,
        agent::{TOKEN_BACKENDS, token_secret},
    },
};

const BALANCERS: u8 = 2;
/// A join whose SYN is dropped comes again after 1 s and 3 s; a busy machine adds to that.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// An agent that is dead mints for a minute; a new epoch begins within seconds.
const MINT_LIMIT: Duration = Duration::from_mins(3);
/// Until the agents make tokens of a new epoch.
const AFTER: &str = "3s";
/// How often secrets are rotated: more often than there are epochs.
const ROTATIONS: u32 = 5;
const EPOCHS: u32 = 4;
/// Connections that are opened before the tokens are looked at.
const BATCH: usize = 1000;
/// What the client's kernel counts for a connection that the server answered as plain TCP.
const FALLBACKS: &str = "MPTcpExtMPCapableFallbackSYNACK";

/// What is drilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// All connections are joined at once.
    TokenBurst,
    /// The secret is rotated while connections live.
    Rotate,
    /// All agents are killed, and started again.
    AgentKill,
    /// Very many connections, one after the other.
    Tokens,
}

/// What to run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// How many connections are opened, all in all
    #[arg(long, default_value_t = 1000)]
    pub connections: usize,
    /// The client's round trip to the router, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub rtt: u64,
    /// How many backends (2 to 64)
    #[arg(long, default_value = "4", value_parser = super::two_or_more)]
    pub backends: BackendCount,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// What else is on the way while all connections are joined at once.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Disturbance {
    /// Have the line to the client deliver each of its SYNs twice
    #[arg(long)]
    pub duplicate_syns: bool,
    /// Have another client send joins with the token of its own connection, so many in a second
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub spray: u32,
}

/// The figures of a drill: the one object that `--json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which.
    pub drill: Kind,
    /// The client's round trip, at least.
    pub rtt_ms: u64,
    /// Connections opened.
    pub connections: usize,
    /// Those that did not come about, or broke.
    pub connections_broken: usize,
    /// Those that the backends answered as plain TCP: nothing is to be joined.
    pub plain: u64,
    /// Joins that the client's kernel began.
    pub joins_attempted: u64,
    /// Joins that the right backend's kernel completed.
    pub joins_established: u64,
    /// Joins that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
    /// Tokens of connections that the backends' kernels printed.
    pub tokens: u64,
    /// Those of them that name another backend, or none.
    pub tokens_foreign: u64,
    /// Epochs that tokens were of, one after the other.
    pub epochs: u64,
    /// Tokens in the tables of the balancers.
    pub tokens_in_tables: u64,
    /// Frames that the delay line had no room for.
    pub frames_lost: u64,
    /// Whether each SYN came twice.
    pub duplicate_syns: bool,
    /// Joins that another client has sent with its own token.
    pub sprayed: u64,
}

/// A drill that is under way.
struct Drill {
    options: Options,
    screen: Screen,
    fleet: Fleet,
    traffic: Traffic,
    report: Report,
    before: (JoinTally, Counters),
    addresses: u8,
    failures: Vec<String>,
}

/// Runs a drill, showing on `screen` what happens; returns the figures, and what Weir did not keep of its promise.
///
/// # Errors
///
/// If the fleet cannot be built, or a signal asks for the end.
pub fn run(
    kind: Kind,
    options: Options,
    disturbance: Disturbance,
    screen: Screen,
) -> Result<(Report, Vec<String>), LabError> {
    sockets::allow_many()?;
    screen.introduce_token(kind, options);
    let lab = Lab::builder().backends(options.backends).round_trip(Duration::from_millis(options.rtt));
    let lab = if disturbance.duplicate_syns { lab.duplicating_syns() } else { lab }.build()?;
    let fleet = Fleet::start(lab, BALANCERS, Join::Token, false)?;
    let before = (JoinTally::read(&fleet.lab)?, Counters::read(&fleet.lab.client.namespace)?);
    let report = Report { duplicate_syns: disturbance.duplicate_syns, ..Report::of(kind, options) };
    let traffic = Traffic::default();
    let mut drill = Drill { options, screen, fleet, traffic, report, before, addresses: 0, failures: Vec::new() };
    match kind {
        Kind::TokenBurst => drill.burst(disturbance.spray)?,
        Kind::Rotate => drill.rotate()?,
        Kind::AgentKill => drill.kill_agents()?,
        Kind::Tokens => drill.open_very_many()?,
    }
    drill.end()
}

impl Drill {
    /// All connections are there, and are joined from a new address at once.
    fn burst(&mut self, spray: u32) -> Result<(), LabError> {
        self.open(self.options.connections)?;
        self.look_at_tokens()?;
        if spray == 0 {
            return self.join_again();
        }
        let (forger, ended) = (Forger::place(&self.fleet.lab)?, AtomicBool::new(false));
        let own = forger.connect().map_err(LabError::system("open the connection of who sprays"))?;
        let own = wait::until("a backend has the connection of who sprays", JOIN_LIMIT, || {
            Ok(self.subflows()?.into_iter().find(|(_, subflow)| Some(subflow.peer) == own))
        })?;
        let sprayed = thread::scope(|scope| {
            let spraying = scope.spawn(|| forger.spray(own.1.token.number(), spray, &ended));
            let joined = self.join_again();
            ended.store(true, Ordering::Relaxed);
            let sprayed = spraying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            joined.map(|()| sprayed)
        })?;
        self.report.sprayed = sprayed.map_err(LabError::system("spray joins"))?;
        self.screen.step(&format!("meanwhile somebody has sent {} joins with a token of its own", self.report.sprayed));
        Ok(())
    }

    /// Connections of every epoch live on, and are joined anew after each rotation.
    fn rotate(&mut self) -> Result<(), LabError> {
        let share = self.options.connections / (ROTATIONS as usize + 1);
        self.open(share)?;
        for rotation in 1..=ROTATIONS {
            let epoch = rotation % EPOCHS;
            self.fleet.rotate_secret(AFTER)?;
            let held = std::mem::take(&mut self.traffic);
            // Each backend turns when it has found enough new keys.
            let mut turned = BTreeSet::new();
            wait::until("every backend makes tokens of the new epoch", MINT_LIMIT, || {
                self.open(1)?;
                let new = self.subflows()?.into_iter().filter(|(_, flow)| TokenOracle::epoch(flow.token) == epoch);
                turned.extend(new.map(|(backend, _)| backend));
                Ok((turned.len() == self.fleet.lab.backends.len()).then_some(()))
            })?;
            // Those that have only asked may be older than the epochs that are read in the end.
            self.close();
            let asked = std::mem::replace(&mut self.traffic, held);
            self.traffic.broken.extend(asked.broken);
            self.report.epochs += 1;
            self.open(share)?;
            self.look_at_tokens()?;
            self.screen.step(&format!("epoch {epoch} has begun"));
            if self.report.epochs == 3 {
                // Three epochs are read at a time: who is older than that is no longer joined.
                self.join_again()?;
                self.close();
            }
        }
        self.join_again()
    }

    /// Without agents connections are plain TCP after a while, and those before are joined all the same.
    fn kill_agents(&mut self) -> Result<(), LabError> {
        let share = self.options.connections / 4;
        self.open(share)?;
        self.fleet.end_agents(Signal::SIGKILL)?;
        self.open(share)?;
        let plain_before = self.plain()?;
        wait::until("connections are plain TCP", MINT_LIMIT, || {
            self.open(1)?;
            Ok((self.plain()? > plain_before).then_some(()))
        })?;
        self.open(share)?;
        self.look_at_tokens()?;
        self.screen.step(&format!("the agents are dead, and {} connections are plain TCP", self.plain()?));
        self.fleet.restart_agents()?;
        self.open(share)?;
        self.look_at_tokens()?;
        self.join_again()
    }

    fn open_very_many(&mut self) -> Result<(), LabError> {
        while self.report.connections < self.options.connections {
            self.open(BATCH.min(self.options.connections - self.report.connections))?;
            self.look_at_tokens()?;
            self.close();
            if self.report.connections.is_multiple_of(10 * BATCH) {
                let Report { connections, tokens, tokens_foreign, .. } = &self.report;
                self.screen
                    .step(&format!("{connections} connections, {tokens} tokens, {tokens_foreign} of them foreign"));
            }
        }
        Ok(())
    }

    /// Opens connections, and waits for the joins of those that are MPTCP.
    fn open(&mut self, count: usize) -> Result<(), LabError> {
        let (joins, plain) = (JoinTally::read(&self.fleet.lab)?, self.plain()?);
        let (opened, failed) = Traffic::open(&self.fleet.lab.client, &vec![Mix::V4; count])?;
        self.report.connections += count;
        self.traffic.take(opened);
        self.traffic.broken.extend(failed);
        let minted = count as u64 - (self.plain()? - plain).min(count as u64);
        JoinTally::settled_since(&joins, &self.fleet.lab, minted, JOIN_LIMIT)?;
        Ok(())
    }

    /// Has the client's kernel join every MPTCP connection from an address that it did not have.
    fn join_again(&mut self) -> Result<(), LabError> {
        self.traffic.exchange();
        self.addresses += 1;
        let before = JoinTally::read(&self.fleet.lab)?;
        let wanted = self.traffic.count() as u64 - self.plain()?.min(self.traffic.count() as u64);
        let address = format!("10.71.1.{}", 100 + self.addresses);
        self.fleet
            .lab
            .client
            .namespace
            .ip_batch(&format!("address add {address}/24 dev eth0\nmptcp endpoint add {address} dev eth0 subflow\n"))?;
        let joins = JoinTally::settled_since(&before, &self.fleet.lab, wanted, JOIN_LIMIT)?;
        if joins.established() < wanted {
            self.failures.push(format!("of {wanted} joins at once {} were established", joins.established()));
        }
        self.screen.step(&format!("{} of {wanted} joins at once were established", joins.established()));
        Ok(())
    }

    fn close(&mut self) {
        self.traffic.exchange();
        self.traffic.close();
    }

    /// Connections that the backends answered as plain TCP so far.
    fn plain(&self) -> Result<u64, LabError> {
        let now = Counters::read(&self.fleet.lab.client.namespace)?;
        Ok(now.value(FALLBACKS) - self.before.1.value(FALLBACKS))
    }

    fn oracle(&self) -> Result<TokenOracle, LabError> {
        TokenOracle::read(&token_secret(&self.fleet.lab), TOKEN_BACKENDS.ilog2())
    }

    fn subflows(&self) -> Result<Vec<(u8, Subflow)>, LabError> {
        let mut subflows = Vec::new();
        for backend in &self.fleet.lab.backends {
            subflows.extend(Subflow::read(&backend.namespace)?.into_iter().map(|subflow| (backend.number, subflow)));
        }
        Ok(subflows)
    }

    /// Sees whose the tokens are that the backends' kernels have.
    fn look_at_tokens(&mut self) -> Result<(), LabError> {
        let oracle = self.oracle()?;
        for (number, subflow) in self.subflows()? {
            self.report.tokens += 1;
            self.report.tokens_foreign += u64::from(oracle.id(subflow.token) != Some(number.into()));
        }
        Ok(())
    }

    fn end(mut self) -> Result<(Report, Vec<String>), LabError> {
        self.traffic.exchange();
        let joins = &JoinTally::read(&self.fleet.lab)? - &self.before.0;
        let frames_lost = self.fleet.lab.line.as_ref().map_or(Ok(0), |line| line.tally().map(|tally| tally.lost))?;
        let report = Report {
            connections_broken: self.traffic.broken.len(),
            plain: self.plain()?,
            joins_attempted: joins.attempted,
            joins_established: joins.established(),
            joins_misrouted: joins.misrouted(),
            tokens_in_tables: self.fleet.tokens_in_tables()?,
            frames_lost,
            ..self.report
        };
        self.failures.append(&mut self.traffic.broken);
        self.failures.extend(report.objections());
        self.screen.conclude_token(&report, &self.failures);
        Ok((report, self.failures))
    }
}

impl Report {
    const fn of(drill: Kind, options: Options) -> Self {
        Self {
            drill,
            rtt_ms: options.rtt,
            connections: 0,
            connections_broken: 0,
            plain: 0,
            joins_attempted: 0,
            joins_established: 0,
            joins_misrouted: 0,
            tokens: 0,
            tokens_foreign: 0,
            epochs: 1,
            tokens_in_tables: 0,
            frames_lost: 0,
            duplicate_syns: false,
            sprayed: 0,
        }
    }

    /// What should not be.
    fn objections(&self) -> Vec<String> {
        let lost = self.joins_attempted.saturating_sub(self.joins_established);
        let unexpected = if self.drill == Kind::AgentKill { 0 } else { self.plain };
        let counts = [
            (lost, "joins were not established"),
            (self.joins_misrouted, "joins came to a backend that does not have their connection"),
            (self.tokens_foreign, "tokens do not name the backend that has them"),
            (self.tokens_in_tables, "tokens are in tables that need none"),
            (self.frames_lost, "frames did not fit into the delay line"),
            (unexpected, "connections were plain TCP, though the agents live"),
        ];
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, fate)| format!("{count} {fate}")).collect()
    }
}
