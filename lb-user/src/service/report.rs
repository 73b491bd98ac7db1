//! What a running balancer tells of itself: `weir status` and the metrics, read from the tables when asked.

use super::{
    Known, Service, State, rekey,
    rings::{Ring, SlotCount},
};
use crate::{
    admin::status::{BackendStatus, BusStatus, HealthStatus, HeldStatus, PoolStatus, Status, TableStatus, VipStatus},
    clock,
    config::{self, Prefix},
    health::Minting,
    metrics::{
        Attachment, BackendCount, BusCount, HealthCount, MintCount, PacketCount, PoolGauges, ReloadOutcome, Snapshot,
        Source, TableFill,
    },
};
use aya::maps::MapError;
use lb_common::{
    ids::{BackendId, PoolId, VipId},
    limits::SLOW_START_STEPS,
    reason::{Action, Reason},
    tables::{Counter, counter_index},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tracing::error;

impl Service {
    /// What `weir status` shows.
    ///
    /// # Errors
    /// The kernel refuses to tell a counter.
    pub fn status(&self) -> Result<Status, MapError> {
        let state = self.state();
        let vips = state.layout.vips.iter().zip(&state.config.vips).map(|(row, vip)| {
            let mut status = VipStatus {
                name: row.name.clone(),
                address: vip.address.prefix.to_string(),
                ports: vip.address.ports.to_string(),
                protocol: vip.address.protocol.to_string(),
                pool: row.pool.clone(),
                forwarded: 0,
                answered: 0,
                dropped: 0,
                reasons: Vec::new(),
            };
            for (reason, counter) in state.counts_of(row.id)? {
                match reason.action() {
                    Action::Forward => status.forwarded += counter.packets,
                    Action::Reply => status.answered += counter.packets,
                    Action::Drop => status.dropped += counter.packets,
                    Action::Pass => {}
                }
                if counter.packets > 0 {
                    status.reasons.push((reason.as_str().to_owned(), counter.packets));
                }
            }
            Ok(status)
        });
        let now = clock::now();
        let backends = state.backend_numbers()?.into_iter().map(|numbers| state.backend_status(&numbers, now));
        let pools = state.pool_rings().map(|(name, ring)| PoolStatus {
            name: name.to_owned(),
            slots_in_transition: ring.map_or(0, |ring| ring.transitions.in_transition()),
            transition_ends_in_s: ring
                .and_then(|ring| ring.transitions.ends_at())
                .map(|end| end.saturating_sub(now).as_secs()),
            slots_extended: ring.map_or(0, |ring| ring.transitions.extended()),
            failing_open: state.is_failing_open(name),
            takes_nobody: ring.is_some_and(|ring| !ring.has_members()),
        });
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interfaces: state.interfaces(),
            xdp_mode: mode_in_use(&state.attachments),
            xdp_mode_configured: state.mode_word().to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            vips: vips.collect::<Result<_, MapError>>()?,
            backends: backends.collect(),
            pools: pools.collect(),
            tables: state
                .tables()
                .map(|fill| TableStatus { name: fill.table.to_owned(), entries: fill.entries, limit: fill.limit })
                .collect(),
            is_withdrawn: state.is_withdrawn,
            reload_refused: !state.reloads.last_succeeded,
            former_key_ends_in_s: rekey::ends_in(state.rekeying.as_ref(), now),
            bus: state.bus_status()?,
        })
    }

    /// What one backend does; nothing if it is not known.
    ///
    /// # Errors
    /// The kernel refuses to tell a counter.
    pub fn backend_status(&self, id: BackendId) -> Result<Option<BackendStatus>, MapError> {
        let state = self.state();
        let now = clock::now();
        let numbers = state.backend_numbers()?;
        let found = numbers.iter().find(|numbers| numbers.known.row.id == id);
        Ok(found.map(|numbers| state.backend_status(numbers, now)))
    }

    /// How it stands, in one line for the service manager.
    pub fn headline(&self) -> String {
        if let Some(why) = self.unfitness() {
            return format!("no packet is steered: {why}");
        }
        let state = self.state();
        let serving: Vec<_> = state.backends.values().filter(|known| known.duty.serves()).collect();
        let reached = serving.iter().filter(|known| known.hop.is_some()).count();
        let interfaces = state.interfaces().join(", ");
        let withdrawn = if state.is_withdrawn { "; withdrawn by `weir drain-self`" } else { "" };
        format!("steering on {interfaces}; {reached} of {} backends are reached{withdrawn}", serving.len())
    }

    /// An interface that the program is no longer on, as the kernel last told.
    pub fn unattached(&self) -> Option<String> {
        let state = self.state();
        let bare = state.attachments.iter().find(|there| there.mode == "none");
        bare.map(|there| there.interface.clone())
    }

    /// Why no packet is steered, if none is: whoever announces the VIPs had better not.
    pub fn unfitness(&self) -> Option<String> {
        if let Some(interface) = self.unattached() {
            return Some(format!("there is no XDP program on {interface}"));
        }
        let state = self.state();
        let mut serving = state.backends.values().filter(|known| known.duty.serves()).peekable();
        if state.layout.vips.is_empty() {
            return None;
        }
        if serving.peek().is_none() {
            return Some("no backend serves".to_owned());
        }
        serving.all(|known| known.hop.is_none()).then(|| "no backend can be reached".to_owned())
    }

    fn read_snapshot(&self) -> Result<Snapshot, MapError> {
        let state = self.state();
        let mut packets = Vec::new();
        let nobody = (VipId::NONE, "", "");
        let rows = state.layout.vips.iter().map(|row| (row.id, row.name.as_str(), row.pool.as_str()));
        for (id, vip, pool) in std::iter::once(nobody).chain(rows) {
            packets.extend(state.counts_of(id)?.into_iter().map(|(reason, counter)| PacketCount {
                vip: vip.to_owned(),
                pool: pool.to_owned(),
                reason: reason.as_str(),
                packets: counter.packets,
                bytes: counter.bytes,
            }));
        }
        let pools = state.pool_rings().map(|(name, ring)| PoolGauges {
            pool: name.to_owned(),
            slots_in_transition: ring.map_or(0, |ring| ring.transitions.in_transition()) as u64,
            slots_extended: ring.map_or(0, |ring| ring.transitions.extended()) as u64,
            failing_open: state.is_failing_open(name),
        });
        Ok(Snapshot {
            packets,
            backends: state.backend_counts()?,
            pools: pools.collect(),
            tables: state.tables().collect(),
            reload: state.reload_outcome(),
            filter_renewals: state.filter_renewals,
            swept_s_ago: state.swept_s_ago(),
            pins_lost: state.pins_lost(),
            is_withdrawn: state.is_withdrawn,
            former_key_ends_in_s: rekey::ends_in(state.rekeying.as_ref(), clock::now()).unwrap_or(0),
            interfaces: state.attachments.clone(),
            xdp_mode_configured: state.mode_word(),
            bus: state.bus_count()?,
        })
    }
}

impl Source for Service {
    fn snapshot(&self) -> Snapshot {
        self.read_snapshot().unwrap_or_else(|error| {
            error!("the counters could not be read: {error}");
            Snapshot {
                packets: Vec::new(),
                backends: Vec::new(),
                pools: Vec::new(),
                tables: Vec::new(),
                reload: self.state().reload_outcome(),
                filter_renewals: self.state().filter_renewals,
                swept_s_ago: self.state().swept_s_ago(),
                pins_lost: self.state().pins_lost(),
                is_withdrawn: self.is_withdrawn(),
                former_key_ends_in_s: 0,
                interfaces: self.state().attachments.clone(),
                xdp_mode_configured: self.state().mode_word(),
                bus: None,
            }
        })
    }

    fn destinations(&self) -> BTreeSet<Prefix> {
        let state = self.state();
        let vips = state.config.vips.iter().map(|vip| vip.address.prefix);
        let backends = state.config.pools.iter().flat_map(|pool| &pool.backends);
        vips.chain(backends.filter_map(|backend| backend.join_address).map(Prefix::from)).collect()
    }
}

impl State {
    fn backend_status(&self, numbers: &BackendNumbers<'_>, now: Duration) -> BackendStatus {
        let known = numbers.known;
        let name = &known.row.name;
        let held = self.swept.backends.get(&known.row.id).copied().unwrap_or_default();
        BackendStatus {
            name: name.name.clone(),
            pool: name.pool.clone(),
            address: name.address,
            weight: known.row.weight,
            state: known.row.state.as_str().to_owned(),
            leaving: numbers.is_leaving,
            duty: if numbers.is_leaving { "leaving" } else { known.duty.as_str() }.to_owned(),
            drain_ordered: known.drain_ordered,
            health: self.health_status(known),
            held: HeldStatus {
                tokens: held.tokens,
                joined_flows: held.joined_flows,
                moved_flows: held.moved_flows,
                pinned_flows: held.pinned_flows,
            },
            share_percent: numbers.share_percent,
            slots: numbers.slots.owned,
            slots_previous: numbers.slots.previous,
            drain_ends_in_s: known.duty.drain_left_s(now),
            next_hop: known.hop.as_ref().map(|hop| format!("{} dev {}", mac(hop.next_hop_mac), hop.interface_name)),
            unreached: known.unreached().map(str::to_owned),
            pool_takes_nobody: self.rings.get(&known.row.pool).is_some_and(|ring| !ring.has_members()),
            packets: numbers.sent.packets,
        }
    }

    fn health_status(&self, known: &Known) -> Option<HealthStatus> {
        let health = known.health.as_ref()?;
        let config = self.layout.pools.iter().find(|pool| pool.id == known.row.pool)?.health.as_ref()?;
        Some(HealthStatus {
            check: config.check.as_str().to_owned(),
            target: config.targets_words(),
            verdict: health.verdict.as_str().to_owned(),
            passed: health.passed,
            failed: health.failed,
            last_took_ms: health.last_took.as_millis().try_into().unwrap_or(u64::MAX),
            last_error: health.last_error.clone(),
            mints_tokens: health.minting.map(|minting| minting == Minting::Tokens),
        })
    }

    fn bus_status(&self) -> Result<Option<BusStatus>, MapError> {
        let (Some(config), Some(BusCount { member, events_lost })) = (&self.config.bus, self.bus_count()?) else {
            return Ok(None);
        };
        let refused = member.refused.iter().filter(|(_, entries)| *entries > 0);
        Ok(Some(BusStatus {
            cluster: config.cluster.to_string(),
            name: config.name.to_string(),
            connected: member.connected,
            caught_up: member.caught_up,
            sent: member.sent,
            received: member.received,
            refused: refused.map(|&(refusal, entries)| (refusal.as_str().to_owned(), entries)).collect(),
            lost: member.lost,
            events_lost,
        }))
    }

    fn is_failing_open(&self, pool: &str) -> bool {
        self.layout.pools.iter().any(|row| row.name == pool && self.failing_open.contains(&row.id))
    }

    /// The reasons that a VIP's packets had, or those of packets for none; a reason that cannot be counted there is left
    /// out.
    fn counts_of(&self, vip: VipId) -> Result<Vec<(Reason, Counter)>, MapError> {
        let count = |&reason: &Reason| Ok((reason, sum(&self.balancer.counters.read(counter_index(vip, reason))?)));
        Reason::ALL.iter().map(count).collect()
    }

    /// The pools in the order of the configuration, with their rings.
    fn pool_rings(&self) -> impl Iterator<Item = (&str, Option<&Ring>)> {
        self.layout.pools.iter().map(|pool| (pool.name.as_str(), self.rings.get(&pool.id)))
    }

    /// The backends and what is to be told of each.
    fn backend_numbers(&self) -> Result<Vec<BackendNumbers<'_>>, MapError> {
        let slots: BTreeMap<PoolId, _> = self.rings.iter().map(|(&pool, ring)| (pool, ring.counts())).collect();
        let slow_starts: BTreeMap<PoolId, _> = self.layout.pools.iter().map(|row| (row.id, row.slow_start)).collect();
        let configured: BTreeSet<BackendId> = self.layout.backends.iter().map(|row| row.id).collect();
        let numbers = self.backends.iter().map(|(&id, known)| {
            let pool = known.row.pool;
            let sent = sum(&self.balancer.sent.read(u32::from(id.0))?);
            let slow_start = slow_starts.get(&pool).copied().unwrap_or_default();
            Ok(BackendNumbers {
                known,
                is_leaving: !configured.contains(&id),
                share_percent: known.duty.part(self.rings_at, slow_start) * 100 / SLOW_START_STEPS,
                slots: slots.get(&pool).map_or_else(SlotCount::default, |slots| slots[usize::from(id.0)]),
                sent: Counter {
                    packets: sent.packets - known.sent_before.packets,
                    bytes: sent.bytes - known.sent_before.bytes,
                },
            })
        });
        numbers.collect()
    }

    /// The same for the metrics, where a backend under another address has the same name: the two are one row, with the
    /// state of the one that is configured.
    fn backend_counts(&self) -> Result<Vec<BackendCount>, MapError> {
        let mut rows: BTreeMap<(&str, &str), BackendCount> = BTreeMap::new();
        for numbers in self.backend_numbers()? {
            let row = &numbers.known.row;
            let name = (row.name.pool.as_str(), row.name.name.as_str());
            let count = rows.entry(name).or_insert_with(|| BackendCount::of_leaving(name.0, name.1));
            count.packets += numbers.sent.packets;
            count.bytes += numbers.sent.bytes;
            count.slots_owned += numbers.slots.owned;
            count.slots_previous += numbers.slots.previous;
            let held = self.swept.backends.get(&numbers.known.row.id).copied().unwrap_or_default();
            let held = [held.tokens, held.joined_flows, held.moved_flows, held.pinned_flows];
            count.held.iter_mut().zip(held).for_each(|(sum, of_table)| *sum += of_table);
            if !numbers.is_leaving {
                count.state = row.state.as_str();
                count.weight = u64::from(row.weight);
                count.is_reachable = numbers.known.hop.is_some();
                count.health = numbers.known.health.as_ref().map(|health| HealthCount {
                    is_up: health.verdict.is_up(),
                    passed: health.passed,
                    failed: health.failed,
                    unmade: health.unmade,
                    took: health.took,
                    minting: health
                        .minting
                        .map(|minting| MintCount { mints: minting == Minting::Tokens, plain: health.plain }),
                });
            }
        }
        Ok(rows.into_values().collect())
    }

    fn reload_outcome(&self) -> ReloadOutcome {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        ReloadOutcome {
            last_succeeded: self.reloads.last_succeeded,
            last_tried_s: seconds(self.reloads.last_tried),
            in_force_since_s: seconds(self.reloads.in_force_since),
        }
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = TableFill> + use<> {
        let (swept, evicted, limits) = (&self.swept, &self.evicted, &self.config.limits);
        [
            ("tokens", swept.tokens, limits.tokens, evicted.tokens),
            ("joined_flows", swept.joined_flows, limits.joined_flows, 0),
            ("moved_flows", swept.moved_flows, limits.moved_flows, evicted.moved_flows),
            ("pinned_flows", swept.pinned_flows, limits.pinned_flows, 0),
        ]
        .into_iter()
        .map(|(table, entries, limit, evicted)| TableFill { table, entries, limit: u64::from(limit), evicted })
    }

    pub(super) fn interfaces(&self) -> Vec<String> {
        self.config.balancer.interfaces.iter().map(ToString::to_string).collect()
    }

    fn pins_lost(&self) -> u64 {
        self.lost_pins.as_ref().map_or(0, |lost| lost.gone.len() as u64)
    }

    fn mode_word(&self) -> &'static str {
        match self.config.balancer.xdp_mode {
            config::XdpMode::Native => "native",
            config::XdpMode::Generic => "generic",
        }
    }
}

/// A backend and its numbers.
struct BackendNumbers<'s> {
    known: &'s Known,
    is_leaving: bool,
    share_percent: u32,
    slots: SlotCount,
    sent: Counter,
}

/// How the program is attached: one word where that is so on all interfaces alike, else one for each.
fn mode_in_use(attachments: &[Attachment]) -> String {
    let Some(first) = attachments.first() else { return "none".to_owned() };
    if attachments.iter().all(|attachment| attachment.mode == first.mode) {
        return first.mode.to_owned();
    }
    let words: Vec<_> =
        attachments.iter().map(|Attachment { interface, mode }| format!("{interface} {mode}")).collect();
    words.join(", ")
}

/// What all CPUs counted.
pub(super) fn sum(counters: &[Counter]) -> Counter {
    counters.iter().fold(Counter::default(), |sum, counter| Counter {
        packets: sum.packets + counter.packets,
        bytes: sum.bytes + counter.bytes,
    })
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(modes: &[(&str, &'static str)]) -> String {
        let attached = |&(interface, mode): &(&str, &'static str)| Attachment { interface: interface.to_owned(), mode };
        mode_in_use(&modes.iter().map(attached).collect::<Vec<_>>())
    }

    #[test]
    fn the_mode_is_one_word_unless_interfaces_differ() {
        assert_eq!(in_use(&[]), "none");
        assert_eq!(in_use(&[("eth0", "generic"), ("eth1", "generic")]), "generic");
        assert_eq!(in_use(&[("eth0", "native"), ("eth1", "none")]), "eth0 native, eth1 none");
    }
}
