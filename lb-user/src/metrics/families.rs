//! The metric families: names, help, labels, and the rows that a snapshot has for each.
//!
//! The names are an interface: dashboards and alerts are written against them.

use super::{Attachment, BackendCount, HealthCount, MintCount, PacketCount, Snapshot, bus, vital};
use crate::joins::{self, Join};
use lb_common::reason::Reason;
use std::collections::BTreeMap;

/// A family of metrics.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
}

/// The kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Grows until the tables are made anew.
    Counter,
    /// A time that only grows: its rows are in microseconds, its samples in seconds.
    Time,
    /// Goes up and down.
    Gauge,
}

/// A value and its labels, in the order of the family's.
pub(super) struct Row<'s> {
    pub(super) labels: Vec<&'s str>,
    pub(super) value: u64,
}

/// Every family that Weir has.
pub const FAMILIES: &[Family] = &[
    PACKETS,
    BYTES,
    JOINS,
    BACKEND_PACKETS,
    BACKEND_BYTES,
    BACKEND_STATE,
    BACKEND_WEIGHT,
    BACKEND_SLOTS,
    BACKEND_ENTRIES,
    BACKEND_REACHABLE,
    BACKEND_HEALTH,
    HEALTH_CHECKS,
    HEALTH_CHECK_TIME,
    UNMADE_CHECKS,
    MINTS_TOKENS,
    PLAIN_CHECKS,
    SLOTS_IN_TRANSITION,
    SLOTS_EXTENDED,
    FAIL_OPEN,
    TABLE_ENTRIES,
    TABLE_LIMIT,
    TABLE_EVICTED,
    FILTER_RENEWALS,
    SWEEP_AGE,
    PINS_LOST,
    WITHDRAWN,
    FORMER_KEY,
    RELOAD_SUCCEEDED,
    RELOAD_TIME,
    RELOAD_TRIED,
    BUILD_INFO,
    XDP_MODE,
    XDP_MODE_CONFIGURED,
    vital::READY,
    vital::LOOP_SILENCE,
    bus::CONNECTED,
    bus::CAUGHT_UP,
    bus::SENT,
    bus::RECEIVED,
    bus::REFUSED,
    bus::LOST,
    bus::OVERRUNS,
    bus::EVENTS_LOST,
];

const PACKETS: Family = Family {
    name: "weir_packets_total",
    help: "Packets received, by what became of them.",
    kind: Kind::Counter,
    labels: &["vip", "pool", "reason"],
};
const BYTES: Family = Family {
    name: "weir_bytes_total",
    help: "Bytes of whole Ethernet frames received, by what became of their packets.",
    kind: Kind::Counter,
    labels: &["vip", "pool", "reason"],
};
const JOINS: Family = Family {
    name: "weir_joins_total",
    help: "Joining SYNs, and ACKs that needed an entry, by what knew their connection and what became of them.",
    kind: Kind::Counter,
    labels: &["pool", "way", "outcome"],
};
const BACKEND_PACKETS: Family = Family {
    name: "weir_backend_packets_total",
    help: "Packets sent to a backend.",
    kind: Kind::Counter,
    labels: &["pool", "backend"],
};
const BACKEND_BYTES: Family = Family {
    name: "weir_backend_bytes_total",
    help: "Bytes of the whole Ethernet frames sent to a backend, as received, without the tunnel.",
    kind: Kind::Counter,
    labels: &["pool", "backend"],
};
const BACKEND_STATE: Family = Family {
    name: "weir_backend_state",
    help: "What a backend does: 1 for its state, 0 for the others.",
    kind: Kind::Gauge,
    labels: &["pool", "backend", "state"],
};
const BACKEND_WEIGHT: Family = Family {
    name: "weir_backend_weight",
    help: "The configured weight of a backend.",
    kind: Kind::Gauge,
    labels: &["pool", "backend"],
};
const BACKEND_SLOTS: Family = Family {
    name: "weir_backend_slots",
    help: "Slots of the ring whose new connections (owner) or older ones (previous) go to a backend.",
    kind: Kind::Gauge,
    labels: &["pool", "backend", "role"],
};
const BACKEND_ENTRIES: Family = Family {
    name: "weir_backend_entries",
    help: "Entries of a table that name a backend, as of the last sweep; connections that the ring answers need none.",
    kind: Kind::Gauge,
    labels: &["pool", "backend", "table"],
};
const BACKEND_REACHABLE: Family = Family {
    name: "weir_backend_reachable",
    help: "Whether this machine has a route to a configured backend and a neighbour that answers there.",
    kind: Kind::Gauge,
    labels: &["pool", "backend"],
};
const BACKEND_HEALTH: Family = Family {
    name: "weir_backend_health",
    help: "Whether the health checks of a backend let it take connections.",
    kind: Kind::Gauge,
    labels: &["pool", "backend"],
};
const HEALTH_CHECKS: Family = Family {
    name: "weir_health_checks_total",
    help: "Health checks of a backend, by how they ended.",
    kind: Kind::Counter,
    labels: &["pool", "backend", "result"],
};
const HEALTH_CHECK_TIME: Family = Family {
    name: "weir_health_check_seconds_total",
    help: "How long all health checks of a backend took together.",
    kind: Kind::Time,
    labels: &["pool", "backend"],
};
const UNMADE_CHECKS: Family = Family {
    name: "weir_health_checks_unmade_total",
    help: "Health checks of a backend that this machine could not make, for want of files, ports or memory; they say nothing of the backend.",
    kind: Kind::Counter,
    labels: &["pool", "backend"],
};
const MINTS_TOKENS: Family = Family {
    name: "weir_backend_mints_tokens",
    help: "Whether the last good health check of a backend was given a token that names it; 0 where it found plain TCP.",
    kind: Kind::Gauge,
    labels: &["pool", "backend"],
};
const PLAIN_CHECKS: Family = Family {
    name: "weir_health_checks_plain_tcp_total",
    help: "Good health checks of a backend that found plain TCP where tokens should name it.",
    kind: Kind::Counter,
    labels: &["pool", "backend"],
};
const FAIL_OPEN: Family = Family {
    name: "weir_pool_fail_open",
    help: "Whether a pool is served though all its backends fail their health checks.",
    kind: Kind::Gauge,
    labels: &["pool"],
};
const SLOTS_IN_TRANSITION: Family = Family {
    name: "weir_slots_in_transition",
    help: "Slots of the ring that connections of two backends may be in.",
    kind: Kind::Gauge,
    labels: &["pool"],
};
const SLOTS_EXTENDED: Family = Family {
    name: "weir_slots_extended",
    help: "Slots in transition for longer than configured, because the table of pinned flows had no room.",
    kind: Kind::Gauge,
    labels: &["pool"],
};
const TABLE_ENTRIES: Family =
    Family { name: "weir_table_entries", help: "Entries in a table.", kind: Kind::Gauge, labels: &["table"] };
const TABLE_LIMIT: Family = Family {
    name: "weir_table_limit",
    help: "Entries that a table has room for.",
    kind: Kind::Gauge,
    labels: &["table"],
};
const TABLE_EVICTED: Family = Family {
    name: "weir_table_evicted_total",
    help: "Entries of a table that were ended, oldest first, because it was nearly full.",
    kind: Kind::Counter,
    labels: &["table"],
};
const FILTER_RENEWALS: Family = Family {
    name: "weir_filter_renewals_total",
    help: "How often the filter in front of the flows' entries was made anew, because it no longer fitted its entries.",
    kind: Kind::Counter,
    labels: &[],
};
const SWEEP_AGE: Family = Family {
    name: "weir_sweep_age_seconds",
    help: "How long ago the last sweep ended, which takes out of the tables what is over: one begins every ten seconds. The start counts as one.",
    kind: Kind::Gauge,
    labels: &[],
};
const PINS_LOST: Family = Family {
    name: "weir_pins_lost",
    help: "Files of the directory of pins that somebody else has removed, so that what they held does not outlive weir run.",
    kind: Kind::Gauge,
    labels: &[],
};
const WITHDRAWN: Family = Family {
    name: "weir_withdrawn",
    help: "Whether `weir drain-self` has withdrawn this balancer, so that `/healthz` answers 503.",
    kind: Kind::Gauge,
    labels: &[],
};
const FORMER_KEY: Family = Family {
    name: "weir_former_cluster_key_seconds",
    help: "For how long flows of the former cluster key are kept; 0 where no other key has held.",
    kind: Kind::Gauge,
    labels: &[],
};
const RELOAD_SUCCEEDED: Family = Family {
    name: "weir_config_last_reload_successful",
    help: "Whether the last configuration that was asked for is in force.",
    kind: Kind::Gauge,
    labels: &[],
};
const RELOAD_TIME: Family = Family {
    name: "weir_config_last_reload_success_timestamp_seconds",
    help: "Since when the present configuration is in force.",
    kind: Kind::Gauge,
    labels: &[],
};
const RELOAD_TRIED: Family = Family {
    name: "weir_config_last_reload_timestamp_seconds",
    help: "When a configuration was last asked for, whether or not it is in force.",
    kind: Kind::Gauge,
    labels: &[],
};
const BUILD_INFO: Family = Family {
    name: "weir_build_info",
    help: "The running version of Weir; always 1.",
    kind: Kind::Gauge,
    labels: &["version"],
};
const XDP_MODE: Family = Family {
    name: "weir_xdp_mode",
    help: "How the XDP program is attached to an interface, as the kernel tells: native, generic, hardware or none; always 1.",
    kind: Kind::Gauge,
    labels: &["interface", "mode"],
};
const XDP_MODE_CONFIGURED: Family = Family {
    name: "weir_xdp_mode_configured",
    help: "How the configuration has the XDP program attached: native or generic; always 1.",
    kind: Kind::Gauge,
    labels: &["mode"],
};

/// The rows of every family but those that tell how the process itself is.
pub(super) fn rows(snapshot: &Snapshot) -> Vec<(Family, Vec<Row<'_>>)> {
    let packets = |value: fn(&PacketCount) -> u64| {
        rows_of(&snapshot.packets, move |count| Row {
            labels: vec![&count.vip, &count.pool, count.reason],
            value: value(count),
        })
    };
    let backends = |value: fn(&BackendCount) -> u64| {
        rows_of(&snapshot.backends, move |count| Row { labels: vec![&count.pool, &count.backend], value: value(count) })
    };
    let tables = |value: fn(&super::TableFill) -> u64| {
        rows_of(&snapshot.tables, move |fill| Row { labels: vec![fill.table], value: value(fill) })
    };
    let pools = |value: fn(&super::PoolGauges) -> u64| {
        rows_of(&snapshot.pools, move |gauges| Row { labels: vec![&gauges.pool], value: value(gauges) })
    };
    let alone = |value| vec![Row { labels: Vec::new(), value }];
    let constant = |label| vec![Row { labels: vec![label], value: 1 }];
    let mut rows = vec![
        (PACKETS, packets(|count| count.packets)),
        (BYTES, packets(|count| count.bytes)),
        (JOINS, join_rows(&snapshot.packets)),
        (BACKEND_PACKETS, backends(|count| count.packets)),
        (BACKEND_BYTES, backends(|count| count.bytes)),
        (BACKEND_STATE, state_rows(&snapshot.backends)),
        (BACKEND_WEIGHT, backends(|count| count.weight)),
        (BACKEND_SLOTS, slot_rows(&snapshot.backends)),
        (BACKEND_ENTRIES, entry_rows(&snapshot.backends)),
        (BACKEND_REACHABLE, reach_rows(&snapshot.backends)),
        (BACKEND_HEALTH, health_rows(&snapshot.backends, |health| vec![("", u64::from(health.is_up))])),
        (
            HEALTH_CHECKS,
            health_rows(&snapshot.backends, |health| vec![("passed", health.passed), ("failed", health.failed)]),
        ),
        (HEALTH_CHECK_TIME, health_rows(&snapshot.backends, |health| vec![("", micros(health.took))])),
        (UNMADE_CHECKS, health_rows(&snapshot.backends, |health| vec![("", health.unmade)])),
        (MINTS_TOKENS, mint_rows(&snapshot.backends, |minting| u64::from(minting.mints))),
        (PLAIN_CHECKS, mint_rows(&snapshot.backends, |minting| minting.plain)),
        (SLOTS_IN_TRANSITION, pools(|gauges| gauges.slots_in_transition)),
        (SLOTS_EXTENDED, pools(|gauges| gauges.slots_extended)),
        (FAIL_OPEN, pools(|gauges| u64::from(gauges.failing_open))),
        (TABLE_ENTRIES, tables(|fill| fill.entries)),
        (TABLE_LIMIT, tables(|fill| fill.limit)),
        (TABLE_EVICTED, tables(|fill| fill.evicted)),
        (FILTER_RENEWALS, alone(snapshot.filter_renewals)),
        (SWEEP_AGE, alone(snapshot.swept_s_ago)),
        (PINS_LOST, alone(snapshot.pins_lost)),
        (WITHDRAWN, alone(u64::from(snapshot.is_withdrawn))),
        (FORMER_KEY, alone(snapshot.former_key_ends_in_s)),
        (RELOAD_SUCCEEDED, alone(u64::from(snapshot.reload.last_succeeded))),
        (RELOAD_TIME, alone(snapshot.reload.in_force_since_s)),
        (RELOAD_TRIED, alone(snapshot.reload.last_tried_s)),
        (BUILD_INFO, constant(env!("CARGO_PKG_VERSION"))),
        (XDP_MODE, interface_rows(snapshot)),
        (XDP_MODE_CONFIGURED, constant(snapshot.xdp_mode_configured)),
    ];
    let on_bus = snapshot.bus.as_ref();
    rows.extend(bus::rows(on_bus.map(|bus| &bus.member)));
    rows.push((bus::EVENTS_LOST, bus::row(on_bus.map(|bus| bus.events_lost))));
    rows
}

fn interface_rows(snapshot: &Snapshot) -> Vec<Row<'_>> {
    rows_of(&snapshot.interfaces, Attachment::row)
}

impl Attachment {
    pub(super) fn row(&self) -> Row<'_> {
        Row { labels: vec![&self.interface, self.mode], value: 1 }
    }
}

/// Every pool has every kind, so that a rate begins at zero.
fn join_rows(packets: &[PacketCount]) -> Vec<Row<'_>> {
    let kinds: BTreeMap<&str, Join> =
        Reason::ALL.iter().filter_map(|&reason| Some((reason.as_str(), joins::of(reason)?))).collect();
    let mut totals: BTreeMap<(&str, Join), u64> = BTreeMap::new();
    for count in packets.iter().filter(|count| !count.pool.is_empty()) {
        if let Some(&join) = kinds.get(count.reason) {
            *totals.entry((&count.pool, join)).or_default() += count.packets;
        }
    }
    let row = |((pool, join), value): ((_, Join), _)| Row { labels: vec![pool, join.way, join.outcome], value };
    totals.into_iter().map(row).collect()
}

fn state_rows(backends: &[BackendCount]) -> Vec<Row<'_>> {
    backends
        .iter()
        .flat_map(|count| BackendCount::STATES.map(|state| backend_row(count, state, u64::from(count.state == state))))
        .collect()
}

fn entry_rows(backends: &[BackendCount]) -> Vec<Row<'_>> {
    let tables = |count: &BackendCount| BackendCount::TABLES.into_iter().zip(count.held);
    backends.iter().flat_map(|count| tables(count).map(|(table, entries)| backend_row(count, table, entries))).collect()
}

fn reach_rows(backends: &[BackendCount]) -> Vec<Row<'_>> {
    let configured = backends.iter().filter(|count| count.state != BackendCount::LEAVING);
    configured
        .map(|count| Row { labels: vec![&count.pool, &count.backend], value: count.is_reachable.into() })
        .collect()
}

fn slot_rows(backends: &[BackendCount]) -> Vec<Row<'_>> {
    let rows =
        |count| [backend_row(count, "owner", count.slots_owned), backend_row(count, "previous", count.slots_previous)];
    backends.iter().flat_map(rows).collect()
}

/// The rows of the backends that are checked: a value for each label, or one without a further label.
fn health_rows<'s>(
    backends: &'s [BackendCount],
    values: impl Fn(&HealthCount) -> Vec<(&'static str, u64)>,
) -> Vec<Row<'s>> {
    let rows = |count: &'s BackendCount| {
        let values = count.health.as_ref().map_or_else(Vec::new, &values);
        values.into_iter().map(|(label, value)| match label {
            "" => Row { labels: vec![&count.pool, &count.backend], value },
            label => backend_row(count, label, value),
        })
    };
    backends.iter().flat_map(rows).collect()
}

/// The rows of the backends whose checks ask for tokens.
fn mint_rows(backends: &[BackendCount], value: impl Fn(&MintCount) -> u64) -> Vec<Row<'_>> {
    health_rows(backends, |health| health.minting.iter().map(|minting| ("", value(minting))).collect())
}

fn micros(time: std::time::Duration) -> u64 {
    time.as_micros().try_into().unwrap_or(u64::MAX)
}

fn backend_row<'s>(count: &'s BackendCount, label: &'s str, value: u64) -> Row<'s> {
    Row { labels: vec![&count.pool, &count.backend, label], value }
}

fn rows_of<'s, T>(things: &'s [T], row: impl Fn(&'s T) -> Row<'s>) -> Vec<Row<'s>> {
    things.iter().map(row).collect()
}
