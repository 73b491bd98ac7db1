//! The metric families: names, help, labels, and the rows that a snapshot has for each.
//!
//! The names are an interface: dashboards and alerts are written against them.

use super::Snapshot;

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
    /// Grows until the program is loaded anew.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A value and its labels, in the order of the family's.
pub(super) struct Row<'s> {
    pub(super) labels: Vec<&'s str>,
    pub(super) value: u64,
}

/// Every family that Weir has.
pub const FAMILIES: [Family; 8] =
    [PACKETS, BYTES, BACKEND_PACKETS, BACKEND_BYTES, TABLE_ENTRIES, TABLE_LIMIT, BUILD_INFO, XDP_MODE];

const PACKETS: Family = Family {
    name: "weir_packets_total",
    help: "Packets received, by what became of them.",
    kind: Kind::Counter,
    labels: &["vip", "pool", "reason"],
};
const BYTES: Family = Family {
    name: "weir_bytes_total",
    help: "Bytes received, by what became of their packets.",
    kind: Kind::Counter,
    labels: &["vip", "pool", "reason"],
};
const BACKEND_PACKETS: Family = Family {
    name: "weir_backend_packets_total",
    help: "Packets sent to a backend.",
    kind: Kind::Counter,
    labels: &["pool", "backend"],
};
const BACKEND_BYTES: Family = Family {
    name: "weir_backend_bytes_total",
    help: "Bytes of the packets sent to a backend, as received.",
    kind: Kind::Counter,
    labels: &["pool", "backend"],
};
const TABLE_ENTRIES: Family =
    Family { name: "weir_table_entries", help: "Entries in a table.", kind: Kind::Gauge, labels: &["table"] };
const TABLE_LIMIT: Family = Family {
    name: "weir_table_limit",
    help: "Entries that a table has room for.",
    kind: Kind::Gauge,
    labels: &["table"],
};
const BUILD_INFO: Family = Family {
    name: "weir_build_info",
    help: "The running version of Weir; always 1.",
    kind: Kind::Gauge,
    labels: &["version"],
};
const XDP_MODE: Family = Family {
    name: "weir_xdp_mode",
    help: "How the XDP program is attached; always 1.",
    kind: Kind::Gauge,
    labels: &["mode"],
};

/// The rows of every family.
pub(super) fn rows(snapshot: &Snapshot) -> [(Family, Vec<Row<'_>>); 8] {
    let packets = |value: fn(&super::PacketCount) -> u64| {
        rows_of(&snapshot.packets, move |count| Row {
            labels: vec![&count.vip, &count.pool, count.reason],
            value: value(count),
        })
    };
    let backends = |value: fn(&super::BackendCount) -> u64| {
        rows_of(&snapshot.backends, move |count| Row { labels: vec![&count.pool, &count.backend], value: value(count) })
    };
    let tables = |value: fn(&super::TableFill) -> u64| {
        rows_of(&snapshot.tables, move |fill| Row { labels: vec![fill.table], value: value(fill) })
    };
    let constant = |label| vec![Row { labels: vec![label], value: 1 }];
    [
        (PACKETS, packets(|count| count.packets)),
        (BYTES, packets(|count| count.bytes)),
        (BACKEND_PACKETS, backends(|count| count.packets)),
        (BACKEND_BYTES, backends(|count| count.bytes)),
        (TABLE_ENTRIES, tables(|fill| fill.entries)),
        (TABLE_LIMIT, tables(|fill| fill.limit)),
        (BUILD_INFO, constant(env!("CARGO_PKG_VERSION"))),
        (XDP_MODE, constant(snapshot.xdp_mode)),
    ]
}

fn rows_of<'s, T>(things: &'s [T], row: impl Fn(&'s T) -> Row<'s>) -> Vec<Row<'s>> {
    things.iter().map(row).collect()
}
