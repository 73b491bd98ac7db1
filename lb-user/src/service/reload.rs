//! Another configuration under traffic. It is staged first, which touches nothing; what is wrong with it shows there. It
//! is committed in an order that never leaves a packet without a backend: new backends, rings, port rules, addresses,
//! and only then what is no longer there.

use super::{Known, Service, ServiceError, State, write_slots};
use crate::{
    config::Config,
    layout::{BackendRow, Layout},
    numbering::Numbering,
    resolve::NextHop,
};
use lb_common::{ids::BackendId, limits::SERVICES_MAX, transition::Transitions};
use std::{fmt, time::Duration};

/// A configuration that could be committed.
pub struct Staged {
    config: Config,
    numbers: Numbering,
    layout: Layout,
    newcomers: Vec<BackendRow>,
}

/// What a reload did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Backends that are new.
    pub joined: usize,
    /// Backends that are no longer in the configuration; their flows stay with them.
    pub left: usize,
    /// Slots of all rings that have another owner.
    pub slots_changed: usize,
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { joined, left, slots_changed } = self;
        write!(f, "{joined} backends joined, {left} left, {slots_changed} slots changed")
    }
}

impl Staged {
    /// The backends whose way has to be known before they take connections.
    pub fn newcomers(&self) -> &[BackendRow] {
        &self.newcomers
    }
}

impl Service {
    /// Checks whether a configuration can take the place of the present one.
    ///
    /// # Errors
    /// It changes what cannot change while Weir runs, or needs more numbers than there are.
    pub fn stage(&self, config: Config) -> Result<Staged, ServiceError> {
        let state = self.state();
        refuse_fixed_changes(&state.config, &config)?;
        let numbers = state.numbers.next(&config)?;
        let layout = Layout::of(&config, &numbers);
        let newcomers = layout.backends.iter().filter(|row| !state.backends.contains_key(&row.id)).cloned().collect();
        Ok(Staged { config, numbers, layout, newcomers })
    }

    /// Puts a staged configuration in the place of the present one. `hops` are the ways to its newcomers.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn commit(&self, staged: Staged, hops: Vec<(BackendId, Option<NextHop>)>) -> Result<Reloaded, ServiceError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let Staged { config, numbers, layout, newcomers } = staged;
        let left = state.layout.backends.iter().filter(|row| !layout.backends.iter().any(|new| new.id == row.id));
        let mut reloaded = Reloaded { joined: newcomers.len(), left: left.count(), slots_changed: 0 };
        let old = std::mem::replace(&mut state.layout, layout);
        state.config = config;
        state.numbers = numbers;
        for row in &state.layout.backends {
            state.backends.entry(row.id).or_insert_with(|| Known::new(row.clone())).row = row.clone();
        }
        for (id, hop) in hops {
            state.set_hop(id, hop)?;
        }
        reloaded.slots_changed = state.change_rings(self.started.elapsed())?;
        // The rules that packets are being looked up in stay as they are; the new ones stand in the other half.
        let in_first_half = old.addresses.first().is_none_or(|(address, _)| {
            let services = state.balancer.addresses.read(*address);
            services.is_ok_and(|services| services.is_none_or(|services| services.first < SERVICES_MAX / 2))
        });
        state.write_services(if in_first_half { SERVICES_MAX / 2 } else { 0 })?;
        for (address, _) in &old.addresses {
            if !state.layout.addresses.iter().any(|(new, _)| new == address) {
                state.balancer.addresses.remove(*address)?;
            }
        }
        Ok(reloaded)
    }
}

impl State {
    fn change_rings(&mut self, now: Duration) -> Result<usize, ServiceError> {
        let length = self.config.balancer.transition;
        let mut count = 0;
        let reachable = |id: BackendId| self.backends.get(&id).is_some_and(|known| known.hop.is_some());
        for (&pool, owners) in &self.layout.rings {
            let slots = owners.len();
            let ring = self.rings.entry(pool).or_insert_with(|| Transitions::settled(&vec![0; slots]));
            let changed = ring.change(owners, now, length, reachable);
            write_slots(&mut self.balancer, pool, ring.slots(), &changed)?;
            count += changed.len();
        }
        // A pool that is gone keeps its flows' backends in no ring: its VIPs are gone as well.
        self.rings.retain(|pool, _| self.layout.rings.contains_key(pool));
        Ok(count)
    }
}

fn refuse_fixed_changes(old: &Config, new: &Config) -> Result<(), ServiceError> {
    let (old_balancer, new_balancer) = (&old.balancer, &new.balancer);
    let fixed = [
        ("balancer.interface", old_balancer.interface == new_balancer.interface),
        ("balancer.xdp_mode", old_balancer.xdp_mode == new_balancer.xdp_mode),
        ("balancer.cluster_key_file's key", old_balancer.cluster_key == new_balancer.cluster_key),
        ("[metrics]", old.metrics == new.metrics),
        ("[limits]", old.limits == new.limits),
    ];
    match fixed.into_iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(ServiceError::Fixed(what)),
        None => Ok(()),
    }
}
