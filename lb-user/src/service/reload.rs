//! Another configuration under traffic. It is staged first, which touches nothing; what is wrong with it shows there. It
//! is committed in an order that never leaves a packet without a backend: new backends, rings, port rules, addresses,
//! and only then the backends that are dead.

use super::{Service, ServiceError};
use crate::{
    config::{BackendState, Config},
    health::Verdict,
    layout::{BackendRow, Layout},
    numbering::Numbering,
    resolve::NextHop,
};
use lb_common::ids::BackendId;
use std::{fmt, time::SystemTime};

/// A configuration that could be committed.
pub struct Staged {
    config: Config,
    numbers: Numbering,
    layout: Layout,
    to_resolve: Vec<BackendRow>,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Backends that are new.
    pub joined: usize,
    /// Backends that are no longer in the configuration; their flows stay with them.
    pub left: usize,
    /// Slots of all rings that have another owner.
    pub slots_changed: usize,
    /// VIPs that another pool serves now: it does not have their open connections.
    pub vips_moved: Vec<String>,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { joined, left, slots_changed, .. } = self;
        write!(f, "{joined} backends joined, {left} left, {slots_changed} slots changed")
    }
}

impl Reloaded {
    fn between(old: &Layout, new: &Layout) -> Self {
        let lacking = |these: &Layout, those: &Layout| {
            these.backends.iter().filter(|row| !those.backends.iter().any(|other| other.id == row.id)).count()
        };
        let moved = new.vips.iter().filter(|vip| old.vips.iter().any(|was| was.id == vip.id && was.pool != vip.pool));
        Self {
            joined: lacking(new, old),
            left: lacking(old, new),
            slots_changed: 0,
            vips_moved: moved.map(|vip| vip.name.clone()).collect(),
        }
    }
}

impl Staged {
    /// The backends whose way has to be known before they take connections.
    pub fn to_resolve(&self) -> &[BackendRow] {
        &self.to_resolve
    }
}

impl Service {
    /// Notes how an attempt to reload has ended, for the metrics.
    pub fn note_reload(&self, succeeded: bool) {
        self.state().reloads.last_succeeded = succeeded;
    }

    /// Checks whether a configuration can take the place of the present one.
    ///
    /// # Errors
    /// It changes what cannot change while Weir runs, or needs more numbers than there are.
    pub fn stage(&self, config: Config) -> Result<Staged, ServiceError> {
        let state = self.state();
        refuse_fixed_changes(&state.config, &config)?;
        let numbers = state.numbers.next(&config)?;
        let layout = Layout::of(&config, &numbers);
        let is_resolved = |row: &&BackendRow| {
            let known = state.backends.get(&row.id);
            known.is_some_and(|known| known.needs_a_way() && known.row.forward == row.forward)
        };
        let to_resolve = layout.backends.iter().filter(|row| !is_resolved(row) && row.state != BackendState::Down);
        Ok(Staged { to_resolve: to_resolve.cloned().collect(), config, numbers, layout })
    }

    /// Puts a staged configuration in the place of the present one. `hops` are the ways that had to be known.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn commit(&self, staged: Staged, hops: Vec<(BackendId, Option<NextHop>)>) -> Result<Reloaded, ServiceError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = self.started.elapsed();
        let Staged { config, numbers, layout, .. } = staged;
        let mut reloaded = Reloaded::between(&state.layout, &layout);
        state.layout = layout;
        state.config = config;
        state.numbers = numbers;
        state.know_backends(now, Verdict::Unproven)?;
        for (id, hop) in hops {
            state.set_hop(id, hop)?;
        }
        state.write_backends(|known| known.duty.serves())?;
        reloaded.slots_changed = state.change_rings(now)?;
        state.write_quic_servers()?;
        state.write_services()?;
        state.remove_quic_servers()?;
        state.write_backends(|_| true)?;
        state.reloads.in_force_since = SystemTime::now();
        self.health_changed.notify_one();
        Ok(reloaded)
    }
}

fn refuse_fixed_changes(old: &Config, new: &Config) -> Result<(), ServiceError> {
    let (old_balancer, new_balancer) = (&old.balancer, &new.balancer);
    let fixed = [
        ("balancer.interface", old_balancer.interfaces == new_balancer.interfaces),
        ("balancer.xdp_mode", old_balancer.xdp_mode == new_balancer.xdp_mode),
        ("balancer.cluster_key_file's key", old_balancer.cluster_key == new_balancer.cluster_key),
        ("balancer.probe_mark", old_balancer.probe_mark == new_balancer.probe_mark),
        ("[metrics]", old.metrics == new.metrics),
        ("[admin]", old.admin == new.admin),
        ("[limits]", old.limits == new.limits),
    ];
    match fixed.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(ServiceError::Fixed(what)),
        None => Ok(()),
    }
}
