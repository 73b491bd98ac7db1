//! A running balancer: the configuration, the tables that it led to, and the ways to the backends, held together.
//!
//! [`load`](Service::load) brings it up, `reload` changes it under traffic, `report` tells what it does.

mod cluster;
mod duty;
mod entries;
mod error;
mod explain;
mod generations;
mod health;
mod leaving;
mod ledger;
mod orders;
mod plan;
mod quic;
mod rekey;
mod reload;
mod report;
mod resume;
mod rings;
mod share;
mod survival;
mod sweep;
mod tokens;
mod trace;
mod withdraw;

pub use cluster::JoinError;
pub use error::ServiceError;
pub use generations::TakeOver;
pub use health::News;
pub use ledger::Illegible;
pub use orders::OrderError;
pub use reload::{Staged, unreached};
pub(crate) use resume::sizes;
pub use survival::Ending;
pub use tokens::TokenConflict;
pub use trace::{Named, Trace, TraceError};

use crate::{
    bpf::{Balancer, LedgerTable, LoadError, LostPins, Pins},
    clock,
    config::{self, Config},
    health::Health,
    layout::{BackendRow, Layout, TunnelSource},
    metrics::Attachment,
    numbering::Numbering,
    resolve::NextHop,
    sweep::{Sweeper, Swept},
};
use aya::{maps::MapError, programs::XdpMode};
use duty::{Arrival, Duty};
use health::pools_failing_open;
use lb_common::{
    ids::{BackendId, FlowHash, PoolId, Tick},
    limits::{SERVICES_MAX, SERVICES_OF_CONFIG_MAX},
    tables::{self, Services},
};
use leaving::Unmeant;
use rings::Ring;
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};
use trace::Tracing;

/// The port rules of a configuration lie in one part of their table. Those in force are in another, and while a change
/// is under way, or was when a controller died, in two.
const SERVICE_PARTS: u32 = SERVICES_MAX / SERVICES_OF_CONFIG_MAX;

const _: () = assert!(SERVICE_PARTS >= 4);

/// A running balancer.
pub struct Service {
    started: Instant,
    state: Mutex<State>,
    /// Whoever sweeps has it, so that two do not; taken before the state.
    sweeping: Mutex<()>,
    /// Moves when the health of a backend has changed.
    health_changed: tokio::sync::Notify,
}

struct State {
    config: Config,
    numbers: Numbering,
    layout: Layout,
    /// Whom the ids in tokens mean, and have meant.
    tokens: tokens::TokenMemory,
    pins: Arc<Pins>,
    /// Whether the programs that tell what they decide are on the interfaces.
    tracing: Tracing,
    balancer: Balancer,
    ledger: LedgerTable,
    /// Where to say what others are to know, if there are any.
    publisher: Option<crate::bus::Publisher>,
    /// The pools that others were not told of since they have changed.
    changed: generations::Changed,
    /// The way to hand over to them.
    handover: Option<crate::bus::Handover>,
    /// Whether whoever announces the VIPs is to stop.
    is_withdrawn: bool,
    /// Whether the tables were there before this process.
    is_resumed: bool,
    /// Whether they are those of the configuration.
    is_in_force: bool,
    /// The backends of the configuration, and those that left it while flows may still be theirs.
    backends: BTreeMap<BackendId, Known>,
    rings: BTreeMap<PoolId, Ring>,
    /// The window in which flows of the former cluster key are kept, as a ring of one slot.
    rekeying: Option<Ring>,
    /// When the rings were last brought in line with the backends.
    rings_at: Duration,
    sweeper: Sweeper,
    /// First subflows that have closed, as others have told since the last sweep began.
    heard_closed: hashbrown::HashMap<FlowHash, Tick>,
    swept: Swept,
    /// When.
    swept_at: Instant,
    evicted: Evicted,
    filter_renewals: u64,
    /// How the program is attached, as the kernel last told.
    attachments: Vec<Attachment>,
    /// What of the pins was gone when this was last looked at.
    lost_pins: Option<LostPins>,
    unmeant: Unmeant,
    reloads: Reloads,
    /// The pools that are served though all their backends have failed.
    failing_open: BTreeSet<PoolId>,
    /// What checks have found and nobody was told yet.
    news: Vec<News>,
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
    /// When it was asked for.
    last_tried: SystemTime,
    /// Since when it is in force.
    in_force_since: SystemTime,
    /// How many have been put in force.
    commits: u64,
}

/// A backend and the way to it.
struct Known {
    row: BackendRow,
    duty: Duty,
    hop: Option<NextHop>,
    /// What the data path knows of it.
    written: tables::Backend,
    /// A controller before this one has written that; it holds until this one has looked for a way.
    is_inherited: bool,
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
}

impl Service {
    /// Loads the program over the pinned tables as they are, or over empty ones. What steers until now goes on: nothing
    /// that packets are looked up in is touched, and no interface.
    ///
    /// # Errors
    /// The kernel refuses the program or a map, the tables are not this configuration's, or another controller has them.
    pub fn load(config: Config) -> Result<Self, ServiceError> {
        let now = clock::now();
        let mut state = State::open(config, now)?;
        state.know_backends(now)?;
        state.save()?;
        Ok(Self {
            started: Instant::now(),
            state: Mutex::new(state),
            sweeping: Mutex::default(),
            health_changed: tokio::sync::Notify::new(),
        })
    }

    /// Makes the tables those of the configuration, and puts the program on the interfaces: to stay there, whatever
    /// becomes of this process.
    ///
    /// # Errors
    /// Another program is there, the driver has no XDP of the mode, or the kernel refuses.
    pub fn attach(&self) -> Result<(), ServiceError> {
        let mut state = self.state();
        state.put_in_force(clock::now())?;
        Ok(state.attach()?)
    }

    /// Whether the tables were there before this process.
    pub fn is_resumed(&self) -> bool {
        self.state().is_resumed
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

    /// Notes how the program is attached; what of it is new.
    pub fn note_attachments(&self, attachments: Vec<Attachment>) -> Vec<Attachment> {
        let mut state = self.state();
        let new = attachments.iter().filter(|attachment| !state.attachments.contains(attachment)).cloned().collect();
        state.attachments = attachments;
        new
    }

    /// How the other members of the cluster are reached, if there are any.
    pub fn bus(&self) -> Option<config::Bus> {
        self.state().config.bus.clone()
    }

    /// The interfaces of the configuration.
    pub fn interfaces(&self) -> Vec<String> {
        self.state().interfaces()
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

    /// Moves on what time alone changes: drains, slow starts, and the transitions of the rings.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn advance(&self) -> Result<(), ServiceError> {
        let mut state = self.state();
        let now = clock::now();
        state.advance_backends(now)?;
        state.advance_rings(now)?;
        state.advance_rekeying(now)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    /// Puts the program on the interfaces of the configuration, or back on them.
    fn attach(&mut self) -> Result<(), LoadError> {
        let mode = self.xdp_mode();
        let Self { config, balancer, pins, .. } = self;
        balancer.attach(config.balancer.interfaces.iter().map(config::InterfaceName::as_str), mode, pins)
    }

    const fn xdp_mode(&self) -> XdpMode {
        match self.config.balancer.xdp_mode {
            config::XdpMode::Native => XdpMode::Driver,
            config::XdpMode::Generic => XdpMode::Skb,
        }
    }

    /// Takes in the backends of the layout, and what each is to do from `now` on.
    fn know_backends(&mut self, now: Duration) -> Result<(), MapError> {
        let duties = self.duties_by(&self.layout, now);
        let standings = self.standings_by(&self.layout);
        let failing_open = pools_failing_open(&self.layout, &standings);
        let Self { layout, backends, balancer, .. } = self;
        let configured: BTreeSet<BackendId> = layout.backends.iter().map(|row| row.id).collect();
        for (id, known) in backends.iter_mut() {
            known.duty = duties[id];
            if !configured.contains(id) {
                (known.health, known.drain_ordered) = (None, false);
            }
        }
        for row in &layout.backends {
            let standing = standings[&row.id];
            let known = match backends.entry(row.id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let sent_before = report::sum(&balancer.sent.read(u32::from(row.id.0))?);
                    place.insert(Known { sent_before, ..Known::new(row.clone(), duties[&row.id]) })
                }
            };
            known.row = row.clone();
            known.take_standing(standing);
        }
        self.tell_of_failing_open(failing_open);
        Ok(())
    }

    /// What each backend would do from `now` on by another layout: those that are known, and those that are new.
    fn duties_by(&self, layout: &Layout, now: Duration) -> BTreeMap<BackendId, Duty> {
        let mut duties: BTreeMap<_, _> = self.backends.iter().map(|(&id, known)| (id, known.duty.leave())).collect();
        let pools: BTreeMap<PoolId, _> = layout.pools.iter().map(|pool| (pool.id, pool)).collect();
        let standings = self.standings_by(layout);
        let failing_open = pools_failing_open(layout, &standings);
        for row in &layout.backends {
            let alone = !self.rings.get(&row.pool).is_some_and(Ring::has_members);
            let opens = failing_open.contains(&row.pool);
            let opened = self.failing_open.contains(&row.pool);
            let arrival = if alone || opens || opened { Arrival::AtOnce } else { Arrival::AsConfigured };
            let before = self.backends.get(&row.id).map(|known| known.duty);
            let state = standings[&row.id].state(row.state, opens);
            duties.insert(row.id, Duty::next(before, state, pools[&row.pool], now, arrival));
        }
        duties
    }

    /// Has the tables follow the orders and the health of the backends, in the order of [`Self::put_in_force`].
    fn reconcile(&mut self, now: Duration) -> Result<(), ServiceError> {
        self.know_backends(now)?;
        self.save()?;
        self.write_backends(|known| known.duty.serves())?;
        self.change_rings(now)?;
        self.write_quic_servers()?;
        self.remove_quic_servers()?;
        Ok(self.write_backends(|_| true)?)
    }

    /// Makes the tables those of the layout and the backends, in an order that never leaves a packet without a backend.
    /// Returns how many slots have changed.
    fn put_in_force(&mut self, now: Duration) -> Result<usize, ServiceError> {
        self.save()?;
        self.is_in_force = true;
        self.write_backends(|known| known.duty.serves())?;
        let slots_changed = self.change_rings(now)?;
        self.write_quic_servers()?;
        self.write_tokens()?;
        self.note_known_tokens()?;
        self.write_services()?;
        self.remove_tokens()?;
        self.remove_quic_servers()?;
        self.write_backends(|_| true)?;
        Ok(slots_changed)
    }

    /// Writes the port rules, and then the addresses that point to them. The rules that packets are being looked up in
    /// stay as they are meanwhile: the new ones stand in another part of their table.
    fn write_services(&mut self) -> Result<(), MapError> {
        let in_use = self.balancer.services_in_use()?;
        let is_free = |part: &u32| !in_use.iter().any(|services| services.first / SERVICES_OF_CONFIG_MAX == *part);
        let first = (0..SERVICE_PARTS).find(is_free).map_or(0, |part| part * SERVICES_OF_CONFIG_MAX);
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
        if hop.is_none() && known.is_inherited && !self.is_in_force {
            return Ok(false);
        }
        let was_inherited = std::mem::take(&mut known.is_inherited);
        if known.hop == hop && !was_inherited {
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
    fn release_the_gone(&mut self) -> Result<(), ServiceError> {
        let Self { backends, layout, swept, rings, .. } = &*self;
        let unmeant = backends.keys().copied().filter(|id| {
            !layout.backends.iter().any(|row| row.id == *id)
                && !swept.backends.contains_key(id)
                && !rings.values().any(|ring| ring.transitions.mentions(*id))
        });
        let unmeant: Vec<BackendId> = unmeant.collect();
        let gone = self.unmeant.gone(unmeant.into_iter(), clock::tick());
        let names: Vec<_> = gone.iter().filter_map(|id| self.backends.remove(id)).collect();
        if names.iter().any(|known| !known.row.quic_servers.is_empty()) {
            self.remove_quic_servers()?;
        }
        if !names.is_empty() {
            self.write_all_bearers()?;
        }
        for id in gone {
            self.balancer.backends.write(u32::from(id.0), tables::Backend::GONE)?;
            self.balancer.probes.write(u32::from(id.0), tables::Backend::GONE)?;
            self.numbers.release(id);
        }
        self.numbers.release_pools(|pool| self.rings.contains_key(&pool));
        self.tokens.forget_pools(|name| self.numbers.pools().any(|(pool, _)| pool == name));
        Ok(self.save()?)
    }
}

impl Known {
    /// One that no packet has been sent to.
    const fn new(row: BackendRow, duty: Duty) -> Self {
        Self {
            row,
            duty,
            hop: None,
            written: tables::Backend::GONE,
            is_inherited: false,
            sent_before: tables::Counter { packets: 0, bytes: 0 },
            trouble: String::new(),
            probed: tables::Backend::GONE,
            health: None,
            drain_ordered: false,
        }
    }

    /// Why it is not reached, if it is to be and is not.
    fn unreached(&self) -> Option<&str> {
        (self.needs_a_way() && self.hop.is_none() && !self.trouble.is_empty()).then_some(self.trouble.as_str())
    }

    /// Whether packets are sent to it, be they only those of checks.
    const fn needs_a_way(&self) -> bool {
        self.duty.serves() || self.health.is_some()
    }

    /// What the data path is to know of it.
    fn entry(&self, balancer: &config::Balancer) -> tables::Backend {
        if self.is_inherited && self.duty.serves() {
            return self.written;
        }
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
