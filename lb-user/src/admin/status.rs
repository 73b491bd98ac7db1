//! What `weir status` tells: the JSON of the admin socket, and the same for people.

use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// A running balancer.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Status {
    /// Weir's version.
    pub version: String,
    /// The interface that the XDP program is attached to.
    pub interface: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// The VIPs, in the order of the configuration.
    pub vips: Vec<VipStatus>,
    /// The pools, likewise.
    pub pools: Vec<PoolStatus>,
    /// The backends, with those that are leaving.
    pub backends: Vec<BackendStatus>,
    /// The tables that connections need.
    pub tables: Vec<TableStatus>,
}

/// A VIP and its packets since the start.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct VipStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its protocol.
    pub protocol: String,
    /// The pool that serves it.
    pub pool: String,
    /// Packets sent to backends.
    pub forwarded: u64,
    /// Packets that no backend got.
    pub dropped: u64,
    /// Packets by reason, without those that had none.
    pub reasons: Vec<(String, u64)>,
}

/// A pool and what is left of its changes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Slots of its ring that connections of two backends may be in.
    pub slots_in_transition: usize,
    /// Seconds until the last of them settles; nothing when all have.
    pub transition_ends_in_s: Option<u64>,
}

/// A backend and its packets since the start.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Its address.
    pub address: IpAddr,
    /// Its share of the ring.
    pub weight: u16,
    /// It is no longer in the configuration, but may still have flows.
    pub leaving: bool,
    /// MAC address and interface by which it is reached; nothing while it is not.
    pub next_hop: Option<String>,
    /// Packets sent to it.
    pub packets: u64,
}

/// A table, as of the last sweep.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries that it has room for.
    pub limit: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, interface, xdp_mode, uptime_s, .. } = self;
        writeln!(f, "weir {version} on {interface} ({xdp_mode} XDP), up {uptime_s} s")?;
        writeln!(f, "\n{:<24} {:<44} {:<16} {:>12} {:>12}", "VIP", "ADDRESS", "POOL", "FORWARDED", "DROPPED")?;
        for vip in &self.vips {
            let address = format!("{}/{}", std::net::SocketAddr::new(vip.address, vip.port), vip.protocol);
            writeln!(f, "{:<24} {address:<44} {:<16} {:>12} {:>12}", vip.name, vip.pool, vip.forwarded, vip.dropped)?;
            for (reason, packets) in &vip.reasons {
                writeln!(f, "  {reason:<82} {packets:>12}")?;
            }
        }
        writeln!(f, "\n{:<24} {:>20} {:>16}", "POOL", "SLOTS IN TRANSITION", "SETTLED IN")?;
        for pool in &self.pools {
            let settled = pool.transition_ends_in_s.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"));
            writeln!(f, "{:<24} {:>20} {settled:>16}", pool.name, pool.slots_in_transition)?;
        }
        writeln!(
            f,
            "\n{:<24} {:<16} {:<40} {:>6} {:>12}  NEXT HOP",
            "BACKEND", "POOL", "ADDRESS", "WEIGHT", "PACKETS"
        )?;
        for backend in &self.backends {
            let address = backend.address.to_string();
            let hop = backend.next_hop.as_deref().unwrap_or("unreachable");
            let leaving = if backend.leaving { " (leaving)" } else { "" };
            let BackendStatus { name, pool, weight, packets, .. } = backend;
            writeln!(f, "{name:<24} {pool:<16} {address:<40} {weight:>6} {packets:>12}  {hop}{leaving}")?;
        }
        writeln!(f, "\n{:<24} {:>12} {:>12}", "TABLE", "ENTRIES", "LIMIT")?;
        for table in &self.tables {
            writeln!(f, "{:<24} {:>12} {:>12}", table.name, table.entries, table.limit)?;
        }
        Ok(())
    }
}
