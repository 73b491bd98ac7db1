//! What a run does, several times a second: rates by the kernels' counters and the client's own, and whose time goes by.

use std::time::Instant;

use serde::Serialize;

use super::{real, tally::Tally};
use crate::{Lab, LabError, oracle::JoinTally, ticks};

/// What happened in the time since the sample before.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    /// Since the run's beginning, in seconds.
    pub at_s: f64,
    /// Connections that are open.
    pub open: u64,
    /// Connections that were opened, a second.
    pub connections_per_s: f64,
    /// Bodies that came whole, a second.
    pub transfers_per_s: f64,
    /// Of bodies, both ways together.
    pub mbit_per_s: f64,
    /// By the client's kernel.
    pub joins_attempted_per_s: f64,
    /// By the backends' kernels.
    pub joins_established_per_s: f64,
    /// By the backends' kernels.
    pub joins_misrouted_per_s: f64,
    /// Whose time it was.
    pub cpu: Cpu,
}

/// Time of processors, in percent of one.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cpu {
    /// The client, which is this program, and the line to it if there is one.
    pub client: f64,
    /// The servers.
    pub servers: f64,
    /// The controller of what is in the middle. What steers packets runs in the kernel's softirqs.
    pub middle: f64,
    /// The kernel's softirqs: most of what packets cost, of all namespaces together.
    pub softirq: f64,
    /// All that the machine did.
    pub machine: f64,
}

/// Whose processes they are.
#[derive(Debug, Clone)]
pub(super) struct Processes {
    pub(super) servers: Vec<u32>,
    pub(super) middle: Vec<u32>,
}

/// Counters at a moment.
#[derive(Debug)]
struct Moment {
    at: Instant,
    joins: JoinTally,
    connections: u64,
    transfers: u64,
    bytes: u64,
    ticks: Ticks,
}

/// Clock ticks since somebody's beginning.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ticks {
    pub(super) client: u64,
    pub(super) servers: u64,
    pub(super) middle: u64,
    pub(super) softirq: u64,
    pub(super) machine: u64,
}

impl Ticks {
    pub(super) fn now(processes: &Processes) -> Result<Self, LabError> {
        let (machine, softirq) = ticks::of_machine()?;
        let of = |processes: &[u32]| processes.iter().map(|id| ticks::of_process(&id.to_string())).sum();
        let client = ticks::of_process("self");
        Ok(Self { client, servers: of(&processes.servers), middle: of(&processes.middle), softirq, machine })
    }
}

/// Takes samples.
#[derive(Debug)]
pub(super) struct Sampler {
    begun: Instant,
    processes: Processes,
    ticks_per_s: f64,
    last: Moment,
    pub(super) samples: Vec<Sample>,
}

impl Sampler {
    pub(super) fn begin(lab: &Lab, tally: &Tally, processes: Processes) -> Result<Self, LabError> {
        let last = Moment::now(lab, tally, &processes)?;
        Ok(Self { begun: last.at, processes, ticks_per_s: ticks::per_second(), last, samples: Vec::new() })
    }

    pub(super) fn elapsed_s(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    pub(super) fn take(&mut self, lab: &Lab, tally: &Tally) -> Result<&Sample, LabError> {
        let now = Moment::now(lab, tally, &self.processes)?;
        let last = &self.last;
        let seconds = (now.at - last.at).as_secs_f64().max(f64::EPSILON);
        let rate = |now: u64, before: u64| real(now.saturating_sub(before)) / seconds;
        let joins = &now.joins - &last.joins;
        let percent = |of: fn(&Ticks) -> u64| {
            let ticks = of(&now.ticks).saturating_sub(of(&last.ticks));
            100.0 * real(ticks) / self.ticks_per_s / seconds
        };
        self.samples.push(Sample {
            at_s: (now.at - self.begun).as_secs_f64(),
            open: tally.counts().open,
            connections_per_s: rate(now.connections, last.connections),
            transfers_per_s: rate(now.transfers, last.transfers),
            mbit_per_s: rate(now.bytes, last.bytes) * 8.0 / 1e6,
            joins_attempted_per_s: real(joins.attempted) / seconds,
            joins_established_per_s: real(joins.established()) / seconds,
            joins_misrouted_per_s: real(joins.misrouted()) / seconds,
            cpu: Cpu {
                client: percent(|ticks| ticks.client),
                servers: percent(|ticks| ticks.servers),
                middle: percent(|ticks| ticks.middle),
                softirq: percent(|ticks| ticks.softirq),
                machine: percent(|ticks| ticks.machine),
            },
        });
        self.last = now;
        Ok(&self.samples[self.samples.len() - 1])
    }
}

impl Moment {
    fn now(lab: &Lab, tally: &Tally, processes: &Processes) -> Result<Self, LabError> {
        let joins = JoinTally::glance(lab)?;
        let ticks = Ticks::now(processes)?;
        let counts = tally.counts();
        Ok(Self {
            at: Instant::now(),
            joins,
            connections: counts.mptcp + counts.tcp + counts.udp,
            transfers: counts.transfers,
            bytes: counts.bytes,
            ticks,
        })
    }
}
