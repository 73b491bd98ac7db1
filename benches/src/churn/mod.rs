//! Churn: connections that are held open while the pool changes under them, again and again, faster than the
//! transitions settle. Whether one breaks is told by its own socket and by the kernels of client and backends.
//!
//! The only connections that may break are those of a backend that was killed.

pub(crate) mod flows;
pub(crate) mod held;
mod screen;
pub(crate) mod script;

use std::time::{Duration, Instant};

use serde::Serialize;

pub use screen::Screen;

use crate::{
    BackendCount, Lab, LabError, interrupt,
    oracle::JoinTally,
    sockets,
    weir::{Join, PoolBackend, Weir, WeirConfig, WeirStatus},
};
use flows::Flows;
use held::Held;
use script::{Kind, Script, Stand};

/// A join whose SYN is dropped comes again after 1 s and 3 s.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// New connections after each change: one for so many that are held.
const NEW_PER_HELD: usize = 50;
/// Beyond the transition time, for what the controller's clock and a busy machine add.
const SETTLE_LIMIT: Duration = Duration::from_mins(1);
/// The part of the transition time that lies between two changes: at any time about four windows overlap.
const CHANGES_PER_TRANSITION: u32 = 4;
/// Seconds in which a backend that comes gets its whole share.
const SLOW_START_S: u32 = 3;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many connections are held from the start.
    pub connections: usize,
    /// How often the pool changes.
    pub changes: usize,
    /// How many backends there are.
    pub backends: BackendCount,
    /// What decides the changes.
    pub seed: u64,
    /// How long a slot whose owner changed stays in transition. In the last eight ninths of it every connection must show itself.
    pub transition_s: u32,
}

/// The figures of a run: the one object that `--json` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Connections opened in all.
    pub connections: usize,
    /// Those of them that broke although their backend was alive.
    pub broken: usize,
    /// Those whose backend was killed.
    pub broken_of_killed: usize,
    /// TCP flows that were lost although their backend was alive, joined subflows included, by the kernels' sockets.
    pub flows_lost: usize,
    /// Changes of the pool.
    pub changes: usize,
    /// Slots changed by the changes, without the steps of slow starts.
    pub slots_changed: usize,
    /// Joins that the client's kernel began.
    pub joins_attempted: u64,
    /// Joins that the right backend's kernel completed.
    pub joins_established: u64,
    /// Joins that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
    /// The most slots in transition at a time.
    pub in_transition_max: u64,
    /// The most flow-table entries of each kind.
    pub entries_moved_max: u64,
    /// Likewise.
    pub entries_pinned_max: u64,
    /// Likewise.
    pub entries_joined_max: u64,
    /// Slots in transition at the end: the run waits until there are none.
    pub in_transition_at_end: u64,
    /// The longest time between two signs of life of a connection, in milliseconds.
    pub longest_round_ms: u64,
}

/// A run.
#[derive(Debug)]
pub struct Churn {
    lab: Lab,
    weir: Weir,
    script: Script,
    held: Held,
    flows: Flows,
    joins_before: JoinTally,
    report: Report,
    failures: Vec<String>,
    transition: Duration,
}

impl Churn {
    /// Runs it all, showing each change on `screen`; returns the figures and what Weir did not keep of its promise.
    ///
    /// # Errors
    ///
    /// If the lab cannot be built, Weir does not start or refuses a change, or a signal asks for the end.
    pub fn run(options: Options, screen: Screen) -> Result<(Report, Vec<String>), LabError> {
        sockets::allow_many()?;
        screen.introduce(options);
        let mut churn = Self::begin(options)?;
        churn.open(options.connections)?;
        screen.begin(&churn.report, churn.flows.count());
        for number in 1..=options.changes {
            let change = churn.change(options)?;
            screen.change(number, &change);
        }
        churn.settle()?;
        churn.end(screen)
    }

    fn begin(options: Options) -> Result<Self, LabError> {
        let lab = Lab::builder().backends(options.backends).build()?;
        let script = Script::new(options.seed, lab.backends.len(), &Kind::ALL);
        let weir = Weir::start(&lab, &config(&lab, &script, options))?;
        Ok(Self {
            joins_before: JoinTally::read(&lab)?,
            lab,
            weir,
            script,
            held: Held::default(),
            flows: Flows::default(),
            report: Report::default(),
            failures: Vec::new(),
            transition: Duration::from_secs(options.transition_s.into()),
        })
    }

    /// Opens connections and waits for their joins. Returns the distribution over the backends.
    fn open(&mut self, count: usize) -> Result<Vec<(String, usize)>, LabError> {
        let before = JoinTally::read(&self.lab)?;
        let distribution = self.held.open(&self.lab.client, count)?;
        let joins = JoinTally::settled_since(&before, &self.lab, held::joins_of(count), JOIN_LIMIT)?;
        if joins.established() < held::joins_of(count) {
            self.failures.push(format!("of {} joins only {} arrived", held::joins_of(count), joins.established()));
        }
        self.report.connections += count;
        self.flows.take_in(&self.lab)?;
        Ok(distribution.into_iter().collect())
    }

    /// Changes the pool, opens some connections, and has all exchange data until the next change is due.
    fn change(&mut self, options: Options) -> Result<screen::Row, LabError> {
        let begun = Instant::now();
        let change = self.script.advance();
        let backend = self.lab.backends[change.backend].name.clone();
        match (change.kind, change.from) {
            (Kind::Kill, _) => self.lab.kill_backend(change.backend)?,
            (Kind::Return, Stand::Dead) => self.lab.revive_backend(change.backend)?,
            _ => {}
        }
        let slots_changed = self.weir.reload(&config(&self.lab, &self.script, options))?;
        if change.kind == Kind::Kill {
            self.report.broken_of_killed += self.held.bury(&backend)?;
            self.flows.bury(change.backend);
        }
        self.exchange(&change);
        let distribution = self.open((options.connections / NEW_PER_HELD).max(4))?;
        let mut status = self.look()?;
        while begun.elapsed() < self.transition / CHANGES_PER_TRANSITION {
            self.exchange(&change);
            status = self.look()?;
        }
        self.check_flows(&change)?;
        self.report.changes += 1;
        self.report.slots_changed += slots_changed;
        Ok(screen::Row {
            change: change.to_string(),
            slots_changed,
            status,
            held: self.held.count(),
            broken: self.report.broken,
            distribution,
        })
    }

    /// Waits until every window is over, under traffic.
    fn settle(&mut self) -> Result<(), LabError> {
        let begun = Instant::now();
        while self.look()?.slots_in_transition > 0 && begun.elapsed() < self.transition + SETTLE_LIMIT {
            self.exchange(&"the windows end");
        }
        self.exchange(&"all windows are over");
        self.check_flows(&"all windows are over")
    }

    fn end(mut self, screen: Screen) -> Result<(Report, Vec<String>), LabError> {
        let joins = &JoinTally::read(&self.lab)? - &self.joins_before;
        let report = &mut self.report;
        report.joins_attempted = joins.attempted;
        report.joins_established = joins.established();
        report.joins_misrouted = joins.misrouted();
        report.longest_round_ms = u64::try_from(self.held.longest_round.as_millis()).unwrap_or(u64::MAX);
        if joins.misrouted() > 0 {
            self.failures.push(format!("{} joins came to a wrong backend", joins.misrouted()));
        }
        if report.in_transition_at_end > 0 {
            self.failures.push(format!("{} slots are still in transition", report.in_transition_at_end));
        }
        screen.conclude(report, &self.failures);
        Ok((self.report, self.failures))
    }

    /// One round of data on every connection.
    fn exchange(&mut self, meanwhile: &impl std::fmt::Display) {
        for broken in self.held.exchange() {
            self.report.broken += 1;
            let held::Broken { client, backend, error } = broken;
            self.failures.push(format!("{client}, at {backend}, broke when {meanwhile}: {error}"));
        }
    }

    fn check_flows(&mut self, meanwhile: &impl std::fmt::Display) -> Result<(), LabError> {
        for client in self.flows.lost(&self.lab)? {
            self.report.flows_lost += 1;
            self.failures.push(format!("the flow from {client} was lost when {meanwhile}"));
        }
        Ok(())
    }

    /// What Weir says of itself, for the table.
    fn look(&mut self) -> Result<WeirStatus, LabError> {
        if interrupt::requested() {
            return Err(LabError::Interrupted);
        }
        let status = self.weir.status()?;
        let report = &mut self.report;
        report.in_transition_max = report.in_transition_max.max(status.slots_in_transition);
        report.in_transition_at_end = status.slots_in_transition;
        report.entries_moved_max = report.entries_moved_max.max(status.moved_flows);
        report.entries_pinned_max = report.entries_pinned_max.max(status.pinned_flows);
        report.entries_joined_max = report.entries_joined_max.max(status.joined_flows);
        Ok(status)
    }
}

/// What Weir is told of the pool as it is.
fn config(lab: &Lab, script: &Script, options: Options) -> WeirConfig {
    let members = lab.backends.iter().zip(script.pool());
    let backends = members.filter_map(|(backend, member)| {
        Some(PoolBackend { backend, weight: member.weight, state: member.stand.word()? })
    });
    WeirConfig::for_lab(lab, Join::Learn)
        .with_transition(options.transition_s, SLOW_START_S)
        .with_backends(backends.collect())
}
