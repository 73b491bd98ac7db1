//! What the tables of flows and tokens hold: counted by the last sweep, and a few entries as they are now. However many there
//! are, it costs the same; entries are read while nobody is kept waiting.

use super::{Service, State};
use crate::{
    admin::{
        entries::{FlowCount, FlowSample, Flows, SAMPLES_MAX, TokenCount, TokenHolder, TokenSample, Tokens},
        status::TableStatus,
    },
    bpf::HashTable,
};
use aya::maps::MapError;
use lb_common::{
    ids::{BackendId, FlowHash, PoolId, Tick},
    tables::{FlowEntry, Holder, TokenEntry, TokenKey},
};

impl Service {
    /// The flows that have an entry, and so many of them in full.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn flows(&self, samples: usize) -> Result<Flows, MapError> {
        let state = self.state();
        let readers = [
            ("joined_flows", state.balancer.joined.reader()?),
            ("moved_flows", state.balancer.moved.reader()?),
            ("pinned_flows", state.balancer.pinned.reader()?),
        ];
        drop(state);
        let mut found = Vec::new();
        for (table, reader) in &readers {
            let left = samples.min(SAMPLES_MAX) - found.len();
            found.extend(first(reader, left)?.into_iter().map(|(flow, entry)| (*table, flow, entry)));
        }
        let state = self.state();
        let now = crate::clock::tick();
        Ok(Flows {
            counted_s_ago: state.swept_s_ago(),
            tables: state.table_status("_flows"),
            backends: state.flow_counts(),
            samples: found.iter().map(|(table, flow, entry)| state.flow_sample(table, *flow, entry, now)).collect(),
        })
    }

    /// The tokens that are known, and so many of them in full.
    ///
    /// # Errors
    /// As above.
    pub fn tokens(&self, samples: usize) -> Result<Tokens, MapError> {
        let reader = self.state().balancer.tokens.reader()?;
        let found = first(&reader, samples.min(SAMPLES_MAX))?;
        let state = self.state();
        let now = crate::clock::tick();
        Ok(Tokens {
            counted_s_ago: state.swept_s_ago(),
            entries: state.swept.tokens,
            limit: u64::from(state.config.limits.tokens),
            ambiguous: state.swept.tokens_ambiguous,
            backends: state.token_counts(),
            samples: found.iter().map(|(key, entry)| state.token_sample(*key, entry, now)).collect(),
        })
    }
}

/// The first entries of a table. By its hash, which is keyed, none is more likely to be among them than another.
fn first<K: crate::bpf::Value, V: crate::bpf::Value>(
    table: &HashTable<K, V>,
    count: usize,
) -> Result<Vec<(K, V)>, MapError> {
    table.entries().take(count).collect()
}

impl State {
    fn table_status(&self, ending: &str) -> Vec<TableStatus> {
        let fills = self.tables().filter(|fill| fill.table.ends_with(ending));
        fills
            .map(|fill| TableStatus { name: fill.table.to_owned(), entries: fill.entries, limit: fill.limit })
            .collect()
    }

    fn flow_counts(&self) -> Vec<FlowCount> {
        let counted = self.backends.iter().filter_map(|(id, known)| Some((known, self.swept.backends.get(id)?)));
        let count = counted.map(|(known, held)| FlowCount {
            pool: known.row.name.pool.clone(),
            backend: known.row.name.name.clone(),
            joined: held.joined_flows,
            moved: held.moved_flows,
            pinned: held.pinned_flows,
            closing: held.flows_closing,
        });
        count.filter(|count| count.joined + count.moved + count.pinned > 0).collect()
    }

    fn token_counts(&self) -> Vec<TokenCount> {
        let counted = self.backends.iter().filter_map(|(id, known)| Some((known, self.swept.backends.get(id)?)));
        let count = counted.map(|(known, held)| TokenCount {
            pool: known.row.name.pool.clone(),
            backend: known.row.name.name.clone(),
            tokens: held.tokens,
            closing: held.tokens_closing,
        });
        count.filter(|count| count.tokens > 0).collect()
    }

    fn flow_sample(&self, table: &str, flow: FlowHash, entry: &FlowEntry, now: Tick) -> FlowSample {
        let known = self.backends.get(&entry.backend);
        FlowSample {
            table: table.to_owned(),
            flow: format!("{:016x}", flow.0),
            pool: known.map(|known| known.row.name.pool.clone()).unwrap_or_default(),
            backend: self.backend_name(entry.backend),
            silent_s: seconds(entry.seen, now),
            closing: entry.state & FlowEntry::CLOSED != 0,
            unproven: entry.state & FlowEntry::UNPROVEN != 0,
            contested: entry.state & FlowEntry::CONTESTED != 0,
        }
    }

    fn token_sample(&self, key: TokenKey, entry: &TokenEntry, now: Tick) -> TokenSample {
        let holders = entry.holders.iter().filter(|holder| holder.is_some());
        let holder = |holder: &Holder| TokenHolder {
            backend: self.backend_name(holder.backend),
            age_s: seconds(holder.since, now),
            closing: self.sweeper.has_closed(holder),
        };
        TokenSample {
            token: key.token.to_string(),
            pool: self.pool_name(key.pool),
            ambiguous: entry.backend().is_none(),
            holders: holders.map(holder).collect(),
        }
    }

    fn backend_name(&self, id: BackendId) -> String {
        self.backends.get(&id).map_or_else(|| format!("number {}", id.0), |known| known.row.name.name.clone())
    }

    pub(super) fn pool_name(&self, id: PoolId) -> String {
        let pool = self.layout.pools.iter().find(|pool| pool.id == id);
        pool.map_or_else(|| format!("number {}", id.0), |pool| pool.name.clone())
    }
}

/// Seconds since a tick; one that came after `now` was read is now.
fn seconds(since: Tick, now: Tick) -> u64 {
    let ticks = now.since(since);
    if ticks < u32::MAX / 2 { u64::from(ticks) * Tick::NANOS / 1_000_000_000 } else { 0 }
}
