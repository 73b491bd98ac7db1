//! The MPTCP connections of VIPs that live here, and what the balancers have to be told when they change.

use crate::config::Name;
use lb_common::{
    ids::Token,
    stateless::{EPOCHS, Epoch},
};
use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// What a balancer is to know of a connection.
#[derive(Clone, PartialEq, Eq)]
pub struct Report {
    /// The pool of the VIP that its client opened it to.
    pub pool: Name,
    /// Its token.
    pub token: Token,
    /// Whether it lives.
    pub op: Op,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It lives here: its joins are to come.
    Hold,
    /// It has ended.
    Close,
}

/// Without the token, which nobody is to read.
impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report").field("pool", &self.pool).field("op", &self.op).finish_non_exhaustive()
    }
}

/// Who is told.
pub trait Sink: Send {
    /// Takes what has changed, in its order. Must not wait: events pile up meanwhile.
    fn take(&mut self, reports: Vec<Report>);
}

/// A task that listens to a channel. One that has ended is told no more.
impl Sink for tokio::sync::mpsc::UnboundedSender<Vec<Report>> {
    fn take(&mut self, reports: Vec<Report>) {
        let _ = self.send(reports);
    }
}

/// Somebody, if there is anybody.
impl<S: Sink> Sink for Option<S> {
    fn take(&mut self, reports: Vec<Report>) {
        if let Some(sink) = self {
            sink.take(reports);
        }
    }
}

/// Nobody.
impl Sink for () {
    fn take(&mut self, _reports: Vec<Report>) {}
}

/// The connections that are known, for all who ask.
#[derive(Default)]
pub struct Known(Mutex<Connections>);

#[derive(Default)]
struct Connections {
    pools: HashMap<Token, Name>,
    /// How many there are of each pool, by the epoch that their tokens name.
    counts: HashMap<Name, [u64; EPOCHS]>,
}

impl Connections {
    /// Whether it is new.
    fn add(&mut self, token: Token, pool: &Name) -> bool {
        if self.pools.contains_key(&token) {
            return false;
        }
        self.pools.insert(token, pool.clone());
        if !self.counts.contains_key(pool) {
            self.counts.insert(pool.clone(), [0; EPOCHS]);
        }
        self.count(token, pool, |count| count + 1);
        true
    }

    /// Its pool, if it was there.
    fn remove(&mut self, token: Token) -> Option<Name> {
        let pool = self.pools.remove(&token)?;
        self.count(token, &pool, |count| count - 1);
        Some(pool)
    }

    fn count(&mut self, token: Token, pool: &Name, change: impl FnOnce(u64) -> u64) {
        if let Some(counts) = self.counts.get_mut(pool) {
            let count = &mut counts[usize::from(Epoch::of(token).number())];
            *count = change(*count);
        }
    }
}

impl Known {
    /// All of them, for a balancer that has just come.
    pub fn reports(&self) -> Vec<Report> {
        self.lock().pools.iter().map(|(&token, pool)| hold(token, pool)).collect()
    }

    /// How many there are, by pool. A pool that had some once is among them.
    pub fn counts(&self) -> HashMap<Name, u64> {
        self.lock().counts.iter().map(|(pool, epochs)| (pool.clone(), epochs.iter().sum())).collect()
    }

    /// How many of a pool's there are by the epoch that their tokens name.
    pub fn epochs(&self, pool: &Name) -> [u64; EPOCHS] {
        self.lock().counts.get(pool).copied().unwrap_or_default()
    }

    /// One that was created.
    pub(super) fn add(&self, token: Token, pool: &Name) -> Option<Report> {
        self.lock().add(token, pool).then(|| hold(token, pool))
    }

    /// One that has ended.
    pub(super) fn remove(&self, token: Token) -> Option<Report> {
        let pool = self.lock().remove(token)?;
        Some(Report { pool, token, op: Op::Close })
    }

    /// These are all that there are.
    pub(super) fn replace(&self, live: Vec<(Token, Name)>) -> Vec<Report> {
        let tokens: HashSet<_> = live.iter().map(|(token, _)| *token).collect();
        let ended: Vec<_> = self.lock().pools.keys().filter(|token| !tokens.contains(token)).copied().collect();
        let closed: Vec<_> = ended.into_iter().filter_map(|token| self.remove(token)).collect();
        let held = live.into_iter().filter_map(|(token, pool)| self.add(token, &pool));
        closed.into_iter().chain(held).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hold(token: Token, pool: &Name) -> Report {
    Report { pool: pool.clone(), token, op: Op::Hold }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u32) -> Token {
        Token::from_wire(number.to_be_bytes())
    }

    fn told(reports: Vec<Report>) -> Vec<(u32, Op)> {
        let mut told: Vec<_> = reports.into_iter().map(|report| (report.token.number(), report.op)).collect();
        told.sort_by_key(|(number, _)| *number);
        told
    }

    #[test]
    fn only_changes_are_told() {
        let (known, web) = (Known::default(), "web".parse().expect("a name"));
        assert!(known.add(token(1), &web).is_some() && known.add(token(1), &web).is_none());
        assert!(known.add(token(2), &web).is_some());
        assert!(known.remove(token(3)).is_none());
        let live = vec![(token(2), web.clone()), (token(3), web.clone())];
        assert_eq!(told(known.replace(live.clone())), [(1, Op::Close), (3, Op::Hold)]);
        assert_eq!(told(known.replace(live)), []);
        assert_eq!(told(known.reports()), [(2, Op::Hold), (3, Op::Hold)]);
        let epochs = known.epochs(&web);
        assert_eq!((known.counts()[&web], epochs.iter().sum::<u64>()), (2, 2));
        assert_eq!(epochs[usize::from(Epoch::of(token(2)).number())], 2, "both are of one epoch");
        assert!(known.remove(token(2)).is_some_and(|report| report.op == Op::Close));
    }

    #[test]
    fn a_report_does_not_show_its_token() {
        let report = hold(token(0xdead_beef), &"web".parse().expect("a name"));
        let shown = format!("{report:?}").to_lowercase();
        assert!(!shown.contains("deadbeef") && !shown.contains(&0xdead_beef_u32.to_string()), "{shown}");
    }
}
