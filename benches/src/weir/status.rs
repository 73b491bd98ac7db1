//! Reads `weir status --output json`, as a script of an operator would.

use std::path::Path;

use serde::Deserialize;

use crate::{LabError, namespace::Namespace};

/// What a balancer says of its rings and tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeirStatus {
    /// Slots in transition, of all pools.
    pub slots_in_transition: u64,
    /// Tokens.
    pub tokens: u64,
    /// Flows that began in a slot in transition.
    pub moved_flows: u64,
    /// Flows that outlive the transition of their slot.
    pub pinned_flows: u64,
    /// Joined subflows on another backend than the ring's.
    pub joined_flows: u64,
    /// Flows of the former cluster key are still kept.
    pub keeps_former_key: bool,
    /// The backends, with those that are leaving.
    pub backends: Vec<BackendStatus>,
}

/// What a balancer says of a backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// `up`, `drain` or `down`.
    pub state: String,
    /// It is no longer in the configuration.
    pub leaving: bool,
    /// Percent of its share that it takes.
    pub share_percent: u64,
    /// Slots whose new connections it takes.
    pub slots: u64,
    /// Slots in transition whose older connections are its.
    pub slots_previous: u64,
    /// Seconds for which it still keeps its connections.
    pub drain_ends_in_s: Option<u64>,
}

impl WeirStatus {
    /// The backend of a name.
    pub fn backend(&self, name: &str) -> Option<&BackendStatus> {
        self.backends.iter().find(|backend| backend.name == name)
    }
}

#[derive(Deserialize)]
struct Answer {
    pools: Vec<Pool>,
    former_key_ends_in_s: Option<u64>,
    tables: Vec<Table>,
    backends: Vec<BackendStatus>,
}

#[derive(Deserialize)]
struct Pool {
    slots_in_transition: u64,
}

#[derive(Deserialize)]
struct Table {
    name: String,
    entries: u64,
}

pub(super) fn read(namespace: &Namespace, program: &Path, socket: &Path) -> Result<WeirStatus, LabError> {
    let (program, socket) = (program.to_string_lossy(), socket.to_string_lossy());
    let printed = namespace.output(&program, &["status", "--output", "json", "--socket", &socket])?;
    let answer: Answer =
        serde_json::from_str(&printed).map_err(|_| LabError::Output { program: "weir status", line: printed })?;
    let entries = |name| answer.tables.iter().find(|table| table.name == name).map_or(0, |table| table.entries);
    Ok(WeirStatus {
        slots_in_transition: answer.pools.iter().map(|pool| pool.slots_in_transition).sum(),
        tokens: entries("tokens"),
        moved_flows: entries("moved_flows"),
        pinned_flows: entries("pinned_flows"),
        joined_flows: entries("joined_flows"),
        keeps_former_key: answer.former_key_ends_in_s.is_some(),
        backends: answer.backends,
    })
}
