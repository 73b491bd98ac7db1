//! Two looks at a status, and the rates between them.

use crate::{admin::status::Status, joins};
use lb_common::reason::{Action, Reason};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// What happens at present. Rates are per second.
#[derive(Clone, Debug, Serialize)]
pub struct View {
    /// Weir's version.
    pub version: String,
    /// The interfaces that it is on.
    pub interfaces: Vec<String>,
    /// How its program is attached.
    pub xdp_mode: String,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// Seconds between the two looks.
    pub interval_s: f64,
    /// The VIPs.
    pub vips: Vec<VipRates>,
    /// The joins of all pools, by way and outcome; those that never were are left out.
    pub joins: Vec<JoinRate>,
    /// Packets that nobody got, by reason, the most at present first; likewise.
    pub drops: Vec<ReasonRate>,
    /// The backends.
    pub backends: Vec<BackendRate>,
    /// The pools and their transitions.
    pub pools: Vec<PoolState>,
    /// The tables.
    pub tables: Vec<TableState>,
}

/// A VIP's packets.
#[derive(Clone, Debug, Serialize)]
pub struct VipRates {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// Packets sent to backends.
    pub forwarded: f64,
    /// Packets that Weir answered.
    pub answered: f64,
    /// Packets that nobody got.
    pub dropped: f64,
}

/// Joins of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct JoinRate {
    /// The way that knew the connection, or `none`.
    pub way: &'static str,
    /// What became of them.
    pub outcome: &'static str,
    /// Since the start.
    pub total: u64,
    /// At present.
    pub rate: f64,
}

/// Packets with one reason.
#[derive(Clone, Debug, Serialize)]
pub struct ReasonRate {
    /// The reason's word.
    pub reason: String,
    /// Since the start.
    pub total: u64,
    /// At present.
    pub rate: f64,
}

/// A backend.
#[derive(Clone, Debug, Serialize)]
pub struct BackendRate {
    /// Its name.
    pub name: String,
    /// Its pool.
    pub pool: String,
    /// `up`, `drain`, `down` or `leaving`.
    pub state: String,
    /// Percent of its share that it takes.
    pub share_percent: u32,
    /// Slots that it owns.
    pub slots: u64,
    /// Slots in transition whose older connections are its.
    pub slots_previous: u64,
    /// Packets sent to it.
    pub packets: f64,
    /// Whether there is a way to it.
    pub reached: bool,
}

/// A pool's transition.
#[derive(Clone, Debug, Serialize)]
pub struct PoolState {
    /// Its name.
    pub name: String,
    /// Slots in transition.
    pub slots_in_transition: usize,
    /// Seconds until they settle.
    pub transition_ends_in_s: Option<u64>,
    /// Those that take longer than configured.
    pub slots_extended: usize,
}

/// A table.
#[derive(Clone, Debug, Serialize)]
pub struct TableState {
    /// Its name.
    pub name: String,
    /// Entries in it, as of the last sweep.
    pub entries: u64,
    /// Entries that it has room for.
    pub limit: u64,
}

impl View {
    /// What happened between two looks. A balancer that was started anew in between has counted from nothing.
    pub fn between(before: &Status, now: &Status, interval: Duration) -> Self {
        let seconds = interval.as_secs_f64().max(f64::EPSILON);
        let restarted = now.uptime_s < before.uptime_s;
        let rate = |before: u64, now: u64| {
            #[expect(clippy::cast_precision_loss, reason = "a rate for people and graphs")]
            let packets = if restarted { now } else { now.saturating_sub(before) } as f64;
            packets / seconds
        };
        let vips = now.vips.iter().map(|vip| {
            let was = before.vips.iter().find(|was| was.name == vip.name);
            VipRates {
                name: vip.name.clone(),
                pool: vip.pool.clone(),
                forwarded: rate(was.map_or(0, |was| was.forwarded), vip.forwarded),
                answered: rate(was.map_or(0, |was| was.answered), vip.answered),
                dropped: rate(was.map_or(0, |was| was.dropped), vip.dropped),
            }
        });
        let backends = now.backends.iter().map(|backend| {
            let same = |was: &&crate::admin::status::BackendStatus| {
                (&was.name, &was.pool, was.address) == (&backend.name, &backend.pool, backend.address)
            };
            let was = before.backends.iter().find(same).map_or(0, |was| was.packets);
            BackendRate {
                name: backend.name.clone(),
                pool: backend.pool.clone(),
                state: if backend.leaving { "leaving".to_owned() } else { backend.state.clone() },
                share_percent: backend.share_percent,
                slots: backend.slots,
                slots_previous: backend.slots_previous,
                packets: rate(was, backend.packets),
                reached: backend.next_hop.is_some(),
            }
        });
        let (totals_before, totals) = (by_reason(before), by_reason(now));
        let total_of = |totals: &BTreeMap<&str, u64>, reason: Reason| totals.get(reason.as_str()).copied().unwrap_or(0);
        let joins = Reason::ALL.iter().filter_map(|&reason| {
            let join = joins::of(reason)?;
            let total = total_of(&totals, reason);
            let rate = rate(total_of(&totals_before, reason), total);
            (total > 0).then_some(JoinRate { way: join.way, outcome: join.outcome, total, rate })
        });
        let drops = Reason::ALL.iter().filter(|reason| reason.action() == Action::Drop).filter_map(|&reason| {
            let total = total_of(&totals, reason);
            let rate = rate(total_of(&totals_before, reason), total);
            (total > 0).then(|| ReasonRate { reason: reason.as_str().to_owned(), total, rate })
        });
        let mut drops: Vec<_> = drops.collect();
        drops.sort_by(|a, b| b.rate.total_cmp(&a.rate).then(b.total.cmp(&a.total)));
        Self {
            version: now.version.clone(),
            interfaces: now.interfaces.clone(),
            xdp_mode: now.mode_words(),
            uptime_s: now.uptime_s,
            interval_s: seconds,
            vips: vips.collect(),
            joins: joins.collect(),
            drops,
            backends: backends.collect(),
            pools: now.pools.iter().map(PoolState::from).collect(),
            tables: now.tables.iter().map(TableState::from).collect(),
        }
    }

    /// Packets of all VIPs: those that got somewhere, and those that did not.
    pub(super) fn traffic(&self) -> (f64, f64) {
        let sum = |rate: fn(&VipRates) -> f64| self.vips.iter().map(rate).sum();
        (sum(|vip| vip.forwarded + vip.answered), sum(|vip| vip.dropped))
    }
}

fn by_reason(status: &Status) -> BTreeMap<&str, u64> {
    let mut totals = BTreeMap::new();
    for (reason, packets) in status.vips.iter().flat_map(|vip| &vip.reasons) {
        *totals.entry(reason.as_str()).or_default() += packets;
    }
    totals
}

impl From<&crate::admin::status::PoolStatus> for PoolState {
    fn from(pool: &crate::admin::status::PoolStatus) -> Self {
        Self {
            name: pool.name.clone(),
            slots_in_transition: pool.slots_in_transition,
            transition_ends_in_s: pool.transition_ends_in_s,
            slots_extended: pool.slots_extended,
        }
    }
}

impl From<&crate::admin::status::TableStatus> for TableState {
    fn from(table: &crate::admin::status::TableStatus) -> Self {
        Self { name: table.name.clone(), entries: table.entries, limit: table.limit }
    }
}
