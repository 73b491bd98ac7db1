//! A running balancer: the configuration, the tables that it led to, and the ways to the backends, held together.
//!
//! [`load`](Service::load) brings it up, `reload` changes it under traffic, `report` tells what it does.

mod duty;
mod health;
mod leaving;
mod orders;
mod quic;
mod reload;
mod report;
mod rings;

pub use health::News;
pub use orders::OrderError;
pub use reload::{Reloaded, Staged};

use crate::{
    bpf::{Balancer, LoadError, Sizes},
    config::{self, Config, KeyError},
    health::{Health, Verdict},
    layout::{BackendRow, Layout, TunnelSource},
    numbering::{Exhausted, Numbering},
    refilter,
    resolve::NextHop,
    sweep::{Sweeper, Swept},
};
use aya::{maps::MapError, programs::XdpMode};
use duty::{Arrival, Duty};
use lb_common::{
    hash::SipKey,
    ids::{BackendId, PoolId, Tick},
    limits::SERVICES_MAX,
    tables::{self, Services},
};
use leaving::Unmeant;
use rings::Ring;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

/// A running balancer.
pub struct Service {
    started: Instant,
    state: Mutex<State>,
    /// Moves when the health of a backend has changed.
    health_changed: tokio::sync::Notify,
}

struct State {
    config: Config,
    numbers: Numbering,
    layout: Layout,
    /// Where the port rules in force begin in their table: it has two halves.
    services_from: u32,
    balancer: Balancer,
    /// The backends of the configuration, and those that left it while flows may still be theirs.
    backends: BTreeMap<BackendId, Known>,
    rings: BTreeMap<PoolId, Ring>,
    /// When the rings were last brought in line with the backends.
    rings_at: Duration,
    sweeper: Sweeper,
    swept: Swept,
    evicted: Evicted,
    unmeant: Unmeant,
    reloads: Reloads,
    /// The pools that are served though all their backends have failed.
    failing_open: BTreeSet<PoolId>,
    /// What checks have found and nobody was told yet.
    news: Vec<News>,
    /// Where the packets of checks are sent on their way.
    probed_interfaces: BTreeSet<String>,
    /// Why no check of an address can leave this machine.
    probe_troubles: BTreeMap<IpAddr, String>,
}

/// What has ended because its table was nearly full.
#[derive(Clone, Copy, Debug, Default)]
struct Evicted {
    tokens: u64,
    moved_flows: u64,
}

/// How the attempts to reload went.
#[derive(Clone, Copy, Debug)]
struct Reloads {
    /// Whether the configuration in force is the last that was asked for.
    last_succeeded: bool,
    /// Since when it is in force.
    in_force_since: SystemTime,
}

/// A backend and the way to it.
struct Known {
    row: BackendRow,
    duty: Duty,
    hop: Option<NextHop>,
    /// What the data path knows of it.
    written: tables::Backend,
    /// What an earlier bearer of its number was sent.
    sent_before: tables::Counter,
    /// What the operator was last told of it.
    trouble: String,
    /// What checks know of it.
    probed: tables::Backend,
    /// Its checks, if it is checked.
    health: Option<Health>,
    /// Whether the operator has ordered it to drain.
    drain_ordered: bool,
    /// Whether it has come with the present configuration.
    is_new: bool,
}

/// Why a balancer could not be brought up or changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The programs or maps could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A table could not be read or written.
    #[error("the kernel refused an entry of Weir's tables: {0}")]
    Table(#[from] MapError),
    /// There is no key for the flow hash.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Too many things are in use.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// A reload cannot change this.
    #[error("{0} cannot change while weir runs: restart it for that")]
    Fixed(&'static str),
}

impl Service {
    /// Loads the program and fills its tables. No backend is reachable yet, and no interface is touched.
    ///
    /// # Errors
    /// The kernel refuses the program, a map or an entry, or has no random bytes for a key.
    pub fn load(config: Config) -> Result<Self, ServiceError> {
        let numbers = Numbering::default().next(&config)?;
        let layout = Layout::of(&config, &numbers);
        let sizes = sizes(&config);
        let key = match &config.balancer.cluster_key {
            Some(key) => key.clone(),
            None => config::ClusterKey::random()?,
        };
        let mut balancer = Balancer::load(&sizes)?;
        balancer.globals.write(0, sizes.globals(SipKey::from_bytes(*key.bytes())))?;
        balancer.probe_mark.write(0, config.balancer.probe_mark)?;
        let mut state = State {
            rings: BTreeMap::new(),
            rings_at: Duration::ZERO,
            backends: BTreeMap::new(),
            config,
            numbers,
            layout,
            services_from: SERVICES_MAX / 2,
            balancer,
            sweeper: Sweeper::default(),
            swept: Swept::default(),
            evicted: Evicted::default(),
            unmeant: Unmeant::default(),
            reloads: Reloads { last_succeeded: true, in_force_since: SystemTime::now() },
            failing_open: BTreeSet::new(),
            news: Vec::new(),
            probed_interfaces: BTreeSet::new(),
            probe_troubles: BTreeMap::new(),
        };
        state.know_backends(Duration::ZERO, Verdict::Believed)?;
        state.change_rings(Duration::ZERO)?;
        state.write_quic_servers()?;
        state.write_services()?;
        Ok(Self { started: Instant::now(), state: Mutex::new(state), health_changed: tokio::sync::Notify::new() })
    }

    /// Attaches the program to the configured interfaces, for as long as the process lives.
    ///
    /// # Errors
    /// Another program is there, the driver has no XDP of the mode, or the kernel refuses.
    pub fn attach(&self) -> Result<(), LoadError> {
        let mut state = self.state();
        let mode = match state.config.balancer.xdp_mode {
            config::XdpMode::Native => XdpMode::Driver,
            config::XdpMode::Generic => XdpMode::Skb,
        };
        let State { config, balancer, .. } = &mut *state;
        for interface in &config.balancer.interfaces {
            balancer.attach(interface.as_str(), mode)?;
        }
        Ok(())
    }

    /// The backends that packets may be sent to, checks among them, with those that are leaving.
    pub fn backends(&self) -> Vec<BackendRow> {
        let state = self.state();
        let serving = state.backends.values().filter(|known| known.needs_a_way());
        serving.map(|known| known.row.clone()).collect()
    }

    /// Tells the data path the way to a backend, or that there is none. True if that is news.
    ///
    /// # Errors
    /// The kernel refuses the entry.
    pub fn set_hop(&self, id: BackendId, hop: Option<NextHop>) -> Result<bool, MapError> {
        self.state().set_hop(id, hop)
    }

    /// Whether some backend that packets may be sent to has no way to it.
    pub fn lacks_a_way(&self) -> bool {
        self.state().backends.values().any(|known| known.needs_a_way() && known.hop.is_none())
    }

    /// Whether this is not what was last said of a backend, so that the operator hears it once.
    pub fn is_new_trouble(&self, id: BackendId, trouble: &str) -> bool {
        let mut state = self.state();
        let Some(known) = state.backends.get_mut(&id) else { return false };
        if known.trouble == trouble {
            return false;
        }
        trouble.clone_into(&mut known.trouble);
        true
    }

    /// Ends the tokens and flows that are over, and lets go of the backends that nothing in the tables means any more.
    ///
    /// # Errors
    /// The kernel refuses a map operation.
    pub fn sweep(&self) -> Result<(), MapError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let rings = &state.rings;
        state.swept = state.sweeper.sweep(&mut state.balancer, now(), |pool| rings.contains_key(&pool))?;
        state.evicted.tokens += state.swept.tokens_evicted;
        state.evicted.moved_flows += state.swept.moved_flows_evicted;
        let entries = state.swept.joined_flows + state.swept.moved_flows + state.swept.pinned_flows;
        refilter::renew_if_full(&mut state.balancer, entries)?;
        state.release_the_gone()
    }

    /// Moves on what time alone changes: drains, slow starts, and the transitions of the rings.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn advance(&self) -> Result<(), MapError> {
        let mut state = self.state();
        let now = self.started.elapsed();
        state.advance_backends(now)?;
        state.advance_rings(now)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Takes in the backends of the layout, and what each is to do from `now` on.
    fn know_backends(&mut self, now: Duration, of_the_newcomers: Verdict) -> Result<(), MapError> {
        let Self { layout, backends, balancer, .. } = self;
        let configured: BTreeSet<BackendId> = layout.backends.iter().map(|row| row.id).collect();
        for known in backends.values_mut().filter(|known| !configured.contains(&known.row.id)) {
            known.duty = known.duty.leave();
            (known.health, known.drain_ordered) = (None, false);
        }
        for row in &layout.backends {
            if let Some(known) = backends.get_mut(&row.id) {
                known.drain_ordered &= known.row.state == row.state;
                known.row = row.clone();
                continue;
            }
            let known = Known {
                row: row.clone(),
                duty: Duty::Down,
                hop: None,
                written: tables::Backend::GONE,
                sent_before: report::sum(&balancer.sent.read(u32::from(row.id.0))?),
                trouble: String::new(),
                probed: tables::Backend::GONE,
                health: None,
                drain_ordered: false,
                is_new: true,
            };
            backends.insert(row.id, known);
        }
        self.begin_or_end_checks(of_the_newcomers);
        self.assign_duties(now);
        Ok(())
    }

    /// Says what each backend is to do from `now` on, by its configuration, its order and its health.
    fn assign_duties(&mut self, now: Duration) {
        let open_before = std::mem::take(&mut self.failing_open);
        self.failing_open = self.pools_failing_open();
        self.tell_of_failing_open(&open_before);
        let Self { layout, backends, rings, failing_open, .. } = self;
        let pools: BTreeMap<PoolId, _> = layout.pools.iter().map(|pool| (pool.id, pool)).collect();
        for row in &layout.backends {
            let Some(known) = backends.get_mut(&row.id) else { continue };
            let alone = !rings.get(&row.pool).is_some_and(Ring::has_members);
            let opens = failing_open.contains(&row.pool) || open_before.contains(&row.pool);
            let arrival = if alone || opens { Arrival::AtOnce } else { Arrival::AsConfigured };
            let state = known.effective(failing_open.contains(&row.pool));
            known.duty = Duty::next(Some(known.duty), state, pools[&row.pool], now, arrival);
        }
    }

    /// Has the tables follow what the backends are to do now, in an order that never leaves a packet without one.
    fn reconcile(&mut self, now: Duration) -> Result<(), MapError> {
        self.assign_duties(now);
        self.write_backends(|known| known.duty.serves())?;
        self.change_rings(now)?;
        self.write_quic_servers()?;
        self.remove_quic_servers()?;
        self.write_backends(|_| true)
    }

    /// Writes the port rules, and then the addresses that point to them. The rules that packets are being looked up in
    /// stay as they are meanwhile: the new ones stand in the other half of their table.
    fn write_services(&mut self) -> Result<(), MapError> {
        self.services_from = if self.services_from == 0 { SERVICES_MAX / 2 } else { 0 };
        let first = self.services_from;
        for (index, &service) in (first..).zip(&self.layout.services) {
            self.balancer.services.write(index, service)?;
        }
        let placed = |services: Services| Services { first: first + services.first, ..services };
        let addresses: Vec<_> =
            self.layout.addresses.iter().map(|&(address, services)| (address, placed(services))).collect();
        let prefixes: Vec<_> =
            self.layout.prefixes.iter().map(|&(address, len, services)| (address, len, placed(services))).collect();
        self.balancer.write_addresses(&addresses, &prefixes)
    }

    fn set_hop(&mut self, id: BackendId, hop: Option<NextHop>) -> Result<bool, MapError> {
        let Some(known) = self.backends.get_mut(&id) else { return Ok(false) };
        if known.hop == hop {
            return Ok(false);
        }
        known.hop = hop;
        known.trouble.clear();
        self.write_backends(|known| known.row.id == id)?;
        Ok(true)
    }

    /// Tells the data path what it does not know yet of the backends that are `meant`.
    fn write_backends(&mut self, meant: impl Fn(&Known) -> bool) -> Result<(), MapError> {
        let Self { backends, balancer, config, .. } = self;
        for (id, known) in backends.iter_mut().filter(|(_, known)| meant(known)) {
            let entry = known.entry(&config.balancer);
            if entry != known.written {
                balancer.backends.write(u32::from(id.0), entry)?;
                known.written = entry;
            }
            let probed = if known.health.is_some() { known.way(&config.balancer) } else { tables::Backend::GONE };
            if probed != known.probed {
                balancer.probes.write(u32::from(id.0), probed)?;
                known.probed = probed;
            }
        }
        Ok(())
    }

    /// Whether a backend is in the configuration.
    fn is_configured(&self, id: BackendId) -> bool {
        self.layout.backends.iter().any(|row| row.id == id)
    }

    /// Frees the numbers that nothing has meant for a while.
    fn release_the_gone(&mut self) -> Result<(), MapError> {
        let Self { backends, layout, swept, rings, .. } = &*self;
        let unmeant = backends.keys().copied().filter(|id| {
            !layout.backends.iter().any(|row| row.id == *id)
                && !swept.backends.contains_key(id)
                && !rings.values().any(|ring| ring.transitions.mentions(*id))
        });
        let unmeant: Vec<BackendId> = unmeant.collect();
        let gone = self.unmeant.gone(unmeant.into_iter(), now());
        let names: Vec<_> = gone.iter().filter_map(|id| self.backends.remove(id)).collect();
        if names.iter().any(|known| !known.row.quic_servers.is_empty()) {
            self.remove_quic_servers()?;
        }
        for id in gone {
            self.balancer.backends.write(u32::from(id.0), tables::Backend::GONE)?;
            self.balancer.probes.write(u32::from(id.0), tables::Backend::GONE)?;
            self.numbers.release(id);
        }
        self.numbers.release_pools(|pool| self.rings.contains_key(&pool));
        Ok(())
    }
}

impl Known {
    /// Whether packets are sent to it, be they only those of checks.
    const fn needs_a_way(&self) -> bool {
        self.duty.serves() || self.health.is_some()
    }

    /// What the data path is to know of it.
    fn entry(&self, balancer: &config::Balancer) -> tables::Backend {
        if self.duty.serves() { self.way(balancer) } else { tables::Backend::GONE }
    }

    /// The way to it, whether it serves or not.
    fn way(&self, balancer: &config::Balancer) -> tables::Backend {
        let source = |hop: &NextHop| {
            let configured = match hop.source {
                IpAddr::V4(_) => balancer.source_v4,
                IpAddr::V6(_) => balancer.source_v6,
            };
            TunnelSource { prefix: configured.unwrap_or_else(|| hop.source.into()), gue_port: balancer.gue_port }
        };
        self.hop.as_ref().and_then(|hop| self.row.entry(hop, source(hop))).unwrap_or(tables::Backend::GONE)
    }
}

fn sizes(config: &Config) -> Sizes {
    Sizes {
        pools: lb_common::limits::POOLS_MAX,
        tokens: config.limits.tokens,
        joined_flows: config.limits.joined_flows,
        moved_flows: config.limits.moved_flows,
        pinned_flows: config.limits.pinned_flows,
        pending_handshakes: config.limits.pending_handshakes,
        embryonic_flows: config.limits.embryonic_flows,
        datagram_flows: config.limits.datagram_flows,
        fragmented_datagrams: config.limits.fragmented_datagrams,
        entries_per_network: config.limits.entries_per_network,
        icmp_errors_per_cpu: config.limits.icmp_errors_per_cpu,
    }
}

/// The clock that the data path reads.
fn now() -> Tick {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    });
    Tick::from_nanos(time)
}
