//! The connections of a fleet drill, all of them MPTCP: opened many at a time, and used all the time.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Client, LabError,
    traffic::{Connection, Mix},
};

/// Between two rounds: so that the client's kernel has joins to do too.
pub(super) const PAUSE: Duration = Duration::from_millis(50);
/// Connections that are being opened at a time.
const OPENERS: usize = 16;
/// All answers of a round are there in this time, or the connection is broken: what a dead balancer took with it is sent
/// again, more seldom each time.
const ROUND_LIMIT: Duration = Duration::from_secs(20);
const READ_LIMIT_MIN: Duration = Duration::from_millis(20);

/// The connections that live, and what became of the others.
#[derive(Debug, Default)]
pub(in crate::drill) struct Traffic {
    connections: Vec<Connection>,
    pub(in crate::drill) broken: Vec<String>,
}

impl Traffic {
    /// Opens one of each of these kinds. Also says which could not be opened, and why.
    pub(in crate::drill) fn open(client: &Client, kinds: &[Mix]) -> Result<(Self, Vec<String>), LabError> {
        let open = |kind: &Mix| -> Result<Connection, LabError> {
            let connection = Connection::open(client, *kind)?;
            connection.keep_alive().map_err(LabError::system("keep a connection alive"))?;
            Ok(connection)
        };
        let share = kinds.len().div_ceil(OPENERS).max(1);
        let outcomes: Vec<Result<Connection, LabError>> = thread::scope(|scope| {
            let openers: Vec<_> = kinds
                .chunks(share)
                .map(|kinds| scope.spawn(move || kinds.iter().map(open).collect::<Vec<_>>()))
                .collect();
            let join = |opener: thread::ScopedJoinHandle<'_, _>| {
                opener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            openers.into_iter().flat_map(join).collect()
        });
        let (mut traffic, mut failed) = (Self::default(), Vec::new());
        for outcome in outcomes {
            match outcome {
                Ok(connection) => traffic.connections.push(connection),
                Err(LabError::Interrupted) => return Err(LabError::Interrupted),
                Err(error) => failed.push(error.to_string()),
            }
        }
        Ok((traffic, failed))
    }

    /// Holds what has been opened.
    pub(in crate::drill) fn take(&mut self, mut others: Self) {
        self.connections.append(&mut others.connections);
        self.broken.append(&mut others.broken);
    }

    /// How many live.
    pub(in crate::drill) fn count(&self) -> usize {
        self.connections.len()
    }

    /// Closes all of them.
    pub(in crate::drill) fn close(&mut self) {
        self.connections.clear();
    }

    /// Every connection sends a line and waits for its echo. Those that do not get it are broken.
    pub(in crate::drill) fn exchange(&mut self) {
        let begun = Instant::now();
        let mut failed = BTreeMap::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if let Err(error) = connection.say() {
                failed.insert(index, error);
            }
        }
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if failed.contains_key(&index) {
                continue;
            }
            let limit = ROUND_LIMIT.saturating_sub(begun.elapsed()).max(READ_LIMIT_MIN);
            if let Err(error) = connection.limit_reads(limit).and_then(|()| connection.hear()) {
                failed.insert(index, error);
            }
        }
        let mut kept = Vec::with_capacity(self.connections.len());
        for (index, connection) in self.connections.drain(..).enumerate() {
            match failed.remove(&index) {
                None => kept.push(connection),
                Some(error) => {
                    let Connection { client, backend, .. } = &connection;
                    self.broken.push(format!("the connection from {client}, at {backend}, broke: {error}"));
                }
            }
        }
        self.connections = kept;
    }
}
