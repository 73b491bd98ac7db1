//! What a running balancer tells of itself: `weir status` and the metrics, read from the tables when asked.

use super::{Service, State};
use crate::{
    admin::status::{BackendStatus, PoolStatus, Status, TableStatus, VipStatus},
    config,
    metrics::{BackendCount, PacketCount, Snapshot, Source, TableFill},
};
use aya::maps::MapError;
use lb_common::{
    ids::{BackendId, VipId},
    reason::{Action, Reason},
    tables::{Counter, counter_index},
    transition::Transitions,
};

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
                address: vip.address,
                port: vip.port,
                protocol: vip.protocol.to_string(),
                pool: row.pool.clone(),
                forwarded: 0,
                dropped: 0,
                reasons: Vec::new(),
            };
            for (reason, counter) in state.counts_of(row.id)? {
                match reason.action() {
                    Action::Forward => status.forwarded += counter.packets,
                    Action::Drop | Action::Reply => status.dropped += counter.packets,
                    Action::Pass => {}
                }
                if counter.packets > 0 {
                    status.reasons.push((reason.as_str().to_owned(), counter.packets));
                }
            }
            Ok(status)
        });
        let backends = state.backends.iter().map(|(&id, known)| {
            let row = &known.row;
            Ok(BackendStatus {
                name: row.name.name.clone(),
                pool: row.name.pool.clone(),
                address: row.name.address,
                weight: row.weight,
                leaving: !state.is_configured(id),
                next_hop: known.hop.as_ref().map(|hop| format!("{} dev {}", mac(hop.next_hop_mac), hop.interface_name)),
                packets: state.sent_to(id)?.packets,
            })
        });
        let now = self.started.elapsed();
        let pools = state.config.pools.iter().map(|pool| {
            let ring = state.rings.get(&state.numbers.pool(pool.name.as_str()));
            PoolStatus {
                name: pool.name.to_string(),
                slots_in_transition: ring.map_or(0, Transitions::in_transition),
                transition_ends_in_s: ring.and_then(Transitions::ends_at).map(|end| end.saturating_sub(now).as_secs()),
            }
        });
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interface: state.config.balancer.interface.to_string(),
            xdp_mode: state.mode_word().to_owned(),
            uptime_s: self.started.elapsed().as_secs(),
            vips: vips.collect::<Result<_, MapError>>()?,
            backends: backends.collect::<Result<_, MapError>>()?,
            pools: pools.collect(),
            tables: state
                .tables()
                .map(|fill| TableStatus { name: fill.table.to_owned(), entries: fill.entries, limit: fill.limit })
                .collect(),
        })
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
        let backends = state.backends.iter().map(|(&id, known)| {
            let sent = state.sent_to(id)?;
            Ok(BackendCount {
                pool: known.row.name.pool.clone(),
                backend: known.row.name.name.clone(),
                packets: sent.packets,
                bytes: sent.bytes,
            })
        });
        Ok(Snapshot {
            packets,
            backends: backends.collect::<Result<_, MapError>>()?,
            tables: state.tables().collect(),
            xdp_mode: state.mode_word(),
        })
    }
}

impl Source for Service {
    fn snapshot(&self) -> Snapshot {
        self.read_snapshot().unwrap_or_else(|error| {
            eprintln!("weir: the counters could not be read: {error}");
            Snapshot {
                packets: Vec::new(),
                backends: Vec::new(),
                tables: Vec::new(),
                xdp_mode: self.state().mode_word(),
            }
        })
    }
}

impl State {
    /// The reasons that a VIP's packets had, or those of packets for none; a reason that cannot be counted there is left
    /// out.
    fn counts_of(&self, vip: VipId) -> Result<Vec<(Reason, Counter)>, MapError> {
        let count = |&reason: &Reason| Ok((reason, sum(&self.balancer.counters.read(counter_index(vip, reason))?)));
        Reason::ALL.iter().map(count).collect()
    }

    fn sent_to(&self, id: BackendId) -> Result<Counter, MapError> {
        Ok(sum(&self.balancer.sent.read(u32::from(id.0))?))
    }

    fn tables(&self) -> impl Iterator<Item = TableFill> + use<> {
        let (swept, limits) = (&self.swept, &self.config.limits);
        [
            ("tokens", swept.tokens, limits.tokens),
            ("joined_flows", swept.joined_flows, limits.joined_flows),
            ("moved_flows", swept.moved_flows, limits.moved_flows),
            ("pinned_flows", swept.pinned_flows, limits.pinned_flows),
        ]
        .into_iter()
        .map(|(table, entries, limit)| TableFill { table, entries, limit: u64::from(limit) })
    }

    fn mode_word(&self) -> &'static str {
        match self.config.balancer.xdp_mode {
            config::XdpMode::Native => "native",
            config::XdpMode::Generic => "generic",
        }
    }
}

fn sum(counters: &[Counter]) -> Counter {
    counters.iter().fold(Counter::default(), |sum, counter| Counter {
        packets: sum.packets + counter.packets,
        bytes: sum.bytes + counter.bytes,
    })
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}
