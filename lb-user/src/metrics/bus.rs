//! What a member of a cluster counts of its bus: the families that balancers and agents have in common, with rows only
//! where there is a bus.

use super::families::{Family, Kind, Row};
use crate::bus::BusNumbers;

pub(super) const CONNECTED: Family = Family {
    name: "weir_bus_connected",
    help: "Whether there is a connection to a server of the bus.",
    kind: Kind::Gauge,
    labels: &[],
};
pub(super) const CAUGHT_UP: Family = Family {
    name: "weir_bus_caught_up",
    help: "Whether the other members were asked for what they know since that connection was made.",
    kind: Kind::Gauge,
    labels: &[],
};
pub(super) const SENT: Family = Family {
    name: "weir_bus_entries_sent_total",
    help: "Tokens and joined flows, their beginnings and ends, told to the other members.",
    kind: Kind::Counter,
    labels: &[],
};
pub(super) const RECEIVED: Family = Family {
    name: "weir_bus_entries_received_total",
    help: "Those that other members have told and that were taken.",
    kind: Kind::Counter,
    labels: &[],
};
pub(super) const REFUSED: Family = Family {
    name: "weir_bus_entries_refused_total",
    help: "Those that other members have told and that were not taken: of an unknown pool or backend, unwanted by the pool's \
           ways, held by another backend, without room (full), or illegible.",
    kind: Kind::Counter,
    labels: &["reason"],
};
pub(super) const LOST: Family = Family {
    name: "weir_bus_entries_lost_total",
    help: "Those that found no room while the bus was down; the others ask for them when it is back.",
    kind: Kind::Counter,
    labels: &[],
};
pub(super) const OVERRUNS: Family = Family {
    name: "weir_bus_overruns_total",
    help: "How often messages were missed because they came faster than they were taken in; the others are asked again.",
    kind: Kind::Counter,
    labels: &[],
};
pub(super) const EVENTS_LOST: Family = Family {
    name: "weir_bus_events_lost_total",
    help: "What the data path had to tell and found no room for in its ring buffer; others hear of it when they catch up.",
    kind: Kind::Counter,
    labels: &[],
};

/// The rows of the families that every member has.
pub(super) fn rows(numbers: Option<&BusNumbers>) -> Vec<(Family, Vec<Row<'static>>)> {
    let alone = |value: fn(&BusNumbers) -> u64| row(numbers.map(value));
    let refused = numbers.map_or_else(Vec::new, |numbers| {
        numbers.refused.iter().map(|&(refusal, value)| Row { labels: vec![refusal.as_str()], value }).collect()
    });
    vec![
        (CONNECTED, alone(|numbers| u64::from(numbers.connected))),
        (CAUGHT_UP, alone(|numbers| u64::from(numbers.caught_up))),
        (SENT, alone(|numbers| numbers.sent)),
        (RECEIVED, alone(|numbers| numbers.received)),
        (REFUSED, refused),
        (LOST, alone(|numbers| numbers.lost)),
        (OVERRUNS, alone(|numbers| numbers.overruns)),
    ]
}

/// A row without labels, where there is a value.
pub(super) fn row(value: Option<u64>) -> Vec<Row<'static>> {
    value.map(|value| Row { labels: Vec::new(), value }).into_iter().collect()
}
