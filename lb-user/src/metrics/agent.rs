//! What an agent counts: the metric families of a backend, and the page that has them. No label holds anything of a client.

use super::{
    Attachment, bus,
    collector::metric_family,
    families::{Family, Kind, Row},
    listener::Page,
};
use crate::{
    agent::{
        Counts, Known,
        mint::{MintCounts, State},
    },
    bpf::{AgentCounters, MintCounters},
    bus::Publisher,
    config::Name,
};
use lb_common::{mint::Mint, stateless::EPOCHS};
use prometheus::TextEncoder;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};
use tokio::sync::watch;

/// Every family that only an agent has; with a bus it has those that each member has, too.
pub const FAMILIES: &[Family] = &[
    BUILD_INFO,
    CLAMPS,
    CONNECTIONS,
    DECAPS,
    EVENTS,
    EVENTS_LOST,
    KEYS,
    KEYS_FOUND,
    KEYS_RECYCLED,
    MINTS,
    RESYNCS,
    SERVICES,
    TOKENS,
    XDP_MODE,
];

const BUILD_INFO: Family = Family {
    name: "weir_agent_build_info",
    help: "The running version of the agent; always 1.",
    kind: Kind::Gauge,
    labels: &["version"],
};
const CLAMPS: Family = Family {
    name: "weir_agent_syns_total",
    help: "SYNs and SYN/ACKs that left from a VIP, by what became of their MSS: lowered, fits, or kept where there is none.",
    kind: Kind::Counter,
    labels: &["mss"],
};
const CONNECTIONS: Family = Family {
    name: "weir_agent_connections",
    help: "MPTCP connections of a pool's VIPs that live here.",
    kind: Kind::Gauge,
    labels: &["pool"],
};
const DECAPS: Family = Family {
    name: "weir_agent_frames_total",
    help: "Frames received, by what became of their tunnel: taken, no_tunnel, stranger (not from a balancer) or malformed.",
    kind: Kind::Counter,
    labels: &["tunnel"],
};
const EVENTS: Family = Family {
    name: "weir_agent_events_total",
    help: "MPTCP connections of VIPs that the kernel told of as created or closed.",
    kind: Kind::Counter,
    labels: &["event"],
};
const EVENTS_LOST: Family = Family {
    name: "weir_agent_event_losses_total",
    help: "How often the kernel had more events than room for them.",
    kind: Kind::Counter,
    labels: &[],
};
const KEYS: Family = Family {
    name: "weir_agent_keys",
    help: "MPTCP keys, by where they are: ready to be given out, or out with clients that have not come back.",
    kind: Kind::Gauge,
    labels: &["state"],
};
const KEYS_FOUND: Family = Family {
    name: "weir_agent_keys_found_total",
    help: "MPTCP keys that the search has found.",
    kind: Kind::Counter,
    labels: &[],
};
const KEYS_RECYCLED: Family = Family {
    name: "weir_agent_keys_recycled_total",
    help: "MPTCP keys that were given out, never came back, and may be given out once more.",
    kind: Kind::Counter,
    labels: &[],
};
const MINTS: Family = Family {
    name: "weir_agent_mints_total",
    help: "Handshakes of VIPs that are minted for, by what became of them: minted; or left to the kernel, for the listener may \
           have no cookies now (paused), a cookie cannot carry what the SYN asks for (not_carried), the kernel \
           has_socket between the same addresses and ports (of a connection that has just ended, mostly), there was no_route or no_key, or a step was refused. And SYN/ACKs of the kernel's that became plain TCP, or were dropped where that \
           could not be.",
    kind: Kind::Counter,
    labels: &["outcome"],
};
const RESYNCS: Family = Family {
    name: "weir_agent_resyncs_total",
    help: "How often all MPTCP sockets were read: at the start, after a loss, and every ten seconds.",
    kind: Kind::Counter,
    labels: &[],
};

const SERVICES: Family = Family {
    name: "weir_agent_services",
    help: "Addresses and ports of VIPs that have a listener, by how it stands with minting: minting, queue_full or unwell.",
    kind: Kind::Gauge,
    labels: &["state"],
};
const TOKENS: Family = Family {
    name: "weir_agent_token_connections",
    help: "MPTCP connections of the pool that is minted for, by the epoch that their tokens name.",
    kind: Kind::Gauge,
    labels: &["epoch"],
};
const XDP_MODE: Family = Family {
    name: "weir_agent_xdp_mode",
    help: "How the program that takes tunnels off is attached to an interface, as the kernel tells: native, generic, hardware or \
           none; always 1.",
    kind: Kind::Gauge,
    labels: &["interface", "mode"],
};

/// Where the numbers of minting come from.
pub struct MintPage {
    /// Of the programs.
    pub counters: MintCounters,
    /// Of the keys.
    pub counts: Arc<MintCounts>,
    /// The pool that is minted for.
    pub pool: Name,
}

/// Where the numbers come from.
pub struct AgentPage {
    /// The pools that have VIPs here.
    pub pools: Vec<Name>,
    /// Of the programs.
    pub counters: AgentCounters,
    /// The connections.
    pub known: Arc<Known>,
    /// What happened to them.
    pub counts: Arc<Counts>,
    /// The way to the bus, where there is one.
    pub publisher: Option<Publisher>,
    /// Where something is minted.
    pub mint: Option<MintPage>,
    /// How the program is attached, as it was last seen.
    pub attachments: watch::Receiver<Vec<Attachment>>,
}

impl Page for AgentPage {
    fn render(&self) -> Result<String, prometheus::Error> {
        let kernel = |error: aya::maps::MapError| prometheus::Error::Msg(error.to_string());
        let (decaps, clamps) = (self.counters.decaps().map_err(kernel)?, self.counters.clamps().map_err(kernel)?);
        let count = |count: &AtomicU64| count.load(Relaxed);
        let connections = self.known.counts();
        let of_pool = |pool: &Name| connections.get(pool).copied().unwrap_or_default();
        let counts = &self.counts;
        let on_bus = self.publisher.as_ref().map(Publisher::numbers);
        let mut families = vec![
            (BUILD_INFO, vec![row(Some(env!("CARGO_PKG_VERSION")), 1)]),
            (CLAMPS, clamps.iter().map(|&(word, count)| row(Some(word), count)).collect()),
            (CONNECTIONS, self.pools.iter().map(|pool| row(Some(pool.as_str()), of_pool(pool))).collect()),
            (DECAPS, decaps.iter().map(|&(word, count)| row(Some(word), count)).collect()),
            (EVENTS, vec![row(Some("created"), count(&counts.created)), row(Some("closed"), count(&counts.closed))]),
            (EVENTS_LOST, vec![row(None, count(&counts.lost))]),
            (RESYNCS, vec![row(None, count(&counts.resyncs))]),
        ];
        let minted =
            self.mint.as_ref().map(|mint| mint.counters.read()).transpose().map_err(kernel)?.unwrap_or_default();
        if let Some(mint) = &self.mint {
            families.extend(mint.rows(
                &minted,
                mint.counts.states().iter().map(|(_, state)| state.as_str()),
                &self.known,
            ));
        }
        families.extend(bus::rows(on_bus.as_ref()));
        let attachments = self.attachments.borrow().clone();
        families.push((XDP_MODE, attachments.iter().map(Attachment::row).collect()));
        let with_rows = families.iter().filter(|(_, rows)| !rows.is_empty());
        let families: Vec<_> = with_rows.map(|(family, rows)| metric_family(family, rows)).collect();
        TextEncoder::new().encode_to_string(&families)
    }
}

impl MintPage {
    fn rows<'r>(
        &self,
        minted: &[(Mint, u64)],
        states: impl Iterator<Item = &'static str>,
        known: &Known,
    ) -> Vec<(Family, Vec<Row<'r>>)> {
        let count = |count: &AtomicU64| count.load(Relaxed);
        let (counts, states) = (&self.counts, states.collect::<Vec<_>>());
        let services =
            |word: &'static str| row(Some(word), states.iter().filter(|&&state| state == word).count() as u64);
        let epochs = EPOCH_WORDS.into_iter().zip(known.epochs(&self.pool));
        vec![
            (KEYS, vec![row(Some("ready"), count(&counts.ready)), row(Some("out"), count(&counts.out))]),
            (KEYS_FOUND, vec![row(None, count(&counts.found))]),
            (KEYS_RECYCLED, vec![row(None, count(&counts.recycled))]),
            (MINTS, minted.iter().map(|&(outcome, count)| row(Some(outcome.as_str()), count)).collect()),
            (SERVICES, State::WORDS.into_iter().map(services).collect()),
            (TOKENS, epochs.map(|(epoch, count)| row(Some(epoch), count)).collect()),
        ]
    }
}

const EPOCH_WORDS: [&str; EPOCHS] = ["0", "1", "2", "3"];

fn row(label: Option<&str>, value: u64) -> Row<'_> {
    Row { labels: label.into_iter().collect(), value }
}
