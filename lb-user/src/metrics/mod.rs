//! Weir's counters for Prometheus: what they are called, and the HTTP listener that serves them.
//!
//! The numbers live in the kernel's tables. A [`Source`] reads them when Prometheus asks and never in between, and
//! nothing here counts by itself. No label ever holds an address, port or token of a client.

mod collector;
mod families;
mod listener;

pub use families::{FAMILIES, Family, Kind};
pub use listener::{ListenError, Listener, Readiness};

/// Where the numbers come from.
pub trait Source: Send + Sync + 'static {
    /// The numbers as they are now. May block for the time of some system calls.
    fn snapshot(&self) -> Snapshot;
}

/// All numbers at one time. Each row of a list has its own labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// By VIP and reason.
    pub packets: Vec<PacketCount>,
    /// By backend.
    pub backends: Vec<BackendCount>,
    /// By table.
    pub tables: Vec<TableFill>,
    /// How the XDP program is attached: `native` or `generic`.
    pub xdp_mode: &'static str,
}

/// Packets of a VIP that had one fate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketCount {
    /// The VIP's name; empty for packets to none.
    pub vip: String,
    /// Its pool's name; empty likewise.
    pub pool: String,
    /// The reason for the fate.
    pub reason: &'static str,
    /// Since the program was loaded.
    pub packets: u64,
    /// Their bytes as received, from the Ethernet header on.
    pub bytes: u64,
}

/// Packets sent to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendCount {
    /// The name of the backend's pool.
    pub pool: String,
    /// The backend's name.
    pub backend: String,
    /// Since the program was loaded.
    pub packets: u64,
    /// Their bytes as received, from the Ethernet header on.
    pub bytes: u64,
}

/// How full a table is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFill {
    /// The table's name.
    pub table: &'static str,
    /// Entries in it.
    pub entries: u64,
    /// Entries that it has room for.
    pub limit: u64,
}
