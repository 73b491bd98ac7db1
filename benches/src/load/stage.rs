//! A lab with servers, something in the middle, and a client that is told what to do; and the run of one scenario in it.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    Options,
    client::{self, Task},
    content::Content,
    middle::{Middle, Way, WeirInTheMiddle},
    paths::{self, Joins},
    plan::Scenario,
    report::{BackendLoad, Latency, PoolChange, Run, Totals},
    sample::{Processes, Sampler},
    screen::{Progress, Screen},
    servers::{self, Servers},
    tally::Tally,
};
use crate::{
    Lab, LabError,
    churn::script::{Kind, Script, Stand},
    interrupt,
    oracle::{Counters, JoinTally},
};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// A join whose SYN was dropped comes again after 1 s and 3 s.
const JOIN_LIMIT: Duration = Duration::from_secs(5);
/// Nobody is killed: what a dead backend had is lost, whoever balances.
const CHANGES: &[Kind] = &[Kind::Add, Kind::Remove, Kind::Drain, Kind::Reweight, Kind::Return];
/// What the client's kernel counts for a connection that the server answered as plain TCP.
const FALLBACKS: &str = "MPTcpExtMPCapableFallbackSYNACK";

/// All but the client.
#[derive(Debug)]
pub struct Stage {
    way: Way,
    rtt_ms: u64,
    middle: Box<dyn Middle>,
    servers: Servers,
    content: Arc<Content>,
    script: Script,
    next: u64,
    /// Last, so that all that runs in it is gone before.
    pub lab: Lab,
}

impl Stage {
    /// Makes one, with Weir in the middle; returns when everything is ready.
    ///
    /// # Errors
    ///
    /// If the kernel refuses something, a command is missing, or a process is not ready in time; with its own words.
    pub fn set_up(options: &Options, way: Way, rtt_ms: u64) -> Result<Self, LabError> {
        let start = |lab: &Lab, script: &Script| -> Result<Box<dyn Middle>, LabError> {
            Ok(Box::new(WeirInTheMiddle::start(lab, way, script.pool())?))
        };
        Self::set_up_with(options, way, rtt_ms, start)
    }

    fn set_up_with(
        options: &Options,
        way: Way,
        rtt_ms: u64,
        start: impl FnOnce(&Lab, &Script) -> Result<Box<dyn Middle>, LabError>,
    ) -> Result<Self, LabError> {
        let lab = Lab::builder().backends(options.backends);
        let mut lab = if rtt_ms > 0 { lab.round_trip(Duration::from_millis(rtt_ms)) } else { lab }.build()?;
        let root = servers::root(&lab);
        let servers = Servers::start(&mut lab, &root)?;
        let content = Arc::new(Content::write(options.seed, &root)?);
        let script = Script::new(options.seed, lab.backends.len(), CHANGES);
        let middle = start(&lab, &script)?;
        paths::lay(&lab.client.namespace, Joins::for_subflows(options.subflows))?;
        Ok(Self { way, rtt_ms, middle, servers, content, script, next: 0, lab })
    }

    /// Runs a scenario.
    ///
    /// # Errors
    ///
    /// If a change is refused, something ends early, or a signal asks for the end.
    pub fn play(&mut self, scenario: Scenario, options: &Options, screen: &Screen) -> Result<Run, LabError> {
        let task = Arc::new(Task {
            scenario,
            connections: scenario.at_a_time(options.connections),
            seed: options.seed,
            content: Arc::clone(&self.content),
            tally: Arc::default(),
            closing: AtomicBool::new(false),
            aborted: AtomicBool::new(false),
            next: AtomicU64::new(self.next),
            begun: Instant::now(),
        });
        task.tally.share(self.shares());
        let before = Before::read(self)?;
        let progress = screen.begin(scenario, self.way, self.rtt_ms, options.duration);
        let client = self.lab.client.namespace.clone();
        let (sampler, changes) = thread::scope(|scope| {
            // However the run ends, the client ends with it.
            let _aborting = Aborting(&task.aborted);
            let running = scope.spawn(|| client.run(|| client::run(&task)));
            let watched = self.watch(&task, options, &progress, || running.is_finished());
            if watched.is_err() {
                task.aborted.store(true, Ordering::Relaxed);
            }
            let ended = running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            ended?.map_err(LabError::system("run the client"))?;
            watched
        })?;
        self.next = task.next.load(Ordering::Relaxed);
        let run = self.conclude(&task, &before, sampler, changes)?;
        progress.end(&run);
        Ok(run)
    }

    /// Takes samples and changes the pool until the client has ended.
    fn watch(
        &mut self,
        task: &Task,
        options: &Options,
        progress: &Progress,
        has_ended: impl Fn() -> bool,
    ) -> Result<(Sampler, Vec<PoolChange>), LabError> {
        let processes = Processes { servers: self.servers.processes(), middle: self.middle.processes() };
        let mut sampler = Sampler::begin(&self.lab, &task.tally, processes)?;
        let (begun, duration) = (Instant::now(), Duration::from_secs(options.duration));
        let churn = (options.churn > 0).then(|| Duration::from_secs(options.churn));
        let (mut changes, mut next_sample, mut next_change) = (Vec::new(), SAMPLE_INTERVAL, churn.unwrap_or_default());
        while !has_ended() {
            if interrupt::requested() {
                return Err(LabError::Interrupted);
            }
            let elapsed = begun.elapsed();
            if elapsed >= duration {
                task.closing.store(true, Ordering::Relaxed);
            }
            if elapsed >= next_sample {
                progress.tick(elapsed, sampler.take(&self.lab, &task.tally)?, &task.tally);
                next_sample = elapsed + SAMPLE_INTERVAL;
            }
            if let Some(churn) = churn.filter(|_| elapsed >= next_change && elapsed < duration) {
                changes.push(PoolChange { at_s: sampler.elapsed_s(), what: self.change(&task.tally)? });
                next_change = elapsed + churn;
            }
            thread::sleep(LOOK_INTERVAL);
        }
        Ok((sampler, changes))
    }

    fn change(&mut self, tally: &Tally) -> Result<String, LabError> {
        let change = self.script.advance();
        self.middle.change(&self.lab, self.script.pool())?;
        tally.share(self.shares());
        Ok(change.to_string())
    }

    /// The part of new connections that each backend is to have.
    fn shares(&self) -> BTreeMap<String, f64> {
        let up = self.lab.backends.iter().zip(self.script.pool()).filter(|(_, member)| member.stand == Stand::Up);
        let all: u32 = up.clone().map(|(_, member)| member.weight).sum();
        up.map(|(backend, member)| (backend.name.clone(), f64::from(member.weight) / f64::from(all))).collect()
    }

    fn conclude(
        &self,
        task: &Task,
        before: &Before,
        sampler: Sampler,
        changes: Vec<PoolChange>,
    ) -> Result<Run, LabError> {
        let joins = JoinTally::settled_since(&before.joins, &self.lab, 0, JOIN_LIMIT)?;
        let plain = Counters::read(&self.lab.client.namespace)?.value(FALLBACKS) - before.plain;
        let packets = since(&before.packets, self.middle.packets()?);
        let dropped = dropped(&self.lab)? - before.dropped;
        let counts = task.tally.counts().clone();
        let load = |(index, name): (usize, &String)| BackendLoad {
            name: name.clone(),
            connections: counts.by_backend.get(name).copied().unwrap_or(0),
            connections_expected: counts.expected.get(name).copied().unwrap_or(0.0),
            joins_established: joins.backends[index].established,
            joins_misrouted: joins.backends[index].misrouted,
            packets: packets.get(name).copied().unwrap_or(0),
        };
        let latencies =
            [("connect", &counts.connect), ("small request", &counts.request), ("large transfer", &counts.transfer)];
        Ok(Run {
            scenario: task.scenario,
            way: self.way,
            rtt_ms: self.rtt_ms,
            took_s: sampler.samples.last().map_or(0.0, |sample| sample.at_s),
            totals: Totals::of(&joins, plain, dropped, &counts),
            latencies: latencies.into_iter().filter_map(|(of, durations)| Latency::of(of, durations)).collect(),
            backends: self.lab.backends.iter().map(|backend| &backend.name).enumerate().map(load).collect(),
            reasons: since(&before.reasons, self.middle.reasons()?),
            changes,
            samples: sampler.samples,
            failures: counts.failures,
        })
    }
}

/// What the kernels and the middle had counted before a run.
struct Before {
    joins: JoinTally,
    plain: u64,
    dropped: u64,
    packets: BTreeMap<String, u64>,
    reasons: BTreeMap<String, u64>,
}

impl Before {
    fn read(stage: &Stage) -> Result<Self, LabError> {
        Ok(Self {
            joins: JoinTally::read(&stage.lab)?,
            plain: Counters::read(&stage.lab.client.namespace)?.value(FALLBACKS),
            dropped: dropped(&stage.lab)?,
            packets: stage.middle.packets()?,
            reasons: stage.middle.reasons()?,
        })
    }
}

/// What has been counted beyond what had been.
fn since(before: &BTreeMap<String, u64>, mut now: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    for (name, count) in &mut now {
        *count = count.saturating_sub(before.get(name).copied().unwrap_or(0));
    }
    now.retain(|_, count| *count > 0);
    now
}

/// Packets that the lab's interfaces and the client's line had no room for, so far.
fn dropped(lab: &Lab) -> Result<u64, LabError> {
    let mut dropped = lab.line.as_ref().map_or(Ok(0), |line| line.tally().map(|tally| tally.lost))?;
    for namespace in lab.namespaces() {
        let file = "/proc/thread-self/net/dev";
        let text = namespace.run(|| fs::read_to_string(file))?.map_err(LabError::file("read", file))?;
        dropped += text.lines().filter_map(drops_of).sum::<u64>();
    }
    Ok(dropped)
}

/// Of a line `name: ` and eight columns each of what was received and sent, the fourth of both.
fn drops_of(line: &str) -> Option<u64> {
    let (_, columns) = line.split_once(": ")?;
    let columns: Vec<u64> = columns.split_whitespace().filter_map(|column| column.parse().ok()).collect();
    Some(columns.get(3)? + columns.get(11)?)
}

struct Aborting<'a>(&'a AtomicBool);

impl Drop for Aborting<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
