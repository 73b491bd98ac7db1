//! Weir's counters for Prometheus: what they are called, and the HTTP listener that serves them. It also tells who announces
//! the VIPs whether to, and which.
//!
//! The numbers live in the kernel's tables. A [`Source`] reads them when Prometheus asks and never in between, and
//! nothing here counts by itself. No label ever holds an address, port or token of a client.

pub mod agent;
mod bus;
mod collector;
mod families;
mod listener;
pub mod reference;
mod vital;

pub use families::{FAMILIES, Family, Kind};
pub use listener::{ListenError, Listener, Page};
pub use vital::Readiness;

use crate::{bus::BusNumbers, config::Prefix};
use std::collections::BTreeSet;

/// Where the numbers come from.
pub trait Source: Send + Sync + 'static {
    /// The numbers as they are now. May block for the time of some system calls.
    fn snapshot(&self) -> Snapshot;

    /// What is to be routed to this balancer: its VIPs, and the addresses at which clients join backends.
    fn destinations(&self) -> BTreeSet<Prefix>;
}

/// All numbers at one time. Each row of a list has its own labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// By VIP and reason.
    pub packets: Vec<PacketCount>,
    /// By backend.
    pub backends: Vec<BackendCount>,
    /// By pool.
    pub pools: Vec<PoolGauges>,
    /// By table.
    pub tables: Vec<TableFill>,
    /// How the last attempt to change the configuration ended.
    pub reload: ReloadOutcome,
    /// How often the filter in front of the flows' entries was renewed.
    pub filter_renewals: u64,
    /// Seconds since the last sweep through the tables, or since the start.
    pub swept_s_ago: u64,
    /// Pins that somebody else has removed.
    pub pins_lost: u64,
    /// Whether the operator has withdrawn this balancer.
    pub is_withdrawn: bool,
    /// Seconds for which flows of the former cluster key are kept; 0 where no other key has held.
    pub former_key_ends_in_s: u64,
    /// The interfaces, and how the XDP program is attached to each.
    pub interfaces: Vec<Attachment>,
    /// How it is to be attached: `native` or `generic`.
    pub xdp_mode_configured: &'static str,
    /// The bus, where there is one.
    pub bus: Option<BusCount>,
}

/// What went over the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BusCount {
    /// What the member of the cluster has done.
    pub member: BusNumbers,
    /// What the data path had to tell and found no room for.
    pub events_lost: u64,
}

/// The XDP program on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// The interface.
    pub interface: String,
    /// `native`, `generic`, `hardware`, or `none` where it is gone.
    pub mode: &'static str,
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
    /// Since the tables were made, which outlive the process.
    pub packets: u64,
    /// The bytes of their frames as they came, from the Ethernet header on: to the end of the IP packet where it was
    /// forwarded, else all.
    pub bytes: u64,
}

/// A backend, and the packets sent to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendCount {
    /// The name of the backend's pool.
    pub pool: String,
    /// The backend's name.
    pub backend: String,
    /// One of [`BackendCount::STATES`].
    pub state: &'static str,
    /// Its share of the ring.
    pub weight: u64,
    /// Slots whose new connections it takes.
    pub slots_owned: u64,
    /// Slots in transition whose older connections are its.
    pub slots_previous: u64,
    /// Entries that name it, of each of [`BackendCount::TABLES`].
    pub held: [u64; 4],
    /// Whether there is a way to it, and a neighbour that answers.
    pub is_reachable: bool,
    /// Its health checks, where it is checked.
    pub health: Option<HealthCount>,
    /// Since it is known.
    pub packets: u64,
    /// The bytes of their frames as they came, from the Ethernet header to the end of the IP packet.
    pub bytes: u64,
}

impl BackendCount {
    /// No longer in the configuration.
    pub const LEAVING: &str = "leaving";
    /// The tables whose entries name backends.
    pub const TABLES: [&str; 4] = ["tokens", "joined_flows", "moved_flows", "pinned_flows"];
    /// The states that a backend can have.
    pub const STATES: [&str; 4] = ["up", "drain", "down", Self::LEAVING];

    /// A backend that is no longer in the configuration, and has no packets yet.
    pub fn of_leaving(pool: &str, backend: &str) -> Self {
        Self {
            pool: pool.to_owned(),
            backend: backend.to_owned(),
            state: Self::LEAVING,
            weight: 0,
            slots_owned: 0,
            slots_previous: 0,
            held: [0; 4],
            is_reachable: false,
            health: None,
            packets: 0,
            bytes: 0,
        }
    }
}

/// The health checks of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCount {
    /// Whether they let it take connections.
    pub is_up: bool,
    /// Good ones.
    pub passed: u64,
    /// Failed ones.
    pub failed: u64,
    /// Those that this machine could not make.
    pub unmade: u64,
    /// How long all of them took together.
    pub took: std::time::Duration,
    /// What they found out about tokens that name the backend, where these are asked for.
    pub minting: Option<MintCount>,
}

/// What health checks found out about tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MintCount {
    /// Whether the last good one was given a token that names the backend.
    pub mints: bool,
    /// How many found plain TCP.
    pub plain: u64,
}

/// What is left of a pool's changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolGauges {
    /// The pool's name.
    pub pool: String,
    /// Slots in transition.
    pub slots_in_transition: u64,
    /// Those of them that are so for longer than configured.
    pub slots_extended: u64,
    /// Whether it is served though all its backends fail their health checks.
    pub failing_open: bool,
}

/// How the last attempt to change the configuration ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReloadOutcome {
    /// Whether it was good; so is the start.
    pub last_succeeded: bool,
    /// When it was, in seconds of Unix time.
    pub last_tried_s: u64,
    /// Since when the present configuration is in force, in seconds of Unix time.
    pub in_force_since_s: u64,
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
    /// Entries that were ended because it was nearly full.
    pub evicted: u64,
}
