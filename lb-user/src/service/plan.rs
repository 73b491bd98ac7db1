//! What another configuration would change, worked out on copies: nothing here writes to a table.

use super::{Service, ServiceError, Staged, State, rings::members};
use crate::{
    admin::reload::{Change, Changes, Reload, Touched},
    clock,
    config::{self, Balancer, Config, Pool},
    layout::{BackendRow, Layout},
    numbering::BackendName,
};
use aya::maps::MapError;
use lb_common::{
    ids::{BackendId, FlowHash, PoolId},
    tables::{FlowEntry, RING_SLOTS},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

impl Service {
    /// Says what a staged configuration would change, and changes nothing.
    ///
    /// # Errors
    /// The kernel refuses to tell what is in a table.
    pub fn plan(&self, staged: &Staged) -> Result<Reload, ServiceError> {
        let state = self.state();
        let mut reload = state.difference(staged);
        let now = clock::now();
        let duties = state.duties_by(&staged.layout, now);
        let slots = state.slots_changed_by(staged, now);
        let serves = |id: BackendId| duties.get(&id).is_some_and(|duty| duty.serves());
        let ended = state.backends.iter().filter(|(id, known)| known.duty.serves() && !serves(**id));
        let ended: BTreeSet<BackendId> = ended.map(|(&id, _)| id).collect();
        reload.dry_run = true;
        reload.slots_changed = slots.values().map(HashSet::len).sum();
        reload.touched = Some(state.touched(&slots, &ended)?);
        Ok(reload)
    }
}

impl State {
    /// What is different in a staged configuration, but for slots.
    pub(super) fn difference(&self, staged: &Staged) -> Reload {
        let pools = staged.layout.pools.len();
        Reload {
            settings: settings(&self.config.balancer, &staged.config.balancer, staged.changes_key()),
            vips: vips(&self.layout, &staged.layout),
            pools: pools_changed(&self.config, &staged.config),
            backends: backends((&self.config, &self.layout), (&staged.config, &staged.layout)),
            slots: pools * RING_SLOTS as usize,
            warnings: staged.warnings(&self.layout),
            ..Reload::default()
        }
    }

    /// The slots of each pool that would change.
    fn slots_changed_by(&self, staged: &Staged, now: Duration) -> BTreeMap<PoolId, HashSet<u32>> {
        let duties = self.duties_by(&staged.layout, now);
        let serves = |id: BackendId| duties.get(&id).is_some_and(|duty| duty.serves());
        let slots_of = |pool: PoolId| {
            let Some(mut ring) = self.rings.get(&pool).cloned() else { return (0..RING_SLOTS).collect() };
            let members = members(&staged.layout, &duties, pool, now);
            let length = staged.config.balancer.transition;
            let mut changed: HashSet<u32> = ring.change(members, now, length, serves).into_iter().collect();
            for (&id, _) in duties.iter().filter(|(_, duty)| !duty.serves()) {
                changed.extend(ring.transitions.forget(id));
            }
            changed
        };
        staged.layout.pools.iter().map(|row| (row.id, slots_of(row.id))).collect()
    }

    /// Counts what is in the tables of these slots, and of the backends that end.
    fn touched(
        &self,
        slots: &BTreeMap<PoolId, HashSet<u32>>,
        ended: &BTreeSet<BackendId>,
    ) -> Result<Touched, MapError> {
        let mut touched = Touched::default();
        let balancer = &self.balancer;
        for table in [&balancer.joined, &balancer.moved, &balancer.pinned] {
            for entry in table.entries() {
                let (flow, entry): (FlowHash, FlowEntry) = entry?;
                let pool = self.backends.get(&entry.backend).map(|known| known.row.pool);
                let is_in_slots = pool.and_then(|pool| slots.get(&pool)).is_some_and(|s| s.contains(&flow.slot()));
                touched.flows += u64::from(is_in_slots);
                touched.flows_ended += u64::from(ended.contains(&entry.backend));
            }
        }
        for entry in balancer.tokens.entries() {
            let (_, entry) = entry?;
            let holders = entry.holders.iter().filter(|holder| holder.is_some() && ended.contains(&holder.backend));
            touched.tokens_ended += u64::from(holders.count() > 0);
        }
        Ok(touched)
    }
}

/// Names the fields of two things that differ.
macro_rules! different {
    ($old:expr, $new:expr, $($field:ident),+ $(,)?) => {{
        let mut fields: Vec<&str> = Vec::new();
        $(if $old.$field != $new.$field { fields.push(stringify!($field)); })+
        fields
    }};
}

fn settings(old: &Balancer, new: &Balancer, changes_key: bool) -> Vec<String> {
    let fields = different!(old, new, source_v4, source_v6, gue_port, transition, on_stop);
    let fields = fields.into_iter().map(|field| format!("balancer.{field}"));
    let key = changes_key.then(|| "the key in balancer.cluster_key_file".to_owned());
    fields.chain(key).collect()
}

fn vips(old: &Layout, new: &Layout) -> Changes {
    let missing = |these: &Layout, those: &Layout| {
        let rows = these.vips.iter().filter(|row| !those.vips.iter().any(|other| other.name == row.name));
        rows.map(|row| row.name.clone()).collect()
    };
    let changed = new.vips.iter().filter_map(|row| {
        let before = old.vips.iter().find(|other| other.name == row.name)?;
        let mut what = Vec::new();
        if before.id != row.id {
            what.push("other addresses or ports".to_owned());
        }
        if before.pool != row.pool {
            what.push(format!("pool {} -> {}", before.pool, row.pool));
        }
        changed(row.name.clone(), &what)
    });
    Changes { added: missing(new, old), removed: missing(old, new), changed: changed.collect() }
}

fn pools_changed(old: &Config, new: &Config) -> Changes {
    let missing = |these: &Config, those: &Config| {
        let pools = these.pools.iter().filter(|pool| !those.pools.iter().any(|other| other.name == pool.name));
        pools.map(|pool| pool.name.to_string()).collect()
    };
    let changed = new.pools.iter().filter_map(|pool| {
        let before = old.pools.iter().find(|other| other.name == pool.name)?;
        changed(pool.name.to_string(), &pool_fields(before, pool))
    });
    Changes { added: missing(new, old), removed: missing(old, new), changed: changed.collect() }
}

fn pool_fields(old: &Pool, new: &Pool) -> Vec<String> {
    let fields = different!(
        old,
        new,
        join,
        unknown_join,
        learn_unseen,
        forward,
        affinity,
        tcp_fragments,
        drain_timeout,
        slow_start,
        udp_transition,
        quic_rotations,
        token,
        health,
    );
    fields.into_iter().map(str::to_owned).collect()
}

/// A backend as it is configured.
fn configured<'c>(config: &'c Config, name: &BackendName) -> Option<&'c config::Backend> {
    let pool = config.pools.iter().find(|pool| pool.name.as_str() == name.pool)?;
    pool.backends.iter().find(|backend| backend.name.as_str() == name.name)
}

fn backends((old_config, old): (&Config, &Layout), (new_config, new): (&Config, &Layout)) -> Changes {
    let by_id = |layout: &Layout| -> BTreeMap<BackendId, BackendRow> {
        layout.backends.iter().map(|row| (row.id, row.clone())).collect()
    };
    let name = |row: &BackendRow| format!("{}/{}", row.name.pool, row.name.name);
    let (old, new) = (by_id(old), by_id(new));
    let missing = |these: &BTreeMap<BackendId, BackendRow>, those: &BTreeMap<BackendId, BackendRow>| {
        these.iter().filter(|(id, _)| !those.contains_key(id)).map(|(_, row)| name(row)).collect()
    };
    let changed = new.iter().filter_map(|(id, row)| {
        let before = old.get(id)?;
        let mut what = Vec::new();
        if before.weight != row.weight {
            what.push(format!("weight {} -> {}", before.weight, row.weight));
        }
        if before.state != row.state {
            what.push(format!("state {} -> {}", before.state.as_str(), row.state.as_str()));
        }
        if before.quic_servers != row.quic_servers {
            what.push("quic_server_id".to_owned());
        }
        let own = [old_config, new_config].map(|config| configured(config, &row.name));
        let [old_endpoint, new_endpoint] = own.map(|own| own.map(|own| (own.join_port, own.join_address)));
        let [old_id, new_id] = own.map(|own| own.and_then(|own| own.token_id));
        if old_id != new_id {
            what.push("token_id (its agent must change it too)".to_owned());
        }
        if old_endpoint != new_endpoint {
            what.push("join endpoint (subflows open at the old one end)".to_owned());
        }
        changed(name(row), &what)
    });
    Changes { added: missing(&new, &old), removed: missing(&old, &new), changed: changed.collect() }
}

fn changed(name: String, what: &[String]) -> Option<Change> {
    (!what.is_empty()).then(|| Change { name, what: what.join(", ") })
}
