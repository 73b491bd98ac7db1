//! Another configuration under traffic. It is staged first, which touches nothing; what is wrong with it shows there. It
//! is committed in an order that never leaves a packet without a backend: new backends, rings, port rules, addresses,
//! and only then the backends that are dead.

use super::{Service, ServiceError, State, rekey, tokens::TokenMemory};
use crate::{
    admin::{reload::Reload, status::takes_nobody},
    clock,
    config::{BackendState, Config},
    layout::{BackendRow, Layout, PoolRow, VipRow},
    numbering::Numbering,
    resolve::NextHop,
};
use lb_common::{hash::SipKey, ids::BackendId};
use std::time::SystemTime;
use tracing::warn;

const LIMITS: &str = "[limits]";

/// A configuration that could be committed.
pub struct Staged {
    pub(super) config: Config,
    numbers: Numbering,
    tokens: TokenMemory,
    pub(super) layout: Layout,
    to_resolve: Vec<BackendRow>,
    /// What flows are to be named by, if not by the present key.
    key: Option<SipKey>,
}

impl Staged {
    /// The backends whose way has to be known before they take connections.
    pub fn to_resolve(&self) -> &[BackendRow] {
        &self.to_resolve
    }

    /// Whether flows are to be named by another key.
    pub(super) const fn changes_key(&self) -> bool {
        self.key.is_some()
    }

    /// What the operator should think over, coming from a layout.
    pub(super) fn warnings(&self, before: &Layout) -> Vec<String> {
        let oddities = self.config.warnings.iter().map(ToString::to_string);
        let is_moved = |vip: &&VipRow| before.vips.iter().any(|was| was.id == vip.id && was.pool != vip.pool);
        let moved = self.layout.vips.iter().filter(is_moved).map(|vip| {
            let name = &vip.name;
            format!("VIP {name} is served by another pool, which does not have its open connections")
        });
        oddities.chain(moved).collect()
    }
}

impl Service {
    /// Notes how an attempt to reload has ended, for the metrics.
    pub fn note_reload(&self, succeeded: bool) {
        let reloads = &mut self.state().reloads;
        (reloads.last_succeeded, reloads.last_tried) = (succeeded, SystemTime::now());
    }

    /// Checks whether a configuration can take the place of the present one.
    ///
    /// # Errors
    /// It changes what cannot change while Weir runs, gives an id in tokens to another backend, or needs more numbers than
    /// there are.
    pub fn stage(&self, config: Config) -> Result<Staged, ServiceError> {
        let state = self.state();
        refuse_fixed_changes(&state.config, &config)?;
        let key = rekey::next_key(&state.balancer.globals.read(0)?, config.balancer.cluster_key.as_ref())?;
        let tokens = state.tokens.next(&config)?;
        let numbers = state.numbers.next(&config)?;
        let layout = Layout::of(&config, &numbers);
        let is_resolved = |row: &&BackendRow| {
            let known = state.backends.get(&row.id);
            known.is_some_and(|known| known.needs_a_way() && known.row.forward == row.forward)
        };
        let to_resolve = layout.backends.iter().filter(|row| !is_resolved(row) && row.state != BackendState::Down);
        Ok(Staged { to_resolve: to_resolve.cloned().collect(), config, numbers, tokens, layout, key })
    }

    /// Puts a staged configuration in the place of the present one. `hops` are the ways that had to be known, or why there
    /// is none.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn commit(
        &self,
        staged: Staged,
        hops: Vec<(BackendId, Result<NextHop, String>)>,
    ) -> Result<Reload, ServiceError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = clock::now();
        let mut reload = state.difference(&staged);
        let Staged { config, numbers, tokens, layout, key, .. } = staged;
        state.reloads.commits += 1;
        state.layout = layout;
        state.config = config;
        state.numbers = numbers;
        state.tokens = tokens;
        state.know_backends(now)?;
        for (id, hop) in hops {
            let trouble = hop.as_ref().err().cloned();
            state.set_hop(id, hop.ok())?;
            if let (Some(known), Some(trouble)) = (state.backends.get_mut(&id), trouble) {
                known.trouble = trouble;
            }
        }
        reload.slots_changed = state.put_in_force(now)?;
        reload.losses = state.losses();
        for pool in state.pools_that_take_nobody() {
            warn!(pool, "{}", takes_nobody(pool));
        }
        if let Some(key) = key {
            state.rekey(key, now)?;
        }
        state.reloads.in_force_since = SystemTime::now();
        self.health_changed.notify_one();
        Ok(reload)
    }
}

impl State {
    /// What loses packets, as far as the tables are to blame.
    fn losses(&self) -> Vec<String> {
        let known = self.layout.backends.iter().filter_map(|row| self.backends.get(&row.id));
        let unreached = known.filter_map(|known| known.unreached().map(unreached));
        unreached.chain(self.pools_that_take_nobody().map(takes_nobody)).collect()
    }

    fn pools_that_take_nobody(&self) -> impl Iterator<Item = &str> {
        let has_nobody = |pool: &&PoolRow| self.rings.get(&pool.id).is_some_and(|ring| !ring.has_members());
        self.layout.pools.iter().filter(has_nobody).map(|pool| pool.name.as_str())
    }
}

/// What it means that a backend is not reached, after why.
pub fn unreached(why: &str) -> String {
    format!("{why}; its packets are dropped until then")
}

fn refuse_fixed_changes(old: &Config, new: &Config) -> Result<(), ServiceError> {
    let (old_balancer, new_balancer) = (&old.balancer, &new.balancer);
    let fixed = [
        ("balancer.interface", old_balancer.interfaces == new_balancer.interfaces),
        ("balancer.xdp_mode", old_balancer.xdp_mode == new_balancer.xdp_mode),
        ("balancer.cluster_key_file", old_balancer.cluster_key.is_some() == new_balancer.cluster_key.is_some()),
        ("balancer.probe_mark", old_balancer.probe_mark == new_balancer.probe_mark),
        ("balancer.pins", old_balancer.pins == new_balancer.pins),
        ("[metrics]", old.metrics == new.metrics),
        ("[admin]", old.admin == new.admin),
        (LIMITS, old.limits == new.limits),
    ];
    match fixed.into_iter().find(|(_, same)| !same) {
        Some((LIMITS, _)) => Err(ServiceError::FixedLimits),
        Some((what, _)) => Err(ServiceError::Fixed(what)),
        None if old.bus != new.bus => Err(ServiceError::FixedBus),
        None => Ok(()),
    }
}
