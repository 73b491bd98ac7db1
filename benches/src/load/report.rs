//! The figures of a run: the one object that `--json` prints, and all that the page is made from.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    machine::Machine,
    middle::Way,
    plan::Scenario,
    sample::Sample,
    tally::{Counts, Durations},
};
use crate::oracle::JoinTally;

/// Of a thousand joins.
const ESTABLISHED_MIN_PER_MILLE: u64 = 999;
/// Of a thousand connections. On a busy machine the lab's own queues lose packets; whose handshake is begun anew after a
/// loss, and after its slot has changed hands, comes to another backend than before, and may be reset.
const FAILED_MAX_PER_MILLE: u64 = 1;
/// Where latencies are told.
const PERCENTILES: [f64; 14] = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999, 100.0];

/// All that was run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Everything together; in the object's top level.
    #[serde(flatten)]
    pub totals: Totals,
    /// What was asked for.
    pub asked: Asked,
    /// Where it ran.
    pub machine: Machine,
    /// One after the other.
    pub runs: Vec<Run>,
}

/// What was asked for.
#[derive(Debug, Clone, Serialize)]
pub struct Asked {
    /// Connections at a time.
    pub connections: usize,
    /// Subflows of a connection.
    pub subflows: u8,
    /// Seconds of each run.
    pub duration_s: u64,
    /// Backends.
    pub backends: u8,
    /// Seconds between two changes of the pool; 0 for none.
    pub churn_s: u64,
    /// What all follows from.
    pub seed: u64,
}

/// Counts of one run, or of all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Joins that the client's kernel began.
    pub joins_attempted: u64,
    /// Joins that the right backend's kernel completed.
    pub joins_established: u64,
    /// Joins that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
    /// Joins that the right backend's kernel refused.
    pub joins_refused: u64,
    /// Joins that no backend's kernel knows anything of: lost, or their connection ended first.
    pub joins_unfinished: u64,
    /// MPTCP connections that were opened.
    pub connections_mptcp: u64,
    /// Plain TCP connections that were opened.
    pub connections_tcp: u64,
    /// UDP flows that were begun.
    pub flows_udp: u64,
    /// Those of the three that were refused, broke, or did not end in time.
    pub connections_failed: u64,
    /// MPTCP connections that the servers' kernels answered as plain TCP.
    pub connections_plain: u64,
    /// Bodies that came whole, each of whose hashes was looked at.
    pub transfers: u64,
    /// Those whose hash was not that of what was meant.
    pub corrupted: u64,
    /// Bytes of bodies, both ways together.
    pub bytes: u64,
    /// Datagrams that were sent.
    pub datagrams: u64,
    /// Those that had no echo.
    pub datagrams_lost: u64,
    /// Those that another backend answered than the first of their flow.
    pub datagrams_moved: u64,
    /// Packets that the lab's interfaces, or the client's line, had no room for.
    pub packets_dropped: u64,
}

impl Totals {
    /// Of one run.
    pub(super) fn of(joins: &JoinTally, plain: u64, packets_dropped: u64, counts: &Counts) -> Self {
        Self {
            joins_attempted: joins.attempted,
            joins_established: joins.established(),
            joins_misrouted: joins.misrouted(),
            joins_refused: joins.refused(),
            joins_unfinished: joins.lost(),
            connections_mptcp: counts.mptcp,
            connections_tcp: counts.tcp,
            flows_udp: counts.udp,
            connections_failed: counts.failed,
            connections_plain: plain,
            transfers: counts.transfers,
            corrupted: counts.corrupted,
            bytes: counts.bytes,
            datagrams: counts.datagrams,
            datagrams_lost: counts.datagrams_lost,
            datagrams_moved: counts.datagrams_moved,
            packets_dropped,
        }
    }

    fn add(&mut self, other: &Self) {
        self.joins_attempted += other.joins_attempted;
        self.joins_established += other.joins_established;
        self.joins_misrouted += other.joins_misrouted;
        self.joins_refused += other.joins_refused;
        self.joins_unfinished += other.joins_unfinished;
        self.connections_mptcp += other.connections_mptcp;
        self.connections_tcp += other.connections_tcp;
        self.flows_udp += other.flows_udp;
        self.connections_failed += other.connections_failed;
        self.connections_plain += other.connections_plain;
        self.transfers += other.transfers;
        self.corrupted += other.corrupted;
        self.bytes += other.bytes;
        self.datagrams += other.datagrams;
        self.datagrams_lost += other.datagrams_lost;
        self.datagrams_moved += other.datagrams_moved;
        self.packets_dropped += other.packets_dropped;
    }

    /// TCP, MPTCP and UDP.
    pub(super) const fn connections(&self) -> u64 {
        self.connections_mptcp + self.connections_tcp + self.flows_udp
    }

    /// Whether enough connections did what they were for.
    pub(super) const fn connections_suffice(&self) -> bool {
        self.connections_failed * 1000 <= self.connections() * FAILED_MAX_PER_MILLE
    }

    /// Whether enough joins were established.
    pub(super) const fn joins_suffice(&self) -> bool {
        self.joins_established * 1000 >= self.joins_attempted * ESTABLISHED_MIN_PER_MILLE && self.joins_attempted > 0
    }
}

/// One scenario over one way.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Which.
    pub scenario: Scenario,
    /// How subflows were kept together.
    pub way: Way,
    /// The client's round trip to the router, at least.
    pub rtt_ms: u64,
    /// How long it took, in seconds.
    pub took_s: f64,
    /// Its counts.
    #[serde(flatten)]
    pub totals: Totals,
    /// How long things took.
    pub latencies: Vec<Latency>,
    /// What each backend had to do, b1 first.
    pub backends: Vec<BackendLoad>,
    /// What was done with packets and how often, as what is in the middle says.
    pub reasons: BTreeMap<String, u64>,
    /// What happened to the pool meanwhile.
    pub changes: Vec<PoolChange>,
    /// Several a second.
    pub samples: Vec<Sample>,
    /// Why connections failed; the first ones.
    pub failures: Vec<String>,
}

/// How long something took.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    /// What.
    pub of: &'static str,
    /// How often.
    pub count: u64,
    /// Percentiles, from the least to the most.
    pub percentiles: Vec<Percentile>,
}

/// So many percent took no longer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentile {
    /// Of a hundred.
    pub percent: f64,
    /// Milliseconds.
    pub ms: f64,
}

impl Latency {
    pub(super) fn of(of: &'static str, durations: &Durations) -> Option<Self> {
        let histogram = &durations.0;
        let at = |percent| {
            let us = u32::try_from(histogram.value_at_percentile(percent)).unwrap_or(u32::MAX);
            Percentile { percent, ms: f64::from(us) / 1e3 }
        };
        let percentiles = PERCENTILES.into_iter().map(at).collect();
        (!histogram.is_empty()).then(|| Self { of, count: histogram.len(), percentiles })
    }

    /// The time that so many percent did not exceed, of those percentiles that are told.
    pub(super) fn ms(&self, percent: f64) -> f64 {
        let told = self.percentiles.iter().find(|told| told.percent >= percent);
        told.map_or(0.0, |told| told.ms)
    }
}

/// What a backend had to do.
#[derive(Debug, Clone, Serialize)]
pub struct BackendLoad {
    /// Its name.
    pub name: String,
    /// TCP and MPTCP connections that it answered.
    pub connections: u64,
    /// As many as its weights at each connection's beginning let expect.
    pub connections_expected: f64,
    /// Joins that its kernel completed.
    pub joins_established: u64,
    /// Joins that were not for it.
    pub joins_misrouted: u64,
    /// Packets that were sent to it, as what is in the middle says.
    pub packets: u64,
}

/// What happened to the pool.
#[derive(Debug, Clone, Serialize)]
pub struct PoolChange {
    /// Since the run's beginning, in seconds.
    pub at_s: f64,
    /// What.
    pub what: String,
}

impl Run {
    /// Its heading.
    pub(super) fn title(&self) -> String {
        format!("{} · {} · {} ms", self.scenario.name(), self.way, self.rtt_ms)
    }
}

impl Report {
    /// All runs together.
    pub(super) fn of(asked: Asked, runs: Vec<Run>) -> Self {
        let mut totals = Totals::default();
        for run in &runs {
            totals.add(&run.totals);
        }
        Self { totals, asked, machine: Machine::this(), runs }
    }

    /// What should not be: one line each.
    pub fn objections(&self) -> Vec<String> {
        let Totals { joins_attempted, joins_established, .. } = self.totals;
        let mut objections: Vec<String> = self.verdicts().into_iter().filter_map(Verdict::objection).collect();
        if !self.totals.joins_suffice() {
            objections.push(format!("of {joins_attempted} joins {joins_established} were established"));
        }
        if !self.totals.connections_suffice() {
            objections.push(format!("{} connections failed", self.totals.connections_failed));
            objections.extend(self.runs.iter().flat_map(|run| &run.failures).cloned());
        }
        objections
    }

    /// The counts of which there may be none.
    pub(super) fn verdicts(&self) -> [Verdict; 3] {
        let totals = &self.totals;
        [
            Verdict(totals.joins_misrouted, "joins came to a backend that does not have their connection"),
            Verdict(totals.corrupted, "transfers are not what was meant"),
            Verdict(totals.datagrams_moved, "datagrams came to another backend than the first of their flow"),
        ]
    }
}

/// A count that is to be 0, and what it counts.
pub(super) struct Verdict(pub(super) u64, pub(super) &'static str);

impl Verdict {
    fn objection(self) -> Option<String> {
        (self.0 > 0).then(|| format!("{} {}", self.0, self.1))
    }
}
