//! Where a controller begins: with empty tables, or with those of the controller before it, whose meaning it has written
//! down. Nothing that packets are looked up in is changed here.

use super::{
    Evicted, Known, Reloads, ServiceError, State,
    ledger::{Ledger, PoolEntry},
    rekey,
    rings::Ring,
    tokens::TokenMemory,
    trace::Tracing,
};
use crate::{
    bpf::{Balancer, LedgerTable, Pins, Sizes},
    config::{ClusterKey, Config},
    health::Health,
    layout::Layout,
    numbering::Numbering,
    sweep::{Sweeper, Swept},
};
use aya::maps::MapError;
use lb_common::{
    hash::SipKey,
    ids::{BackendId, PoolId},
    tables::{Globals, Slot},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

impl State {
    /// The state of a controller that has just been started.
    pub(super) fn open(config: Config, now: Duration) -> Result<Self, ServiceError> {
        let pins = Pins::open(&config.balancer.pins)?;
        let sizes = sizes(&config);
        let (mut balancer, ledger) = Balancer::load_pinned(&sizes, &pins)?;
        balancer.probe_mark.write(0, config.balancer.probe_mark)?;
        let Some(written) = ledger.read()? else {
            balancer.globals.write(0, sizes.globals(key(&config)?))?;
            let tokens = TokenMemory::default().next(&config)?;
            let numbers = Numbering::default().next(&config)?;
            let mut state = Self { tokens, ..Self::new(config, numbers, pins, balancer, ledger, now) };
            state.begin_between_keys(now)?;
            return Ok(state);
        };
        let written = Ledger::parse(&written)?;
        let tokens = written.tokens.next(&config)?;
        let globals = balancer.globals.read(0)?;
        let next_key = rekey::next_key(&globals, config.balancer.cluster_key.as_ref())?;
        take_over_globals(&mut balancer, globals, &config, &sizes)?;
        let numbers = written.numbers()?.next(&config)?;
        let mut state = Self::new(config, numbers, pins, balancer, ledger, now);
        (state.is_resumed, state.tokens) = (true, tokens);
        state.resume_backends(&written)?;
        state.resume_rings(&written)?;
        state.resume_rekeying(&globals, written.rekeying);
        if let Some(key) = next_key {
            state.rekey(key, now)?;
        }
        Ok(state)
    }

    fn new(
        config: Config,
        numbers: Numbering,
        pins: Pins,
        balancer: Balancer,
        ledger: LedgerTable,
        now: Duration,
    ) -> Self {
        let (last_tried, in_force_since) = (SystemTime::now(), SystemTime::now());
        Self {
            layout: Layout::of(&config, &numbers),
            config,
            numbers,
            tokens: TokenMemory::default(),
            pins: Arc::new(pins),
            tracing: Tracing::Off,
            balancer,
            ledger,
            publisher: None,
            changed: super::generations::Changed::default(),
            handover: None,
            is_withdrawn: false,
            heard_closed: hashbrown::HashMap::new(),
            is_resumed: false,
            is_in_force: false,
            backends: BTreeMap::new(),
            rings: BTreeMap::new(),
            rekeying: None,
            rings_at: now,
            sweeper: Sweeper::default(),
            swept: Swept::default(),
            swept_at: Instant::now(),
            evicted: Evicted::default(),
            filter_renewals: 0,
            attachments: Vec::new(),
            lost_pins: None,
            unmeant: super::Unmeant::default(),
            reloads: Reloads { last_succeeded: true, last_tried, in_force_since, commits: 0 },
            failing_open: BTreeSet::new(),
            news: Vec::new(),
            probe_troubles: BTreeMap::new(),
        }
    }

    fn resume_backends(&mut self, ledger: &Ledger) -> Result<(), ServiceError> {
        for entry in &ledger.backends {
            let row = entry.row()?;
            let (id, sent_before) = (row.id, entry.sent_before());
            let written = self.balancer.backends.read(u32::from(id.0))?;
            let known = Known {
                sent_before,
                written,
                is_inherited: true,
                drain_ordered: entry.drain_ordered,
                health: entry.health.map(Health::new),
                ..Known::new(row, entry.duty)
            };
            self.backends.insert(id, known);
        }
        Ok(())
    }

    fn resume_rings(&mut self, ledger: &Ledger) -> Result<(), MapError> {
        for PoolEntry { number, name, ring } in &ledger.pools {
            let Some(ring) = ring else { continue };
            let pool = PoolId(*number);
            let backends = self.backends.iter().filter(|(_, known)| known.row.name.pool == *name);
            let own: BTreeSet<BackendId> = backends.map(|(&id, _)| id).collect();
            let slots = self.balancer.rings.read(pool)?.into_iter().map(|slot| of_pool(slot, &own));
            self.rings.insert(pool, Ring::resumed(slots.collect(), ring));
        }
        Ok(())
    }
}

/// A slot, or an empty one where it names a backend of another pool: a controller has died before it had written all of
/// a new ring.
fn of_pool(slot: Slot, own: &BTreeSet<BackendId>) -> Slot {
    let is_own = |id: BackendId| !id.is_some() || own.contains(&id);
    if is_own(slot.owner()) && is_own(slot.previous()) { slot } else { Slot::settled(BackendId::NONE) }
}

/// The key of the flow hash, for tables that have none yet.
fn key(config: &Config) -> Result<SipKey, ServiceError> {
    let key = match &config.balancer.cluster_key {
        Some(key) => key.clone(),
        None => ClusterKey::random()?,
    };
    Ok(SipKey::from_bytes(*key.bytes()))
}

/// Keeps the keys that the tables are made under, and sets what a start may change.
fn take_over_globals(
    balancer: &mut Balancer,
    globals: Globals,
    config: &Config,
    sizes: &Sizes,
) -> Result<(), ServiceError> {
    Ok(balancer.globals.write(
        0,
        Globals {
            entries_per_network: sizes.entries_per_network,
            joins_per_token: sizes.joins_per_token,
            errors_per_cpu: sizes.icmp_errors_per_cpu,
            tells: u32::from(config.bus.is_some()),
            ..globals
        },
    )?)
}

/// How large a configuration wants its tables.
pub(crate) fn sizes(config: &Config) -> Sizes {
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
        joins_per_token: config.limits.joins_per_token,
        icmp_errors_per_cpu: config.limits.icmp_errors_per_cpu,
    }
}
