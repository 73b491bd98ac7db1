//! What health checks and the operator's commands do to backends: which word holds for a backend now, by its
//! configuration, its order and its checks.

use super::{Known, Service, State};
use crate::{
    config::BackendState,
    health::{Listener, Outcome, Plan, Verdict},
};
use aya::maps::MapError;
use lb_common::{
    ids::{BackendId, PoolId},
    probe,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A change of what a backend does that nobody has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A backend's checks say so from now on.
    Health {
        /// The pool's name.
        pool: String,
        /// The backend's name.
        backend: String,
        /// What they say.
        verdict: Verdict,
        /// Why, if it is down.
        error: Option<String>,
    },
    /// All of a pool's backends have failed, and all are used nevertheless.
    FailOpen(String),
    /// A backend of the pool is well again, and those that are not are out.
    FailOpenEnded(String),
}

impl std::fmt::Display for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Health { pool, backend, verdict, error } => {
                write!(f, "backend {backend} of pool {pool} is {} by its health checks", verdict.as_str())?;
                error.as_ref().map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            Self::FailOpen(pool) => write!(
                f,
                "warning: every backend of pool {pool} fails its health checks; all of them are used nevertheless (fail_open)"
            ),
            Self::FailOpenEnded(pool) => {
                write!(f, "pool {pool} has a backend that is well; those that fail are out again")
            }
        }
    }
}

impl Known {
    /// What the configuration and the operator's order make of it, without its health.
    pub(super) const fn wanted(&self) -> BackendState {
        match (self.row.state, self.drain_ordered) {
            (BackendState::Up, true) => BackendState::Drain,
            (state, _) => state,
        }
    }

    /// The same, with its health: only who would be up can be down by it. A backend that drains keeps its connections.
    pub(super) fn effective(&self, fails_open: bool) -> BackendState {
        let is_well = self.health.as_ref().is_none_or(|health| health.verdict.is_up());
        match self.wanted() {
            BackendState::Up if !is_well && !fails_open => BackendState::Down,
            state => state,
        }
    }
}

impl State {
    /// The pools of which every backend that should be up has failed, and that are to be served nevertheless.
    pub(super) fn pools_failing_open(&self) -> BTreeSet<PoolId> {
        let mut pools: BTreeMap<PoolId, bool> = BTreeMap::new();
        for row in &self.layout.backends {
            let Some(known) = self.backends.get(&row.id) else { continue };
            if known.wanted() == BackendState::Up && row.weight > 0 {
                let all_failed = pools.entry(row.pool).or_insert(true);
                *all_failed &= known.health.as_ref().is_some_and(|health| !health.verdict.is_up());
            }
        }
        let opens = |pool: &PoolId| {
            let row = self.layout.pools.iter().find(|row| row.id == *pool);
            row.and_then(|row| row.health.as_ref()).is_some_and(|health| health.fail_open)
        };
        pools.into_iter().filter(|(pool, all_failed)| *all_failed && opens(pool)).map(|(pool, _)| pool).collect()
    }

    /// Makes the health of a backend that is to be checked from now on, or forgets that of one that is not any more.
    pub(super) fn begin_or_end_checks(&mut self, of_the_newcomers: Verdict) {
        // Without anybody else there is nobody to take the connections meanwhile.
        let is_alone = |pool| !self.rings.get(&pool).is_some_and(super::Ring::has_members);
        let checked: BTreeSet<PoolId> =
            self.layout.pools.iter().filter(|pool| pool.health.is_some()).map(|pool| pool.id).collect();
        for row in &self.layout.backends {
            let Some(known) = self.backends.get_mut(&row.id) else { continue };
            match (checked.contains(&row.pool), known.health.is_some()) {
                (true, false) => {
                    // Who serves already is believed until it is asked.
                    let is_asked_first = known.is_new && !is_alone(row.pool);
                    let verdict = if is_asked_first { of_the_newcomers } else { Verdict::Believed };
                    known.health = Some(crate::health::Health::new(verdict));
                }
                (false, true) => known.health = None,
                _ => {}
            }
            known.is_new = false;
        }
    }

    /// Notes for the operator which pools have begun or ended to be served in spite of their health.
    pub(super) fn tell_of_failing_open(&mut self, before: &BTreeSet<PoolId>) {
        let opened = self.failing_open.difference(before).map(|&pool| News::FailOpen(self.pool_name(pool)));
        let ended = before.difference(&self.failing_open).map(|&pool| News::FailOpenEnded(self.pool_name(pool)));
        let news: Vec<_> = opened.chain(ended).collect();
        self.news.extend(news);
    }

    fn pool_name(&self, pool: PoolId) -> String {
        self.layout.pools.iter().find(|row| row.id == pool).map_or_else(String::new, |row| row.name.clone())
    }
}

impl Service {
    /// What is to be checked.
    pub fn plans(&self) -> Vec<Plan> {
        let state = self.state();
        let base = state.config.balancer.probe_mark;
        let plan = |row: &crate::layout::BackendRow| {
            let pool = state.layout.pools.iter().find(|pool| pool.id == row.pool)?;
            let health = pool.health.clone()?;
            Some(Plan { id: row.id, health, mark: probe::mark_of(base, row.id) })
        };
        state.layout.backends.iter().filter_map(plan).collect()
    }

    /// Has the packets of checks sent on their way on this interface too.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn attach_probe(&self, interface: &str) -> Result<(), crate::bpf::LoadError> {
        let mut state = self.state();
        if state.probed_interfaces.contains(interface) {
            return Ok(());
        }
        state.balancer.attach_probe(interface)?;
        state.probed_interfaces.insert(interface.to_owned());
        Ok(())
    }

    /// Waits until some backend's health has changed.
    pub async fn health_changed(&self) {
        self.health_changed.notified().await;
    }

    /// Gives each backend what its health asks for, for all that has changed since the last time.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn follow_health(&self) -> Result<Vec<News>, MapError> {
        let mut state = self.state();
        state.reconcile(self.started.elapsed())?;
        Ok(std::mem::take(&mut state.news))
    }

    /// Notes why no check of a VIP's address can leave this machine, or that they can.
    pub fn set_probe_trouble(&self, vip: IpAddr, trouble: Option<String>) {
        let mut state = self.state();
        match trouble {
            Some(trouble) => state.probe_troubles.insert(vip, trouble),
            None => state.probe_troubles.remove(&vip),
        };
    }
}

impl Listener for Service {
    fn obstacle(&self, id: BackendId) -> Option<String> {
        let state = self.state();
        let known = state.backends.get(&id)?;
        let pool = state.layout.pools.iter().find(|pool| pool.id == known.row.pool)?;
        if let Some(trouble) = state.probe_troubles.get(&pool.health.as_ref()?.target.ip()) {
            return Some(trouble.clone());
        }
        if known.hop.is_some() {
            return None;
        }
        Some(if known.trouble.is_empty() { "it is not known yet".to_owned() } else { known.trouble.clone() })
    }

    fn note(&self, id: BackendId, outcome: Outcome) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(known) = state.backends.get_mut(&id) else { return };
        let Some(health) = &mut known.health else { return };
        let Some(pool) = state.layout.pools.iter().find(|pool| pool.id == known.row.pool) else { return };
        let Some(config) = &pool.health else { return };
        let before = health.verdict;
        if !health.note(outcome, config.rise, config.fall) {
            return;
        }
        // That a believed backend is well is no news.
        if before != Verdict::Believed || health.verdict != Verdict::Up {
            state.news.push(News::Health {
                pool: pool.name.clone(),
                backend: known.row.name.name.clone(),
                verdict: health.verdict,
                error: health.last_error.clone(),
            });
        }
        if before.is_up() != health.verdict.is_up() || !state.news.is_empty() {
            self.health_changed.notify_one();
        }
    }
}
