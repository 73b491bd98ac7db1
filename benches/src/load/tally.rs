//! What the client counts while it runs: what each connection's own socket and each body said. What became of joins is not
//! for it to say.

use std::{
    collections::BTreeMap,
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;

/// Longer times than this are this.
const LONGEST_US: u64 = 600_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;
/// More failures than these say nothing new.
const FAILURES_KEPT: usize = 20;

/// Durations in microseconds.
#[derive(Debug, Clone)]
pub(super) struct Durations(pub(super) Histogram<u64>);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, SIGNIFICANT_DIGITS).expect("the bounds are good"))
    }
}

impl Durations {
    pub(super) fn add(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US));
    }
}

/// What a connection is, for the count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mptcp,
    Tcp,
    Udp,
}

/// What became of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    /// It came back from the flow's backend.
    Expected,
    /// It came back from another.
    Moved,
    /// It did not come back.
    Lost,
}

/// All counts of one run.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) open: u64,
    pub(super) mptcp: u64,
    pub(super) tcp: u64,
    pub(super) udp: u64,
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
    pub(super) transfers: u64,
    pub(super) corrupted: u64,
    pub(super) bytes: u64,
    pub(super) datagrams: u64,
    pub(super) datagrams_lost: u64,
    pub(super) datagrams_moved: u64,
    /// From the SYN to the handshake's end.
    pub(super) connect: Durations,
    /// From a short request to the end of its answer.
    pub(super) request: Durations,
    /// The same of a long one.
    pub(super) transfer: Durations,
    /// By the name that the server says.
    pub(super) by_backend: BTreeMap<String, u64>,
    /// What the weights at each connection's beginning had led to expect.
    pub(super) expected: BTreeMap<String, f64>,
}

/// The counts of a run that goes on, and the pool as it is meanwhile.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: Mutex<Counts>,
    shares: Mutex<BTreeMap<String, f64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tally {
    /// The counts as they are.
    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        lock(&self.counts)
    }

    /// From now on new connections are to be shared out like this.
    pub(super) fn share(&self, shares: BTreeMap<String, f64>) {
        *lock(&self.shares) = shares;
    }

    pub(super) fn opens(&self, kind: Kind) {
        let mut counts = self.counts();
        counts.open += 1;
        match kind {
            Kind::Mptcp => counts.mptcp += 1,
            Kind::Tcp => counts.tcp += 1,
            Kind::Udp => counts.udp += 1,
        }
    }

    pub(super) fn connected(&self, took: Duration) {
        self.counts().connect.add(took);
    }

    /// The first answer names the backend of its connection. A UDP flow has none: it goes where such flows went before.
    pub(super) fn answered_by(&self, backend: &str) {
        let mut counts = self.counts();
        *counts.by_backend.entry(backend.to_owned()).or_default() += 1;
        for (name, share) in lock(&self.shares).iter() {
            *counts.expected.entry(name.clone()).or_default() += share;
        }
    }

    /// What is still open is dropped.
    pub(super) fn give_up(&self) {
        let mut counts = self.counts();
        let open = std::mem::take(&mut counts.open);
        counts.failed += open;
        counts.failures.push(format!("{open} connections did not end in time"));
    }

    pub(super) fn closed(&self, outcome: Result<(), impl Display>) {
        let mut counts = self.counts();
        counts.open -= 1;
        let Err(failure) = outcome else { return };
        counts.failed += 1;
        if counts.failures.len() < FAILURES_KEPT {
            counts.failures.push(failure.to_string());
        }
    }
}

impl Counts {
    pub(super) fn requested(&mut self, took: Duration) {
        self.request.add(took);
    }

    pub(super) fn transferred(&mut self, took: Duration) {
        self.transfer.add(took);
    }

    pub(super) fn sent(&mut self, echo: Echo) {
        self.datagrams += 1;
        self.datagrams_lost += u64::from(echo == Echo::Lost);
        self.datagrams_moved += u64::from(echo == Echo::Moved);
    }
}
