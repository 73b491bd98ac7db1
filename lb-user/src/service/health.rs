//! What health checks and the operator's commands do to backends: which word holds for a backend now, by its
//! configuration, its order and its checks.

use super::{Known, Service, ServiceError, State};
use crate::{
    clock,
    config::BackendState,
    health::{Health, Listener, Outcome, Plan, Verdict},
    layout::{BackendRow, Layout},
};
use lb_common::{
    ids::{BackendId, PoolId, Token},
    probe,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
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
    /// A backend could not be checked, for a reason that nobody has been told lately.
    Unmade {
        /// The pool's name.
        pool: String,
        /// The backend's name.
        backend: String,
        /// What this machine lacks.
        why: String,
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
            Self::Unmade { pool, backend, why } => {
                write!(f, "backend {backend} of pool {pool} cannot be checked, and stays what it is: {why}")
            }
            Self::FailOpen(pool) => write!(
                f,
                "every backend of pool {pool} fails its health checks; all of them are used nevertheless (fail_open)"
            ),
            Self::FailOpenEnded(pool) => {
                write!(f, "pool {pool} has a backend that is well; those that fail are out again")
            }
        }
    }
}

/// What holds of a configured backend beside its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    drain_ordered: bool,
    /// What its checks say, if it is checked.
    verdict: Option<Verdict>,
}

impl Standing {
    /// What a backend is to do: by its configuration, the operator's order, and its health, in this order. Only who would be
    /// up can be down by its health: one that drains keeps its connections.
    pub(super) fn state(self, configured: BackendState, fails_open: bool) -> BackendState {
        match self.wanted(configured) {
            BackendState::Up if self.has_failed() && !fails_open => BackendState::Down,
            state => state,
        }
    }

    const fn wanted(self, configured: BackendState) -> BackendState {
        match (configured, self.drain_ordered) {
            (BackendState::Up, true) => BackendState::Drain,
            (state, _) => state,
        }
    }

    fn has_failed(self) -> bool {
        self.verdict.is_some_and(|verdict| !verdict.is_up())
    }
}

/// The pools of which every backend that should be up has failed, and that are to be served nevertheless.
pub(super) fn pools_failing_open(layout: &Layout, standings: &BTreeMap<BackendId, Standing>) -> BTreeSet<PoolId> {
    let mut all_failed: BTreeMap<PoolId, bool> = BTreeMap::new();
    for row in layout.backends.iter().filter(|row| row.weight > 0) {
        let standing = standings[&row.id];
        if standing.wanted(row.state) == BackendState::Up {
            *all_failed.entry(row.pool).or_insert(true) &= standing.has_failed();
        }
    }
    let opens = layout.pools.iter().filter(|pool| pool.health.as_ref().is_some_and(|health| health.fail_open));
    opens.map(|pool| pool.id).filter(|pool| all_failed.get(pool) == Some(&true)).collect()
}

impl Known {
    /// Takes in what holds of it from now on; checks that go on keep their counts.
    pub(super) fn take_standing(&mut self, Standing { drain_ordered, verdict }: Standing) {
        self.drain_ordered = drain_ordered;
        let before = self.health.take();
        self.health = verdict.map(|verdict| before.unwrap_or_else(|| Health::new(verdict)));
    }
}

impl State {
    /// What holds of each backend of a layout, be it in force or not. An order to drain ends when the configuration gives
    /// the backend another state. A newcomer to a pool that serves has to show itself first; others are believed.
    pub(super) fn standings_by(&self, layout: &Layout) -> BTreeMap<BackendId, Standing> {
        let checked: BTreeSet<PoolId> =
            layout.pools.iter().filter(|pool| pool.health.is_some()).map(|pool| pool.id).collect();
        let serving: BTreeSet<PoolId> =
            self.rings.iter().filter(|(_, ring)| ring.has_members()).map(|(&pool, _)| pool).collect();
        let standing = |row: &BackendRow| {
            let known = self.backends.get(&row.id);
            let first =
                if known.is_none() && serving.contains(&row.pool) { Verdict::Unproven } else { Verdict::Believed };
            let verdict = known.and_then(|known| known.health.as_ref()).map_or(first, |health| health.verdict);
            Standing {
                drain_ordered: known.is_some_and(|known| known.drain_ordered && known.row.state == row.state),
                verdict: checked.contains(&row.pool).then_some(verdict),
            }
        };
        layout.backends.iter().map(|row| (row.id, standing(row))).collect()
    }

    /// Notes which pools are served in spite of their health, and for the operator which have begun or ended to be.
    pub(super) fn tell_of_failing_open(&mut self, now: BTreeSet<PoolId>) {
        let opened = now.difference(&self.failing_open).map(|&pool| News::FailOpen(self.pool_name(pool)));
        let ended = self.failing_open.difference(&now).map(|&pool| News::FailOpenEnded(self.pool_name(pool)));
        let news: Vec<_> = opened.chain(ended).collect();
        self.news.extend(news);
        self.failing_open = now;
    }
}

impl Service {
    /// What is to be checked.
    pub fn plans(&self) -> Vec<Plan> {
        let state = self.state();
        let base = state.config.balancer.probe_mark;
        let plan = |row: &BackendRow| {
            let pool = state.layout.pools.iter().find(|pool| pool.id == row.pool)?;
            let health = pool.health.clone()?;
            Some(Plan { id: row.id, health, mark: probe::mark_of(base, row.id), token: state.token_check(row) })
        };
        state.layout.backends.iter().filter_map(plan).collect()
    }

    /// Has the packets of checks sent on their way on this interface too.
    ///
    /// # Errors
    /// The kernel refuses the program.
    pub fn attach_probe(&self, interface: &str) -> Result<(), crate::bpf::LoadError> {
        self.state().balancer.attach_probe(interface)
    }

    /// Waits until some backend's health has changed.
    pub async fn health_changed(&self) {
        self.health_changed.notified().await;
    }

    /// Gives each backend what its health asks for, for all that has changed since the last time.
    ///
    /// # Errors
    /// The kernel refuses an entry.
    pub fn follow_health(&self) -> Result<Vec<News>, ServiceError> {
        let mut state = self.state();
        state.reconcile(clock::now())?;
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
    fn obstacle(&self, id: BackendId, vip: IpAddr) -> Option<String> {
        let state = self.state();
        let known = state.backends.get(&id)?;
        if let Some(trouble) = state.probe_troubles.get(&vip) {
            return Some(trouble.clone());
        }
        if known.hop.is_some() {
            return None;
        }
        Some(if known.trouble.is_empty() { "it is not known yet".to_owned() } else { known.trouble.clone() })
    }

    fn server_token(&self, id: BackendId, over_ipv6: bool, port: u16) -> Option<Token> {
        let heard = self.state().balancer.probe_heard.read(probe::heard_place(id, over_ipv6)).ok()?;
        heard.token(port)
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

    fn note_unmade(&self, id: BackendId, why: String) {
        let mut guard = self.state();
        let state = &mut *guard;
        let Some(known) = state.backends.get_mut(&id) else { return };
        let Some(health) = &mut known.health else { return };
        if !health.note_unmade(why.clone(), Instant::now()) {
            return;
        }
        let (pool, backend) = (known.row.name.pool.clone(), known.row.name.name.clone());
        state.news.push(News::Unmade { pool, backend, why });
        self.health_changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Standing = Standing { drain_ordered: false, verdict: Some(Verdict::Up) };
    const FAILED: Standing = Standing { drain_ordered: false, verdict: Some(Verdict::Down) };
    const UNCHECKED: Standing = Standing { drain_ordered: false, verdict: None };

    #[test]
    fn the_configuration_comes_first_then_the_order_then_the_health() {
        use BackendState::{Down, Drain, Up};
        let ordered = |standing| Standing { drain_ordered: true, ..standing };
        for (standing, states) in [
            (WELL, [Up, Drain, Down]),
            (UNCHECKED, [Up, Drain, Down]),
            (FAILED, [Down, Drain, Down]),
            (ordered(WELL), [Drain, Drain, Down]),
            (ordered(FAILED), [Drain, Drain, Down]),
        ] {
            assert_eq!([Up, Drain, Down].map(|configured| standing.state(configured, false)), states, "{standing:?}");
        }
        assert_eq!(FAILED.state(Up, true), Up);
        assert_eq!(FAILED.state(Down, true), Down, "what the operator says holds");
    }
}
