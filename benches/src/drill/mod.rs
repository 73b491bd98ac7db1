//! Drills: what an operator does to Weir, or what befalls it, while real traffic runs through it. Whether anything was
//! lost is told by the sockets and counters of client and backends, never by Weir.
//!
//! Held connections and datagrams go on all the time, in threads of their own; new connections are opened at every step.

mod datagrams;
pub mod fleet;
pub mod mint;
pub mod poison;
mod screen;
mod steps;
pub mod token;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use serde::Serialize;

pub use screen::Screen;

use crate::{
    BackendCount, Lab, LabError,
    churn::{
        flows::Flows,
        held::{Broken, Held, joins_of},
    },
    oracle::{Counters, JoinTally},
    sockets,
    topology::INTERFACE,
    weir::{Join, KeyFile, Weir, WeirConfig},
};
use datagrams::Datagrams;

/// A join whose SYN is dropped comes again after 1 s and 3 s; a busy machine adds to that.
const JOIN_LIMIT: Duration = Duration::from_secs(30);
/// New connections at each step: one for so many that are held.
const NEW_PER_HELD: usize = 10;

/// Where the cluster key is.
const KEY_FILE: &str = "cluster.key";

/// What is drilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The controller is killed, or told to end, and started again
    Restart,
    /// A thousand backends come and go, and a bad file is refused
    Reload,
    /// Another binary of the controller takes over
    Upgrade,
    /// A backend is drained, and comes back
    Drain,
    /// A backend dies
    KillBackend,
    /// The cluster key is changed
    Rekey,
}

/// What to run.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// What to do
    #[arg(value_enum)]
    pub kind: Kind,
    /// How many connections are held from the start
    #[arg(long, default_value_t = 200)]
    pub connections: usize,
    /// How often; a backend is killed once
    #[arg(long, default_value_t = 4)]
    pub times: usize,
    /// How many backends (2 to 64)
    #[arg(long, default_value_t, value_parser = two_or_more)]
    pub backends: BackendCount,
    /// What becomes of the data path when the controller is told to end; `detach` shows what that costs
    #[arg(long, value_enum, default_value_t = OnStop::Keep)]
    pub on_stop: OnStop,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// What becomes of the data path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnStop {
    /// It steers on
    Keep,
    /// It is taken down
    Detach,
}

/// One backend is drained or killed, or a join is to be able to go wrong.
pub(crate) fn two_or_more(text: &str) -> Result<BackendCount, String> {
    let count = text.parse::<u8>().ok().filter(|count| *count > 1);
    let count = count.ok_or_else(|| "not a number from 2 to 64".to_owned())?;
    BackendCount::try_from(count).map_err(|error: LabError| error.to_string())
}

/// The figures of a drill: the one object that `--json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which.
    pub drill: Kind,
    /// Numbered datagrams that the client has sent.
    pub packets_sent: u64,
    /// Those that no backend has received, though theirs was alive.
    pub packets_lost: u64,
    /// Those whose backend was killed.
    pub packets_lost_of_killed: u64,
    /// Connections opened.
    pub connections: usize,
    /// Those that broke, or a step whose new ones could not be opened, though their backend was alive.
    pub connections_broken: usize,
    /// Those whose backend was killed.
    pub broken_of_killed: usize,
    /// TCP flows that were lost though their backend was alive, joined subflows included.
    pub flows_lost: usize,
    /// Joins that the client's kernel began, those to connections older than all that happened included.
    pub joins_attempted: u64,
    /// Joins that the right backend's kernel completed.
    pub joins_established: u64,
    /// Joins that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
    /// Joins that no backend knows anything of.
    pub joins_lost: u64,
    /// Controllers that have run, one after the other.
    pub controllers: usize,
    /// Programs that have been on the balancer's interface, by the kernel's numbers.
    pub programs: usize,
    /// Segments that the client's kernel sent again; a busy machine has some without any loss.
    pub retransmissions: u64,
    /// The longest time between two signs of life of a connection, in milliseconds.
    pub longest_round_ms: u64,
}

/// A drill that is under way.
struct Drill<'l> {
    options: Options,
    screen: Screen,
    lab: &'l mut Lab,
    weir: Weir,
    held: &'l Mutex<Held>,
    flows: Flows,
    key: KeyFile,
    report: Report,
    failures: Vec<String>,
    programs: Vec<u64>,
    killed: Option<usize>,
}

/// Runs a drill, showing on `screen` what happens; returns the figures, and what Weir did not keep of its promise.
///
/// # Errors
///
/// If the lab cannot be built, Weir does not start, or a signal asks for the end.
pub fn run(options: Options, screen: Screen) -> Result<(Report, Vec<String>), LabError> {
    sockets::allow_many()?;
    screen.introduce(options);
    let mut lab = Lab::builder().backends(options.backends).build()?;
    let key = KeyFile::create(lab.directory().join(KEY_FILE))?;
    let weir = Weir::start(&lab, &config(&lab, options))?;
    let (joins_before, counters_before) = (JoinTally::read(&lab)?, Counters::read(&lab.client.namespace)?);
    let (held, broken, stop) = (Mutex::new(Held::default()), Mutex::new(Vec::new()), AtomicBool::new(false));
    let mut drill = Drill {
        report: Report::of(options.kind),
        options,
        screen,
        lab: &mut lab,
        weir,
        held: &held,
        flows: Flows::default(),
        key,
        failures: Vec::new(),
        programs: Vec::new(),
        killed: None,
    };
    drill.note_program()?;
    drill.open(options.connections)?;
    let datagrams = Datagrams::start(drill.lab)?;
    thread::scope(|scope| {
        // However the steps end, the rounds end with them.
        let _stopping = Stopping(&stop);
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let lost = lock(&held).exchange();
                lock(&broken).extend(lost);
                thread::yield_now();
            }
        });
        datagrams.wait_until_received()?;
        drill.happen()
    })?;
    drill.end(datagrams, lock(&broken).drain(..).collect(), &joins_before, &counters_before)
}

struct Stopping<'s>(&'s AtomicBool);

/// Ends the rounds when it goes.
impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What Weir is told at the beginning: the windows outlast the drill, but for those that it waits for.
fn config(lab: &Lab, options: Options) -> WeirConfig {
    let transition_s = if options.kind == Kind::Rekey { steps::KEY_WINDOW_S } else { 600 };
    let config = WeirConfig::for_lab(lab, Join::Learn).with_transition(transition_s, 0).with_udp(600);
    let config = config.with_cluster_key(lab.directory().join(KEY_FILE));
    match options.on_stop {
        OnStop::Keep => config,
        OnStop::Detach => config.with_on_stop("detach"),
    }
}

impl Drill<'_> {
    /// Opens connections and waits for their joins. Returns how many went to each backend.
    fn open(&mut self, count: usize) -> Result<Vec<(String, usize)>, LabError> {
        let before = JoinTally::read(self.lab)?;
        self.report.connections += count;
        let mut opened = Held::default();
        let distribution = match opened.open(&self.lab.client, count) {
            Ok(distribution) => distribution,
            Err(LabError::Interrupted) => return Err(LabError::Interrupted),
            Err(error) => {
                self.report.connections_broken += 1;
                self.failures.push(error.to_string());
                return Ok(Vec::new());
            }
        };
        let joins = JoinTally::settled_since(&before, self.lab, joins_of(count), JOIN_LIMIT)?;
        if joins.established() < joins_of(count) {
            self.failures.push(format!("of {} joins only {} arrived", joins_of(count), joins.established()));
        }
        lock(self.held).take(opened);
        self.flows.take_in(self.lab)?;
        Ok(distribution.into_iter().collect())
    }

    /// The connections of one step.
    fn open_some(&mut self) -> Result<Vec<(String, usize)>, LabError> {
        self.open((self.options.connections / NEW_PER_HELD).max(4))
    }

    /// Has the client's kernel join every MPTCP connection once more, from addresses that it did not have: only the
    /// tokens tell where they belong.
    fn join_again(&mut self) -> Result<u64, LabError> {
        let before = JoinTally::read(self.lab)?;
        let expected = lock(self.held).joinable();
        let client = |command: &str| {
            let words: Vec<_> = command.split(' ').collect();
            self.lab.client.namespace.output("ip", &words)
        };
        for (address, length) in [("10.71.1.7", "24 dev eth0"), ("fd71:1::7", "64 dev eth0 nodad")] {
            client(&format!("address add {address}/{length}"))?;
            client(&format!("mptcp endpoint add {address} dev eth0 subflow"))?;
        }
        let joins = JoinTally::settled_since(&before, self.lab, expected, JOIN_LIMIT)?;
        if joins.established() < expected {
            self.failures.push(format!("of {expected} further joins only {} arrived", joins.established()));
        }
        Ok(joins.established())
    }

    /// Takes in the program that is on the balancer's interface. Returns whether it is another than before.
    fn note_program(&mut self) -> Result<bool, LabError> {
        let link = ["-json", "-details", "link", "show", "dev", INTERFACE];
        let printed = self.lab.balancer.namespace.output("ip", &link)?;
        let program = serde_json::from_str::<serde_json::Value>(&printed)
            .ok()
            .and_then(|links| links[0]["xdp"]["prog"]["id"].as_u64())
            .ok_or(LabError::Output { program: "ip", line: printed })?;
        let is_new = self.programs.last() != Some(&program);
        if is_new {
            self.programs.push(program);
        }
        Ok(is_new)
    }

    fn end(
        mut self,
        datagrams: Datagrams,
        broken: Vec<Broken>,
        joins_before: &JoinTally,
        counters_before: &Counters,
    ) -> Result<(Report, Vec<String>), LabError> {
        let broken = broken.into_iter().chain(lock(self.held).exchange());
        for Broken { client, backend, error } in broken {
            self.report.connections_broken += 1;
            self.failures.push(format!("the connection from {client}, at {backend}, broke: {error}"));
        }
        for client in self.flows.lost(self.lab)? {
            self.report.flows_lost += 1;
            self.failures.push(format!("the flow from {client} was lost"));
        }
        let joins = &JoinTally::read(self.lab)? - joins_before;
        let tally = datagrams.end(self.killed)?;
        let retransmitted = |counters: &Counters| counters.value("TcpRetransSegs");
        let now = Counters::read(&self.lab.client.namespace)?;
        let longest = lock(self.held).longest_round;
        let report = Report {
            packets_sent: tally.sent,
            packets_lost: tally.lost - tally.lost_of_killed,
            packets_lost_of_killed: tally.lost_of_killed,
            joins_attempted: joins.attempted,
            joins_established: joins.established(),
            joins_misrouted: joins.misrouted(),
            joins_lost: joins.lost(),
            programs: self.programs.len(),
            retransmissions: retransmitted(&now) - retransmitted(counters_before),
            longest_round_ms: u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
            ..self.report
        };
        for (count, fate) in [
            (report.packets_lost, "datagrams came to no backend"),
            (report.joins_misrouted, "joins came to a backend that does not have their connection"),
            (report.joins_lost, "joins came to no backend"),
        ] {
            if count > 0 {
                self.failures.push(format!("{count} {fate}"));
            }
        }
        self.screen.conclude(&report, &self.failures);
        Ok((report, self.failures))
    }
}

impl Report {
    fn of(drill: Kind) -> Self {
        Self {
            drill,
            packets_sent: 0,
            packets_lost: 0,
            packets_lost_of_killed: 0,
            connections: 0,
            connections_broken: 0,
            broken_of_killed: 0,
            flows_lost: 0,
            joins_attempted: 0,
            joins_established: 0,
            joins_misrouted: 0,
            joins_lost: 0,
            controllers: 1,
            programs: 0,
            retransmissions: 0,
            longest_round_ms: 0,
        }
    }
}
