//! The fleet drill: connections through several balancers, of which one dies, one comes and one is drained, while the bus
//! between them is killed and started again and their key is changed. What became of each join and each joined flow is told by the kernels' sockets and
//! counters, and through which balancer it went by the router.

mod joined;
mod traffic;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{Screen, Stopping, lock};
use crate::{
    BackendCount, Lab, LabError,
    fleet::Fleet,
    oracle::{Flow, JoinTally},
    sockets,
    traffic::Mix,
    wait,
    weir::Join,
};
use joined::JoinedFlows;
pub(super) use traffic::Traffic;

/// A join whose SYN is dropped comes again after 1 s and 3 s; a busy machine adds to that.
const JOIN_LIMIT: Duration = Duration::from_secs(8);
/// A flow that nobody answers is given up by its kernel in less.
const SIGN_OF_LIFE_LIMIT: Duration = Duration::from_secs(20);

/// How joins find their connections in a fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ways {
    /// By tokens that balancers learn and tell each other
    Learn,
    /// By tokens that the backends' agents tell
    Report,
    /// By an address or a port that each backend has for joins
    Endpoint,
    /// By tokens that name the backend, which keeps no table at all
    Token,
}

impl Ways {
    /// What the `index`th connection is. Endpoints are joined over either family, so the client's socket has to be one of
    /// both.
    const fn kind(self, index: usize) -> Mix {
        match self {
            Self::Learn | Self::Report | Self::Token => Mix::alternating(index),
            Self::Endpoint if index.is_multiple_of(2) => Mix::V4JoinedOverV6,
            Self::Endpoint => Mix::V6,
        }
    }

    /// How often the client's kernel joins it: each backend has one endpoint.
    const fn joins(self, kind: Mix) -> u64 {
        match self {
            Self::Learn | Self::Report | Self::Token => kind.joins(),
            Self::Endpoint => 1,
        }
    }
}

impl From<Ways> for Join {
    fn from(ways: Ways) -> Self {
        match ways {
            Ways::Learn => Self::Learn,
            Ways::Report => Self::Report,
            Ways::Endpoint => Self::Endpoint,
            Ways::Token => Self::Token,
        }
    }
}

/// What to run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// How joins find their connections
    #[arg(long, value_enum)]
    pub ways: Ways,
    /// How many connections are opened, all in all; each is joined once or, at tokens, every fourth twice
    #[arg(long, default_value_t = 520)]
    pub connections: usize,
    /// The client's round trip to the router, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1000))]
    pub rtt: u64,
    /// How many balancers there are at first (2 to 8)
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub balancers: u8,
    /// How many backends (2 to 64)
    #[arg(long, default_value = "4", value_parser = super::two_or_more)]
    pub backends: BackendCount,
    /// Let the balancers know nothing of each other: shows what the bus is for
    #[arg(long)]
    pub no_bus: bool,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

impl Options {
    /// Endpoints need no bus.
    fn has_bus(self) -> bool {
        !self.no_bus && self.ways != Ways::Endpoint
    }
}

/// The figures of a fleet drill: the one object that `--json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `fleet`.
    pub drill: &'static str,
    /// How joins found their connections.
    pub ways: Ways,
    /// Whether the balancers had a bus.
    pub bus: bool,
    /// The client's round trip, at least.
    pub rtt_ms: u64,
    /// Balancers at first.
    pub balancers: u8,
    /// Connections opened.
    pub connections: usize,
    /// Those that did not come about, or broke.
    pub connections_broken: usize,
    /// Joins that the client's kernel began.
    pub joins_attempted: u64,
    /// Joins that the right backend's kernel completed.
    pub joins_established: u64,
    /// Joins that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
    /// Established joins whose first subflow went by another balancer.
    pub joins_through_another: u64,
    /// Joined flows that ended before their connection, or fell silent.
    pub joined_flows_broken: u64,
    /// Joins that were established only after the client had sent their SYN again.
    pub joins_late: u64,
    /// Established joins by the balancer that they went through.
    pub by_balancer: BTreeMap<String, u64>,
    /// Frames that the delay line had no room for.
    pub frames_lost: u64,
    /// Tokens in the tables of the balancers that are still announced.
    pub tokens_in_tables: u64,
}

/// A fleet drill that is under way.
struct Drill<'d> {
    options: Options,
    screen: Screen,
    fleet: Fleet,
    traffic: &'d Mutex<Traffic>,
    joined: JoinedFlows,
    connections: usize,
    failures: Vec<String>,
}

/// Runs the drill, showing on `screen` what happens; returns the figures, and what Weir did not keep of its promise.
///
/// # Errors
///
/// If the fleet cannot be built, or a signal asks for the end.
pub fn run(options: Options, screen: Screen) -> Result<(Report, Vec<String>), LabError> {
    sockets::allow_many()?;
    screen.introduce_fleet(options);
    let lab = Lab::builder().backends(options.backends).round_trip(Duration::from_millis(options.rtt)).build()?;
    let fleet = Fleet::start(lab, options.balancers, options.ways.into(), options.has_bus())?;
    let before = JoinTally::read(&fleet.lab)?;
    let (traffic, stop) = (Mutex::new(Traffic::default()), AtomicBool::new(false));
    let mut drill = Drill {
        options,
        screen,
        fleet,
        traffic: &traffic,
        joined: JoinedFlows::default(),
        connections: 0,
        failures: Vec::new(),
    };
    thread::scope(|scope| {
        // However the steps end, the rounds end with them.
        let _stopping = Stopping(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                lock(&traffic).exchange();
                thread::sleep(traffic::PAUSE);
            }
        });
        drill.happen()
    })?;
    drill.end(&before)
}

impl Drill<'_> {
    /// More than half of the connections are there before anything happens, and few come while there is one balancer alone.
    fn happen(&mut self) -> Result<(), LabError> {
        let all = self.options.connections;
        let (after_death, after_arrival, after_bus, after_drain) = (all / 20, all / 5, all / 10, all / 20);
        self.open(all - after_death - after_arrival - after_bus - after_drain)?;

        let dead = self.fleet.kill_first()?;
        self.open(after_death)?;
        self.look_for_life(&format!("{dead} is dead, and its route is withdrawn"))?;

        let new = self.fleet.add()?;
        self.open(after_arrival)?;
        self.look_for_life(&format!("{new} has come"))?;

        if self.fleet.has_bus() {
            self.fleet.kill_bus()?;
            self.look_for_life("the bus is dead")?;
            self.fleet.restart_bus()?;
            self.screen.step("the bus is back");
        }
        self.open(after_bus)?;

        self.fleet.change_key()?;
        self.look_for_life("the cluster key is another")?;

        let drained = self.fleet.drain_first()?;
        self.open(after_drain)?;
        self.look_for_life(&format!("{drained} has handed over, and its route is withdrawn"))
    }

    /// Opens connections, waits for their joins, and asks the router for their ways.
    fn open(&mut self, count: usize) -> Result<(), LabError> {
        let before = JoinTally::read(&self.fleet.lab)?;
        let kinds: Vec<_> = (self.connections..).take(count).map(|index| self.options.ways.kind(index)).collect();
        let wanted = kinds.iter().map(|kind| self.options.ways.joins(*kind)).sum();
        let (opened, failed) = Traffic::open(&self.fleet.lab.client, &kinds)?;
        self.connections += count;
        let mut traffic = lock(self.traffic);
        traffic.broken.extend(failed);
        traffic.take(opened);
        drop(traffic);
        let joins = JoinTally::settled_since(&before, &self.fleet.lab, wanted, JOIN_LIMIT)?;
        self.joined.take_in(&self.fleet)?;
        self.screen.step(&format!(
            "{count} connections more, which the client's kernel joined {} times; {} of the joins have arrived",
            joins.attempted,
            joins.established()
        ));
        Ok(())
    }

    /// Waits until every joined flow has been answered since now; what is gone or stays silent is broken.
    fn look_for_life(&mut self, since: &str) -> Result<(), LabError> {
        let begun = Instant::now();
        let client = self.fleet.lab.client.namespace.clone();
        let mut silent = Vec::new();
        let waited = wait::until("every joined flow is answered", SIGN_OF_LIFE_LIMIT, || {
            let age = begun.elapsed();
            silent = Flow::read(&client)?;
            silent.retain(|flow| flow.joined && flow.silence > age);
            Ok(silent.is_empty().then_some(()))
        });
        match waited {
            Ok(()) | Err(LabError::Deadline { .. }) => {}
            Err(error) => return Err(error),
        }
        // A join that was dropped may have come about by now.
        self.joined.take_in(&self.fleet)?;
        let lost = self.joined.lost(&self.fleet.lab, &silent)?;
        self.screen.step(&format!("{since}: of {} joined flows {lost} are broken", self.joined.count()));
        Ok(())
    }

    fn end(mut self, before: &JoinTally) -> Result<(Report, Vec<String>), LabError> {
        lock(self.traffic).exchange();
        let joins = &JoinTally::read(&self.fleet.lab)? - before;
        let broken = std::mem::take(&mut lock(self.traffic).broken);
        let mut by_balancer: BTreeMap<_, _> = self.fleet.names().map(|name| (name.to_owned(), 0)).collect();
        by_balancer.extend(self.joined.by_balancer());
        let frames_lost = self.fleet.lab.line.as_ref().map_or(Ok(0), |line| line.tally().map(|tally| tally.lost))?;
        let report = Report {
            drill: "fleet",
            ways: self.options.ways,
            bus: self.options.has_bus(),
            rtt_ms: self.options.rtt,
            balancers: self.options.balancers,
            connections: self.connections,
            connections_broken: broken.len(),
            joins_attempted: joins.attempted,
            joins_established: joins.established(),
            joins_misrouted: joins.misrouted(),
            joins_through_another: self.joined.through_another(),
            joined_flows_broken: self.joined.broken(),
            joins_late: self.joined.late(),
            by_balancer,
            frames_lost,
            tokens_in_tables: self.fleet.tokens_in_tables()?,
        };
        self.failures.extend(broken);
        self.failures.extend(report.objections());
        self.screen.conclude_fleet(&report, &self.failures);
        Ok((report, self.failures))
    }
}

impl Report {
    /// What should not be.
    fn objections(&self) -> Vec<String> {
        let lost = self.joins_attempted.saturating_sub(self.joins_established);
        let counts = [
            (lost, "joins were not established"),
            (self.joins_misrouted, "joins came to a backend that does not have their connection"),
            (self.joined_flows_broken, "joined flows broke"),
            (self.frames_lost, "frames did not fit into the delay line"),
        ];
        let mut objections: Vec<_> =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, fate)| format!("{count} {fate}")).collect();
        if self.ways == Ways::Token && self.tokens_in_tables > 0 {
            objections.push(format!("{} tokens are in tables that need none", self.tokens_in_tables));
        }
        if self.joins_through_another * 2 <= self.joins_established {
            objections
                .push("not even half of the joins went through another balancer than the first subflow".to_owned());
        }
        objections
    }
}
