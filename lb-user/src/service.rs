//! A running balancer: the configuration's layout, the loaded program, and the ways to the backends, held together. What
//! the metrics and `weir status` tell is read here.

use crate::{
    admin::status::{BackendStatus, Status, TableStatus, VipStatus},
    bpf::{Balancer, LoadError, Sizes},
    config::{self, Config, KeyError},
    layout::{BackendRow, Layout},
    metrics::{BackendCount, PacketCount, Snapshot, Source, TableFill},
    resolve::NextHop,
    sweep::{Sweeper, Swept},
};
use aya::{maps::MapError, programs::XdpMode};
use lb_common::{
    hash::SipKey,
    ids::{Tick, VipId},
    reason::{Action, Reason},
    tables::{self, Counter, counter_index},
};
use std::{net::IpAddr, sync::Mutex, time::Instant};

/// A running balancer.
pub struct Service {
    config: Config,
    layout: Layout,
    started: Instant,
    state: Mutex<State>,
}

/// What changes while it runs.
struct State {
    balancer: Balancer,
    /// By backend, in the order of the layout; none where no way is known.
    hops: Vec<Option<NextHop>>,
    /// What was last said of each backend that has no way.
    troubles: Vec<String>,
    sweeper: Sweeper,
    swept: Swept,
    evicted: u64,
}

/// Why a balancer could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The programs or maps could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A table could not be written.
    #[error("the kernel refused an entry of Weir's tables: {0}")]
    Table(#[from] MapError),
    /// There is no key for the flow hash.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Service {
    /// Loads the program and fills its tables. No backend is reachable yet, and no interface is touched.
    ///
    /// # Errors
    /// The kernel refuses the program, a map or an entry, or has no random bytes for a key.
    pub fn load(config: Config) -> Result<Self, ServiceError> {
        let layout = Layout::of(&config);
        let sizes = sizes(&config);
        let key = match &config.balancer.cluster_key {
            Some(key) => key.clone(),
            None => config::ClusterKey::random()?,
        };
        let mut balancer = Balancer::load(&sizes)?;
        balancer.globals.write(0, sizes.globals(SipKey::from_bytes(*key.bytes())))?;
        fill(&mut balancer, &layout)?;
        let state = State {
            balancer,
            hops: vec![None; layout.backends.len()],
            troubles: vec![String::new(); layout.backends.len()],
            sweeper: Sweeper::default(),
            swept: Swept::default(),
            evicted: 0,
        };
        Ok(Self { config, layout, started: Instant::now(), state: Mutex::new(state) })
    }

    /// The configuration that it runs by.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The backends, in the order in which [`Self::set_hop`] knows them.
    pub fn backends(&self) -> &[BackendRow] {
        &self.layout.backends
    }

    /// Attaches the program to the configured interface, for as long as the process lives.
    ///
    /// # Errors
    /// Another program is there, the driver has no XDP of the mode, or the kernel refuses.
    pub fn attach(&self) -> Result<(), LoadError> {
        let mode = match self.config.balancer.xdp_mode {
            config::XdpMode::Native => XdpMode::Driver,
            config::XdpMode::Generic => XdpMode::Skb,
        };
        self.state().balancer.attach(self.config.balancer.interface.as_str(), mode)?;
        Ok(())
    }

    /// Tells the data path the way to a backend, or that there is none. True if that is news.
    ///
    /// # Errors
    /// The kernel refuses the entry.
    pub fn set_hop(&self, index: usize, hop: Option<NextHop>) -> Result<bool, MapError> {
        let mut state = self.state();
        if state.hops[index] == hop {
            return Ok(false);
        }
        let row = &self.layout.backends[index];
        let entry = hop.as_ref().and_then(|hop| row.entry(hop, self.source_for(hop)));
        state.balancer.backends.write(u32::from(row.id.0), entry.unwrap_or(tables::Backend::GONE))?;
        state.hops[index] = hop;
        state.troubles[index].clear();
        Ok(true)
    }

    /// The outer source address: the configured one, or else the route's.
    fn source_for(&self, hop: &NextHop) -> IpAddr {
        let balancer = &self.config.balancer;
        match hop.source {
            IpAddr::V4(_) => balancer.source_v4.map_or(hop.source, IpAddr::V4),
            IpAddr::V6(_) => balancer.source_v6.map_or(hop.source, IpAddr::V6),
        }
    }

    /// Whether some backend has no way to it.
    pub fn lacks_a_way(&self) -> bool {
        self.state().hops.iter().any(Option::is_none)
    }

    /// Whether this is not what was last said of a backend, so that the operator hears it once.
    pub fn is_new_trouble(&self, index: usize, trouble: &str) -> bool {
        let mut state = self.state();
        let last = &mut state.troubles[index];
        if *last == trouble {
            return false;
        }
        trouble.clone_into(last);
        true
    }

    /// Ends the tokens and flows that are over.
    ///
    /// # Errors
    /// The kernel refuses a map operation.
    pub fn sweep(&self) -> Result<(), MapError> {
        let mut guard = self.state();
        let state = &mut *guard;
        state.swept = state.sweeper.sweep(&mut state.balancer, now())?;
        state.evicted += state.swept.tokens_evicted;
        Ok(())
    }

    /// What `weir status` shows.
    ///
    /// # Errors
    /// The kernel refuses to tell a counter.
    pub fn status(&self) -> Result<Status, MapError> {
        let state = self.state();
        let vips = self.layout.vips.iter().zip(&self.config.vips).map(|(row, vip)| {
            let mut status = VipStatus {
                name: row.name.clone(),
                address: vip.address,
                port: vip.port,
                protocol: vip.protocol.to_string(),
                pool: row.pool.clone(),
                forwarded: 0,
                dropped: 0,
                reasons: Vec::new(),
            };
            for (reason, counter) in state.counts_of(row.id)? {
                match reason.action() {
                    Action::Forward => status.forwarded += counter.packets,
                    Action::Drop | Action::Reply => status.dropped += counter.packets,
                    Action::Pass => {}
                }
                if counter.packets > 0 {
                    status.reasons.push((reason.as_str().to_owned(), counter.packets));
                }
            }
            Ok(status)
        });
        let backends = self.layout.backends.iter().zip(&state.hops).map(|(row, hop)| {
            Ok(BackendStatus {
                name: row.name.clone(),
                pool: row.pool.clone(),
                address: row.address,
                weight: row.weight,
                next_hop: hop.as_ref().map(|hop| format!("{} dev {}", mac(hop.next_hop_mac), hop.interface_name)),
                packets: state.sent_to(row)?.packets,
            })
        });
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interface: self.config.balancer.interface.to_string(),
            xdp_mode: self.mode_word().to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            vips: vips.collect::<Result<_, MapError>>()?,
            backends: backends.collect::<Result<_, MapError>>()?,
            tables: state
                .tables(&self.config.limits)
                .map(|fill| TableStatus { name: fill.table.to_owned(), entries: fill.entries, limit: fill.limit })
                .collect(),
        })
    }

    fn read_snapshot(&self) -> Result<Snapshot, MapError> {
        let state = self.state();
        let mut packets = Vec::new();
        let nobody = (VipId::NONE, "", "");
        let rows = self.layout.vips.iter().map(|row| (row.id, row.name.as_str(), row.pool.as_str()));
        for (id, vip, pool) in std::iter::once(nobody).chain(rows) {
            packets.extend(state.counts_of(id)?.into_iter().map(|(reason, counter)| PacketCount {
                vip: vip.to_owned(),
                pool: pool.to_owned(),
                reason: reason.as_str(),
                packets: counter.packets,
                bytes: counter.bytes,
            }));
        }
        let backends = self.layout.backends.iter().map(|row| {
            let sent = state.sent_to(row)?;
            Ok(BackendCount {
                pool: row.pool.clone(),
                backend: row.name.clone(),
                packets: sent.packets,
                bytes: sent.bytes,
            })
        });
        Ok(Snapshot {
            packets,
            backends: backends.collect::<Result<_, MapError>>()?,
            tables: state.tables(&self.config.limits).collect(),
            xdp_mode: self.mode_word(),
        })
    }

    fn mode_word(&self) -> &'static str {
        match self.config.balancer.xdp_mode {
            config::XdpMode::Native => "native",
            config::XdpMode::Generic => "generic",
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Source for Service {
    fn snapshot(&self) -> Snapshot {
        self.read_snapshot().unwrap_or_else(|error| {
            eprintln!("weir: the counters could not be read: {error}");
            Snapshot { packets: Vec::new(), backends: Vec::new(), tables: Vec::new(), xdp_mode: self.mode_word() }
        })
    }
}

impl State {
    /// The reasons that a VIP's packets had, or those of packets for none; a reason that cannot be counted there is left
    /// out.
    fn counts_of(&self, vip: VipId) -> Result<Vec<(Reason, Counter)>, MapError> {
        let count = |&reason: &Reason| Ok((reason, sum(&self.balancer.counters.read(counter_index(vip, reason))?)));
        Reason::ALL.iter().map(count).collect()
    }

    fn sent_to(&self, row: &BackendRow) -> Result<Counter, MapError> {
        Ok(sum(&self.balancer.sent.read(u32::from(row.id.0))?))
    }

    fn tables(&self, limits: &config::Limits) -> impl Iterator<Item = TableFill> + use<> {
        [("tokens", self.swept.tokens, limits.tokens), ("joined_flows", self.swept.joined_flows, limits.joined_flows)]
            .into_iter()
            .map(|(table, entries, limit)| TableFill { table, entries, limit: u64::from(limit) })
    }
}

fn sum(counters: &[Counter]) -> Counter {
    counters.iter().fold(Counter::default(), |sum, counter| Counter {
        packets: sum.packets + counter.packets,
        bytes: sum.bytes + counter.bytes,
    })
}

fn sizes(config: &Config) -> Sizes {
    Sizes {
        pools: u32::try_from(config.pools.len()).unwrap_or(u32::MAX),
        tokens: config.limits.tokens,
        joined_flows: config.limits.joined_flows,
        pending_handshakes: config.limits.pending_handshakes,
        embryonic_flows: config.limits.embryonic_flows,
    }
}

/// Fills the tables from the inside out, so that an address is known only when all behind it stands.
fn fill(balancer: &mut Balancer, layout: &Layout) -> Result<(), MapError> {
    for (index, &slot) in (0..).zip(layout.rings.iter().flatten()) {
        balancer.slots.write(index, slot)?;
    }
    for (index, &service) in (0..).zip(&layout.services) {
        balancer.services.write(index, service)?;
    }
    for &(address, services) in &layout.addresses {
        balancer.addresses.write(address, services)?;
    }
    Ok(())
}

/// The clock that the data path reads.
fn now() -> Tick {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        seconds * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    });
    Tick::from_nanos(time)
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
