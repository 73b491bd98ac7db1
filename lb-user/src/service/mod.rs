//! A running balancer: the configuration, the tables that it led to, and the ways to the backends, held together.
//!
//! [`load`](Service::load) brings it up, `reload` changes it under traffic, `report` tells what it does.

mod reload;
mod report;

pub use reload::{Reloaded, Staged};

use crate::{
    bpf::{Balancer, LoadError, Sizes},
    config::{self, Config, KeyError},
    layout::{BackendRow, Layout},
    numbering::{Exhausted, Numbering},
    resolve::NextHop,
    sweep::{Sweeper, Swept},
};
use aya::{maps::MapError, programs::XdpMode};
use lb_common::{
    hash::SipKey,
    ids::{BackendId, PoolId, Tick},
    tables::{self, Slot},
    transition::Transitions,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Mutex, time::Instant};

/// A running balancer.
pub struct Service {
    started: Instant,
    state: Mutex<State>,
}

struct State {
    config: Config,
    numbers: Numbering,
    layout: Layout,
    balancer: Balancer,
    /// The backends of the configuration, and those that left it while flows may still be theirs.
    backends: BTreeMap<BackendId, Known>,
    rings: BTreeMap<PoolId, Transitions>,
    sweeper: Sweeper,
    swept: Swept,
    evicted: u64,
}

/// A backend and the way to it.
struct Known {
    row: BackendRow,
    hop: Option<NextHop>,
    /// What the operator was last told of it.
    trouble: String,
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
        let mut state = State {
            rings: layout.rings.iter().map(|(&pool, owners)| (pool, Transitions::settled(owners))).collect(),
            backends: layout.backends.iter().map(|row| (row.id, Known::new(row.clone()))).collect(),
            config,
            numbers,
            layout,
            balancer,
            sweeper: Sweeper::default(),
            swept: Swept::default(),
            evicted: 0,
        };
        state.fill()?;
        Ok(Self { started: Instant::now(), state: Mutex::new(state) })
    }

    /// Attaches the program to the configured interface, for as long as the process lives.
    ///
    /// # Errors
    /// Another program is there, the driver has no XDP of the mode, or the kernel refuses.
    pub fn attach(&self) -> Result<(), LoadError> {
        let mut state = self.state();
        let mode = match state.config.balancer.xdp_mode {
            config::XdpMode::Native => XdpMode::Driver,
            config::XdpMode::Generic => XdpMode::Skb,
        };
        let interface = state.config.balancer.interface.to_string();
        state.balancer.attach(&interface, mode)?;
        Ok(())
    }

    /// The backends that packets may be sent to, with those that are leaving.
    pub fn backends(&self) -> Vec<BackendRow> {
        self.state().backends.values().map(|known| known.row.clone()).collect()
    }

    /// Tells the data path the way to a backend, or that there is none. True if that is news.
    ///
    /// # Errors
    /// The kernel refuses the entry.
    pub fn set_hop(&self, id: BackendId, hop: Option<NextHop>) -> Result<bool, MapError> {
        self.state().set_hop(id, hop)
    }

    /// Whether some backend has no way to it.
    pub fn lacks_a_way(&self) -> bool {
        self.state().backends.values().any(|known| known.hop.is_none())
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
        state.swept = state.sweeper.sweep(&mut state.balancer, now())?;
        state.evicted += state.swept.tokens_evicted;
        state.release_the_gone()
    }

    /// Moves the transitions of the rings on.
    ///
    /// # Errors
    /// The kernel refuses a slot.
    pub fn advance(&self) -> Result<(), MapError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let full = state.swept.pinned_flows * 100 >= u64::from(state.config.limits.pinned_flows) * 95;
        for (&pool, ring) in &mut state.rings {
            let changed = ring.advance(self.started.elapsed(), full);
            write_slots(&mut state.balancer, pool, ring.slots(), &changed)?;
        }
        Ok(())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Known {
    const fn new(row: BackendRow) -> Self {
        Self { row, hop: None, trouble: String::new() }
    }
}

impl State {
    /// Fills empty tables from the inside out, so that an address is known only when all behind it stands.
    fn fill(&mut self) -> Result<(), MapError> {
        for (&pool, ring) in &self.rings {
            let all: Vec<u32> = (0..).take(ring.slots().len()).collect();
            write_slots(&mut self.balancer, pool, ring.slots(), &all)?;
        }
        self.write_services(0)
    }

    /// Writes the port rules from `first` on, and then the addresses that point to them.
    fn write_services(&mut self, first: u32) -> Result<(), MapError> {
        for (index, &service) in (first..).zip(&self.layout.services) {
            self.balancer.services.write(index, service)?;
        }
        for &(address, services) in &self.layout.addresses {
            let services = tables::Services { first: first + services.first, ..services };
            self.balancer.addresses.write(address, services)?;
        }
        Ok(())
    }

    fn set_hop(&mut self, id: BackendId, hop: Option<NextHop>) -> Result<bool, MapError> {
        let Some(known) = self.backends.get_mut(&id) else { return Ok(false) };
        if known.hop == hop {
            return Ok(false);
        }
        let source = |hop: &NextHop| match hop.source {
            IpAddr::V4(_) => self.config.balancer.source_v4.map_or(hop.source, IpAddr::V4),
            IpAddr::V6(_) => self.config.balancer.source_v6.map_or(hop.source, IpAddr::V6),
        };
        let entry = hop.as_ref().and_then(|hop| known.row.entry(hop, source(hop)));
        self.balancer.backends.write(u32::from(id.0), entry.unwrap_or(tables::Backend::GONE))?;
        known.hop = hop;
        known.trouble.clear();
        Ok(true)
    }

    /// Whether a backend is in the configuration.
    fn is_configured(&self, id: BackendId) -> bool {
        self.layout.backends.iter().any(|row| row.id == id)
    }

    fn release_the_gone(&mut self) -> Result<(), MapError> {
        let gone: Vec<BackendId> = self
            .backends
            .keys()
            .copied()
            .filter(|&id| !self.is_configured(id) && !self.swept.backends.contains(&id))
            .filter(|&id| !self.rings.values().any(|ring| ring.mentions(id)))
            .collect();
        for id in gone {
            self.balancer.backends.write(u32::from(id.0), tables::Backend::GONE)?;
            self.backends.remove(&id);
            self.numbers.release(id);
        }
        Ok(())
    }
}

fn write_slots(balancer: &mut Balancer, pool: PoolId, slots: &[Slot], changed: &[u32]) -> Result<(), MapError> {
    for &slot in changed {
        balancer.slots.write(lb_common::flow::slot_index(pool, slot), slots[slot as usize])?;
    }
    Ok(())
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
