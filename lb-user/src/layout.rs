//! From a configuration to what stands in the tables: ids, rings, port rules. Pure: it asks nobody and writes nowhere.

use crate::{
    config::{BackendState, Config, Join, Pool, Protocol, UnknownJoin, Vip, Way},
    numbering::{BackendName, Numbering},
    resolve::NextHop,
};
use lb_common::{
    encap::{Link, Tunnel},
    ids::{BackendId, PoolId, VipId},
    ring::{self, Member},
    tables::{self, Service, Services, Traits, Ways},
    wire::ip::{self, Address},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Everything that the data path has to know of a configuration, but for the ways to its backends.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The VIPs, in the order of the configuration.
    pub vips: Vec<VipRow>,
    /// The backends of all pools, likewise.
    pub backends: Vec<BackendRow>,
    /// The pools, likewise.
    pub pools: Vec<PoolRow>,
    /// The port rules of all addresses.
    pub services: Vec<Service>,
    /// Where each address has its rules.
    pub addresses: Vec<(Address, Services)>,
    /// Where each prefix has its rules, and its length in bits of an IPv6 address.
    pub prefixes: Vec<(Address, u32, Services)>,
}

/// A VIP and its counters' row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VipRow {
    /// The row.
    pub id: VipId,
    /// The VIP's name.
    pub name: String,
    /// The name of the pool that serves it.
    pub pool: String,
}

/// A pool and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRow {
    /// The id.
    pub id: PoolId,
    /// Its name.
    pub name: String,
    /// How long a drained backend keeps its connections.
    pub drain_timeout: Duration,
    /// How long a backend that comes takes to get its whole share.
    pub slow_start: Duration,
}

/// A backend and its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRow {
    /// The id.
    pub id: BackendId,
    /// Its name, pool and address.
    pub name: BackendName,
    /// Its pool's id.
    pub pool: PoolId,
    /// Its share of the ring.
    pub weight: u16,
    /// What it does in its pool.
    pub state: BackendState,
    /// How packets reach it.
    pub forward: crate::config::Forward,
}

impl Layout {
    /// What stands in the tables for a configuration.
    pub fn of(config: &Config, numbers: &Numbering) -> Self {
        let backends = backends(config, numbers);
        let pools = config.pools.iter().map(|pool| PoolRow {
            id: numbers.pool(pool.name.as_str()),
            name: pool.name.to_string(),
            drain_timeout: pool.drain_timeout,
            slow_start: pool.slow_start,
        });
        let pools = pools.collect();
        let (services, addresses) = services(config, numbers);
        let vips = config.vips.iter().map(|vip| VipRow {
            id: vip_id(vip, numbers),
            name: vip.name.clone(),
            pool: config.pool_of(vip).name.to_string(),
        });
        Self { vips: vips.collect(), backends, pools, services, addresses, prefixes: Vec::new() }
    }
}

fn vip_id(vip: &Vip, numbers: &Numbering) -> VipId {
    numbers.vip(SocketAddr::new(vip.address, vip.port), &vip.protocol.to_string())
}

fn backends(config: &Config, numbers: &Numbering) -> Vec<BackendRow> {
    let all = config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let row = |(pool, backend): (&Pool, &crate::config::Backend)| {
        let name =
            BackendName { pool: pool.name.to_string(), name: backend.name.to_string(), address: backend.address };
        BackendRow {
            id: numbers.backend(&name),
            name,
            pool: numbers.pool(pool.name.as_str()),
            weight: backend.weight,
            state: backend.state,
            forward: pool.forward,
        }
    };
    all.map(row).collect()
}

/// The rules of each address lie together, sorted by protocol and port.
fn services(config: &Config, numbers: &Numbering) -> (Vec<Service>, Vec<(Address, Services)>) {
    let mut by_address: BTreeMap<IpAddr, Vec<Service>> = BTreeMap::new();
    for vip in &config.vips {
        by_address.entry(vip.address).or_default().push(service(config, vip, numbers));
    }
    let mut services = Vec::new();
    let mut addresses = Vec::new();
    for (address, mut rules) in by_address {
        rules.sort_by_key(|rule| (rule.protocol, rule.port_first));
        let run = Services { first: number(services.len()), count: number(rules.len()) };
        addresses.push((address.into(), run));
        services.append(&mut rules);
    }
    (services, addresses)
}

#[expect(clippy::cast_possible_truncation, reason = "at most one for each VIP")]
const fn number(rules: usize) -> u32 {
    rules as u32
}

fn service(config: &Config, vip: &Vip, numbers: &Numbering) -> Service {
    let pool = config.pool_of(vip);
    Service {
        port_first: vip.port,
        port_last: vip.port,
        protocol: match vip.protocol {
            Protocol::Tcp => ip::TCP,
        },
        ways: ways(pool),
        unknown_join: match pool.unknown_join {
            UnknownJoin::Drop => tables::UnknownJoin::DROP,
            UnknownJoin::Hash => tables::UnknownJoin::HASH,
            UnknownJoin::Reset => tables::UnknownJoin::RESET,
        },
        traits: Traits::NONE,
        quic_id_len: 0,
        reserved: [0; 3],
        pool: numbers.pool(pool.name.as_str()),
        vip: vip_id(vip, numbers),
    }
}

fn ways(pool: &Pool) -> Ways {
    let Join::By(ways) = &pool.join else { return Ways::OFF };
    let mut bits = Ways::OFF;
    for way in ways {
        bits = bits.and(match way {
            Way::Learn if pool.learn_unseen => Ways::LEARN.and(Ways::LEARN_UNSEEN),
            Way::Learn => Ways::LEARN,
        });
    }
    bits
}

impl BackendRow {
    /// Its part in its pool's ring, with a weight of `part` times its own.
    pub fn member(&self, part: u32) -> Member {
        Member { id: self.id.0, identity: ring::identity(&self.name.name), weight: u32::from(self.weight) * part }
    }

    /// The data path's entry for this backend by a next hop, tunnelled from `source`. Nothing where the tunnel's two ends
    /// would be of different families, which resolution never yields.
    pub fn entry(&self, hop: &NextHop, source: IpAddr) -> Option<tables::Backend> {
        let link =
            Link { interface: hop.interface, source_mac: hop.source_mac, next_hop_mac: hop.next_hop_mac, mtu: hop.mtu };
        if self.forward == crate::config::Forward::L2 {
            return Some(tables::Backend::l2(&link));
        }
        let tunnel = match (source, self.name.address) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Tunnel::V4 { source, destination },
            (IpAddr::V6(source), IpAddr::V6(destination)) => Tunnel::V6 { source, destination },
            _ => return None,
        };
        Some(tables::Backend::ipip(&link, tunnel))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"
        [balancer]
        interface = "eth0"
        [[pool]]
        name = "web"
        backend = [{ name = "b1", address = "10.0.0.1" }, { name = "b2", address = "10.0.0.2", weight = 300 }]
        [[pool]]
        name = "mail"
        join = "off"
        forward = "l2"
        backend = [{ name = "b1", address = "10.0.0.3" }]
        [[vip]]
        address = "192.0.2.1"
        protocol = "tcp"
        port = 443
        pool = "web"
        [[vip]]
        address = "192.0.2.1"
        protocol = "tcp"
        port = 25
        pool = "mail"
        [[vip]]
        address = "2001:db8::1"
        protocol = "tcp"
        port = 443
        pool = "web"
    "#;

    fn layout() -> Layout {
        let config = Config::parse(CONFIG, "weir.toml").expect("a good configuration");
        Layout::of(&config, &Numbering::default().next(&config).expect("few names"))
    }

    #[test]
    fn rules_of_an_address_lie_together_and_are_sorted() {
        let layout = layout();
        let (_, v4) = layout.addresses[0];
        let rules = &layout.services[v4.first as usize..][..v4.count as usize];
        let summary: Vec<_> = rules.iter().map(|rule| (rule.port_first, rule.pool.0, rule.vip.0, rule.ways)).collect();
        assert_eq!(summary, [(25, 1, 2, Ways::OFF), (443, 0, 1, Ways::LEARN)]);
        let (_, v6) = layout.addresses[1];
        assert_eq!((layout.services[v6.first as usize].pool.0, v6.count), (0, 1));
    }

    #[test]
    fn a_backend_is_of_its_own_pool() {
        let layout = layout();
        let rows: Vec<_> = layout.backends.iter().map(|row| (row.id.0, row.pool.0, row.weight)).collect();
        assert_eq!(rows, [(1, 0, 100), (2, 0, 300), (3, 1, 100)]);
        assert_eq!(layout.backends[1].member(10).weight, 3000);
    }
}
