//! What `weir status` tells: the JSON of the admin socket, and the same for people.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, net::IpAddr};

/// A running balancer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct Status {
    /// Weir's version.
    pub version: String,
    /// The interfaces that the XDP program is attached to.
    pub interfaces: Vec<String>,
    /// How the program is attached, as the kernel tells: `native`, `generic`, `hardware`, or `none` where it is gone; a word
    /// for each interface where they differ.
    pub xdp_mode: String,
    /// `native` or `generic`, as configured.
    pub xdp_mode_configured: String,
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
    /// Whether `weir drain-self` has withdrawn this balancer.
    pub is_withdrawn: bool,
    /// Whether the last reload was refused, so that the configuration in force is an older one than the file.
    #[serde(default)]
    pub reload_refused: bool,
    /// Seconds until flows of the former cluster key are no longer kept; nothing where no other key has held.
    pub former_key_ends_in_s: Option<u64>,
    /// The bus of the cluster; nothing where none is configured.
    pub bus: Option<BusStatus>,
}

/// A VIP and its packets since the start.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct VipStatus {
    /// Its name.
    pub name: String,
    /// Its address, or its prefix of addresses.
    pub address: String,
    /// Its port, its range of ports, or `any`.
    pub ports: String,
    /// Its protocol.
    pub protocol: String,
    /// The pool that serves it.
    pub pool: String,
    /// Packets sent to backends.
    pub forwarded: u64,
    /// Packets that Weir answered itself.
    pub answered: u64,
    /// Packets that nobody got.
    pub dropped: u64,
    /// Packets by reason, without those that had none.
    pub reasons: Vec<(String, u64)>,
}

/// A pool and what is left of its changes.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// Slots of its ring that connections of two backends may be in.
    pub slots_in_transition: usize,
    /// Seconds until the last of them settles; nothing when all have.
    pub transition_ends_in_s: Option<u64>,
    /// All of its backends fail their health checks, and all are used nevertheless.
    pub failing_open: bool,
    /// Slots that stay in transition longer than configured, because the table of pinned flows had no room.
    pub slots_extended: usize,
    /// None of its backends takes new connections: each is dropped.
    #[serde(default)]
    pub takes_nobody: bool,
}

/// A backend and its packets since the start.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Its address.
    pub address: IpAddr,
    /// Its share of the ring.
    pub weight: u16,
    /// `up`, `drain` or `down`, as configured; the last that it was, if it is leaving.
    pub state: String,
    /// It is no longer in the configuration, but may still have flows.
    pub leaving: bool,
    /// What it does by its configuration, its order and its health: `up`, `rising`, `draining`, `drained`, `down` or
    /// `leaving`.
    pub duty: String,
    /// The operator has ordered it to drain.
    pub drain_ordered: bool,
    /// What its health checks say; nothing where it is not checked.
    pub health: Option<HealthStatus>,
    /// What the tables held of it at the last sweep.
    pub held: HeldStatus,
    /// Percent of its share that it takes; less than 100 while it starts slowly.
    pub share_percent: u32,
    /// Slots whose new connections it takes.
    pub slots: u64,
    /// Slots in transition whose older connections are its.
    pub slots_previous: u64,
    /// Seconds for which it keeps its connections, if it drains; 0 when they are over.
    pub drain_ends_in_s: Option<u64>,
    /// MAC address and interface by which it is reached; nothing while it is not.
    pub next_hop: Option<String>,
    /// Why it is not reached; nothing while it is, or while nothing is to be sent to it.
    #[serde(default)]
    pub unreached: Option<String>,
    /// Neither it nor another backend of its pool takes new connections: each is dropped.
    #[serde(default)]
    pub pool_takes_nobody: bool,
    /// Packets sent to it.
    pub packets: u64,
}

/// The health checks of a backend.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct HealthStatus {
    /// What is asked: `tcp`, `http`, `https` or `mptcp`.
    pub check: String,
    /// The addresses and ports of VIPs that checks connect to: one, or one of each family.
    pub target: String,
    /// `up`, `down` or `unchecked`.
    pub verdict: String,
    /// Good checks so far.
    pub passed: u64,
    /// Failed checks so far.
    pub failed: u64,
    /// How long the last check took, in milliseconds.
    pub last_took_ms: u64,
    /// Why the last check failed; nothing if it was good.
    pub last_error: Option<String>,
    /// Whether the last good check was given a token that names the backend; false where it found plain TCP. Nothing where
    /// tokens are not asked for, or were not yet.
    #[serde(default)]
    pub mints_tokens: Option<bool>,
}

impl HealthStatus {
    /// What somebody has to know of it: why the last check failed, or what is missing though it was good.
    pub fn trouble(&self) -> Option<&str> {
        let plain = (self.mints_tokens == Some(false)).then_some("plain TCP: no tokens are minted, no client joins");
        self.last_error.as_deref().or(plain)
    }
}

/// What the tables hold of a backend; connections that the ring answers need nothing there.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct HeldStatus {
    /// Tokens of its MPTCP connections.
    pub tokens: u64,
    /// Joined subflows on another backend than the ring's.
    pub joined_flows: u64,
    /// Flows that began in a slot in transition.
    pub moved_flows: u64,
    /// Flows that outlive the transition of their slot.
    pub pinned_flows: u64,
}

/// A table, as of the last sweep.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct TableStatus {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub entries: u64,
    /// Entries that it has room for.
    pub limit: u64,
}

/// The bus, and what has gone over it since the start.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct BusStatus {
    /// The cluster.
    pub cluster: String,
    /// What this balancer is called in it.
    pub name: String,
    /// There is a connection to a server.
    pub connected: bool,
    /// The other members were asked for what they know since it was made.
    pub caught_up: bool,
    /// Entries told to the others.
    pub sent: u64,
    /// Entries of others that were taken.
    pub received: u64,
    /// Entries of others that were not, by reason, without those that had none.
    pub refused: Vec<(String, u64)>,
    /// Entries that found no room while the bus was down.
    pub lost: u64,
    /// What the data path had to tell and found no room for.
    pub events_lost: u64,
}

impl fmt::Display for BusStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, name, sent, received, lost, events_lost, .. } = self;
        let state = match (self.connected, self.caught_up) {
            (true, true) => "connected, caught up",
            (true, false) => "connected, catching up",
            (false, _) => "not connected, alone",
        };
        writeln!(f, "bus of cluster {cluster}, as {name}: {state}")?;
        write!(f, "  {sent} entries sent, {received} received, {lost} lost; {events_lost} events lost; refused: ")?;
        let refused: Vec<_> = self.refused.iter().map(|(reason, entries)| format!("{entries} {reason}")).collect();
        writeln!(f, "{}", if refused.is_empty() { "none".to_owned() } else { refused.join(", ") })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, uptime_s, .. } = self;
        let (interface, mode) = (self.interfaces.join(", "), self.mode_words());
        writeln!(f, "weir {version} on {interface} ({mode}), up {uptime_s} s")?;
        if self.is_withdrawn {
            writeln!(f, "withdrawn: /healthz answers 503 until `weir drain-self --undo`")?;
        }
        if self.reload_refused {
            writeln!(
                f,
                "the last reload was refused, and an older configuration is in force: `weir reload --dry-run` says why"
            )?;
        }
        if let Some(seconds) = self.former_key_ends_in_s {
            writeln!(f, "the cluster key has been changed: flows of the former one are kept for {seconds} s")?;
        }
        writeln!(
            f,
            "\n{:<24} {:<44} {:<16} {:>12} {:>12} {:>12}",
            "VIP", "ADDRESS", "POOL", "FORWARDED", "ANSWERED", "DROPPED"
        )?;
        for vip in &self.vips {
            let VipStatus { name, address, ports, protocol, pool, forwarded, answered, dropped, .. } = vip;
            let address = if address.contains(':') { format!("[{address}]") } else { address.clone() };
            let address = format!("{address}:{ports}/{protocol}");
            writeln!(f, "{name:<24} {address:<44} {pool:<16} {forwarded:>12} {answered:>12} {dropped:>12}")?;
            for (reason, packets) in &vip.reasons {
                writeln!(f, "  {reason:<82} {packets:>12}")?;
            }
        }
        writeln!(f, "\n{:<24} {:>20} {:>16} {:>16}", "POOL", "SLOTS IN TRANSITION", "SETTLED IN", "EXTENDED SLOTS")?;
        for pool in &self.pools {
            let settled = seconds(pool.transition_ends_in_s);
            let PoolStatus { name, slots_in_transition, slots_extended, .. } = pool;
            writeln!(f, "{name:<24} {slots_in_transition:>20} {settled:>16} {slots_extended:>16}")?;
        }
        for pool in self.pools.iter().filter(|pool| pool.takes_nobody) {
            writeln!(f, "warning: {}", takes_nobody(&pool.name))?;
        }
        writeln!(
            f,
            "\n{:<24} {:<16} {:<40} {:<9} {:>6} {:>6} {:>8} {:>8} {:>10} {:>12}  NEXT HOP",
            "BACKEND", "POOL", "ADDRESS", "STATE", "WEIGHT", "SHARE", "SLOTS", "PREVIOUS", "DRAINED IN", "PACKETS"
        )?;
        for backend in &self.backends {
            writeln!(f, "{backend}")?;
        }
        self.fmt_health(f)?;
        writeln!(f, "\n{:<24} {:>12} {:>12}", "TABLE", "ENTRIES", "LIMIT")?;
        for table in &self.tables {
            writeln!(f, "{:<24} {:>12} {:>12}", table.name, table.entries, table.limit)?;
        }
        self.bus.iter().try_for_each(|bus| write!(f, "\n{bus}"))
    }
}

impl Status {
    /// How the program is attached, and how it should be where that is something else.
    pub fn mode_words(&self) -> String {
        let Self { xdp_mode: mode, xdp_mode_configured: configured, .. } = self;
        if mode == configured { format!("{mode} XDP") } else { format!("{mode} XDP, configured {configured}") }
    }

    /// The health checks, where there are any.
    fn fmt_health(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.backends.iter().all(|backend| backend.health.is_none()) {
            return Ok(());
        }
        let [name, pool, health, check] = ["CHECKED BACKEND", "POOL", "HEALTH", "CHECK"];
        writeln!(f, "\n{name:<24} {pool:<16} {health:<10} {check:<36} {:>9} {:>9}  LAST ERROR", "PASSED", "FAILED")?;
        for (backend, health) in self.backends.iter().filter_map(|backend| Some((backend, backend.health.as_ref()?))) {
            let HealthStatus { check, target, verdict, passed, failed, .. } = health;
            let (BackendStatus { name, pool, .. }, check) = (backend, format!("{check} {target}"));
            let error = health.trouble().unwrap_or("-");
            writeln!(f, "{name:<24} {pool:<16} {verdict:<10} {check:<36} {passed:>9} {failed:>9}  {error}")?;
        }
        for pool in self.pools.iter().filter(|pool| pool.failing_open) {
            writeln!(f, "warning: every backend of pool {} fails its checks; all are used nevertheless", pool.name)?;
        }
        Ok(())
    }
}

impl BackendStatus {
    /// What somebody has to know of it: why it is not reached, or what its health checks found.
    pub fn trouble(&self) -> Option<&str> {
        self.unreached.as_deref().or_else(|| self.health.as_ref().and_then(HealthStatus::trouble))
    }
}

/// That every new connection of a pool is dropped, in words.
pub fn takes_nobody(pool: &str) -> String {
    format!("no backend of pool {pool} takes new connections: each is dropped")
}

impl fmt::Display for BackendStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, pool, weight, slots, slots_previous, packets, .. } = self;
        let address = self.address.to_string();
        let state = &self.duty;
        let share = format!("{} %", self.share_percent);
        let drained = seconds(self.drain_ends_in_s);
        let hop = self.next_hop.as_deref().unwrap_or("unreachable");
        write!(f, "{name:<24} {pool:<16} {address:<40} {state:<9} {weight:>6} {share:>6} {slots:>8} ")?;
        write!(f, "{slots_previous:>8} {drained:>10} {packets:>12}  {hop}")
    }
}

fn seconds(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s"))
}
