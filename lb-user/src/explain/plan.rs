//! What private tables are filled with before the first frame, and the names by which people know it: of a configuration, or
//! of the running balancer. Nothing here reads or writes a table.

use crate::{
    bpf::Sizes,
    config::{self, BackendState, Config, Pool},
    layout::{BackendRow, Layout, TunnelSource},
    numbering::{BackendName, Exhausted, Numbering},
    resolve::NextHop,
};
use lb_common::{
    hash::SipKey,
    ids::{BackendId, PoolId, VipId},
    ring,
    stateless::{Bearer, Codec, TokenId},
    tables::{Backend, Globals, QuicKey, Service, Services, Slot},
    wire::ip::Address,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The interface that frames come by in a test run. What goes to a backend behind it is transmitted, not redirected.
pub const ARRIVAL: u32 = 1;
/// Entries that each table of live connections has room for. The balancer's own are larger: what is explained is a capture.
const ENTRIES: u32 = 1 << 16;

/// Stands for the balancer's tunnel source where none is configured: IANA's dummy address (RFC 7600), and one of the
/// discard-only prefix (RFC 6666).
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);
/// Stands for the path of which nothing is known: Ethernet's.
const MTU: u16 = 1500;
/// Stands for the cluster key where none is configured.
const NO_KEY: [u8; 16] = [0; 16];

/// What the tables hold before the first frame.
pub struct Plan {
    /// How large they are.
    pub sizes: Sizes,
    /// What holds for the whole balancer.
    pub globals: Globals,
    /// The port rules, and the addresses and prefixes that they are of.
    pub services: Vec<Service>,
    /// As above.
    pub addresses: Vec<(Address, Services)>,
    /// As above.
    pub prefixes: Vec<(Address, u32, Services)>,
    /// The pools' rings.
    pub rings: Vec<(PoolId, Vec<Slot>)>,
    /// The backends.
    pub backends: Vec<(BackendId, Backend)>,
    /// The servers that QUIC connection ids name.
    pub quic_servers: Vec<(QuicKey, BackendId)>,
    /// What reads the tokens of each pool that names its backends by them.
    pub codecs: Vec<(PoolId, Codec)>,
    /// Who has the ids in them.
    pub bearers: Vec<(PoolId, BTreeMap<TokenId, Bearer>)>,
    /// What people call them.
    pub names: Names,
    /// What is not as it is on the wire, in sentences.
    pub notes: Vec<String>,
}

/// What people call things.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// VIPs, and their pools.
    pub vips: BTreeMap<VipId, (String, String)>,
    /// Backends, and their addresses.
    pub backends: BTreeMap<BackendId, (String, IpAddr)>,
}

impl Names {
    /// The names in a layout.
    pub fn of(layout: &Layout) -> Self {
        let vips = layout.vips.iter().map(|row| (row.id, (row.name.clone(), row.pool.clone())));
        let backends = layout.backends.iter().map(|row| (row.id, (row.name.name.clone(), row.name.address)));
        Self { vips: vips.collect(), backends: backends.collect() }
    }

    /// A backend's name.
    pub fn backend(&self, id: BackendId) -> String {
        self.backends.get(&id).map_or_else(|| format!("backend number {}", id.0), |(name, _)| name.clone())
    }
}

/// Tables of live connections that are large enough for any capture, and whatever else the operator sized as it is.
pub fn sizes(configured: Sizes, pools: impl Iterator<Item = PoolId>) -> Sizes {
    Sizes {
        pools: pools.map(|pool| u32::from(pool.0) + 1).max().unwrap_or(1),
        tokens: configured.tokens.min(ENTRIES),
        joined_flows: configured.joined_flows.min(ENTRIES),
        moved_flows: configured.moved_flows.min(ENTRIES),
        pinned_flows: configured.pinned_flows.min(ENTRIES),
        ..configured
    }
}

impl Plan {
    /// The tables of a balancer that has just started with a configuration and sees every backend that is not down.
    ///
    /// # Errors
    /// The configuration has more of something than there are numbers.
    pub fn of_config(config: &Config) -> Result<Self, Exhausted> {
        let numbers = Numbering::default().next(config)?;
        let layout = Layout::of(config, &numbers);
        let sizes = sizes(crate::service::sizes(config), layout.pools.iter().map(|pool| pool.id));
        let key = config.balancer.cluster_key.as_ref().map_or(NO_KEY, |key| *key.bytes());
        let rings = layout.pools.iter().map(|pool| (pool.id, ring_of(&layout, pool.id)));
        let backends = layout.backends.iter().map(|row| (row.id, entry(row, config)));
        let servers = layout.backends.iter().filter(|row| row.state != BackendState::Down);
        let quic_servers = servers.flat_map(|row| row.quic_servers.iter().map(|&key| (key, row.id)));
        Ok(Self {
            sizes,
            globals: sizes.globals(SipKey::from_bytes(key)),
            rings: rings.collect(),
            backends: backends.collect(),
            quic_servers: quic_servers.collect(),
            codecs: codecs(config, &numbers).collect(),
            bearers: config.pools.iter().map(|pool| bearers(pool, &numbers)).collect(),
            names: Names::of(&layout),
            notes: notes(config),
            services: layout.services,
            addresses: layout.addresses,
            prefixes: layout.prefixes,
        })
    }
}

fn codecs(config: &Config, numbers: &Numbering) -> impl Iterator<Item = (PoolId, Codec)> {
    let pools = config.pools.iter();
    pools.filter_map(|pool| Some((numbers.pool(pool.name.as_str()), pool.token.as_ref()?.codec())))
}

fn bearers(pool: &Pool, numbers: &Numbering) -> (PoolId, BTreeMap<TokenId, Bearer>) {
    let bearer = |backend: &config::Backend| {
        Some((backend.token_id?, Bearer::of(numbers.backend(&BackendName::of(pool, backend)))))
    };
    (numbers.pool(pool.name.as_str()), pool.backends.iter().filter_map(bearer).collect())
}

fn ring_of(layout: &Layout, pool: PoolId) -> Vec<Slot> {
    let rows = layout.backends.iter().filter(|row| row.pool == pool);
    let members: Vec<_> = rows.map(|row| row.member(u32::from(row.state == BackendState::Up))).collect();
    ring::build(&members).into_iter().map(|owner| Slot::settled(BackendId(owner))).collect()
}

/// A backend as it would be reached if its number were its MAC address, right behind the interface that frames come by.
fn entry(row: &BackendRow, config: &Config) -> Backend {
    if row.state == BackendState::Down {
        return Backend::GONE;
    }
    let [high, low] = row.id.0.to_be_bytes();
    let source = match row.name.address {
        IpAddr::V4(_) => config.balancer.source_v4.unwrap_or_else(|| IpAddr::V4(SOURCE_V4).into()),
        IpAddr::V6(_) => config.balancer.source_v6.unwrap_or_else(|| IpAddr::V6(SOURCE_V6).into()),
    };
    let hop = NextHop {
        interface: ARRIVAL,
        interface_name: config.balancer.interfaces[0].to_string(),
        source_mac: [2, 0, 0, 0, 0, 0],
        next_hop_mac: [2, 0, 0, 0, high, low],
        mtu: MTU,
        source: source.address(),
        tags: Vec::new(),
    };
    row.entry(&hop, TunnelSource { prefix: source, gue_port: config.balancer.gue_port }).unwrap_or(Backend::GONE)
}

fn notes(config: &Config) -> Vec<String> {
    let mut notes = vec![
        "the ways to the backends are not looked up: next hop 02:00:00:00:HH:LL stands for the backend number HHLL in the \
         file's order, behind the interface that the frames come by, with an MTU of 1500"
            .to_owned(),
    ];
    if config.balancer.source_v4.is_none() || config.balancer.source_v6.is_none() {
        notes.push(format!("where no source of tunnels is configured, {SOURCE_V4} or {SOURCE_V6} stands for it"));
    }
    if config.balancer.cluster_key.is_none() {
        notes.push(
            "no cluster_key_file: a key of zeros stands for it, so that a flow's slot is not the one that it has on the \
             balancer"
                .to_owned(),
        );
    }
    notes
}
