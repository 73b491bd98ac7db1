//! Reads `weir status --output json`, as a script of an operator would.

use std::path::Path;

use serde::Deserialize;

use crate::{LabError, namespace::Namespace};

/// What a balancer says of its rings and tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeirStatus {
    /// Slots in transition, of all pools.
    pub slots_in_transition: u64,
    /// Flows that began in a slot in transition.
    pub moved_flows: u64,
    /// Flows that outlive the transition of their slot.
    pub pinned_flows: u64,
    /// Joined subflows on another backend than the ring's.
    pub joined_flows: u64,
}

#[derive(Deserialize)]
struct Answer {
    pools: Vec<Pool>,
    tables: Vec<Table>,
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
        moved_flows: entries("moved_flows"),
        pinned_flows: entries("pinned_flows"),
        joined_flows: entries("joined_flows"),
    })
}
