//! From a configuration to what stands in the tables: ids, rings, port rules. Pure: it asks nobody and writes nowhere.

use crate::{
    config::{
        Affinity, BackendState, Config, Forward, Health, Join, Pool, Prefix, Protocol, QuicServerId, TcpFragments,
        UnknownJoin, Vip, VipAddress, Way,
    },
    numbering::{BackendName, Numbering},
    resolve::NextHop,
};
use lb_common::{
    encap::{Link, Tunnel},
    ids::{BackendId, PoolId, VipId},
    ring::{self, Member},
    tables::{self, QuicKey, Service, Services, Traits, Ways},
    wire::ip::{self, Address},
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

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
    /// How long after a change datagrams of unknown flows go where they went before.
    pub udp_transition: Duration,
    /// How its backends are checked.
    pub health: Option<Health>,
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
    pub forward: Forward,
    /// Its names in the connection ids of QUIC, one for each rotation.
    pub quic_servers: Vec<QuicKey>,
}

/// The balancer's end of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelSource {
    /// The address, or the prefix over which flows are spread.
    pub prefix: Prefix,
    /// The UDP port that GUE tunnels go to.
    pub gue_port: u16,
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
            udp_transition: pool.udp_transition,
            health: pool.health.clone(),
        });
        let pools = pools.collect();
        let (services, addresses, prefixes) = services(config, numbers);
        let vips = config.vips.iter().map(|vip| VipRow {
            id: numbers.vip(vip.address),
            name: vip.name.clone(),
            pool: config.pool_of(vip).name.to_string(),
        });
        Self { vips: vips.collect(), backends, pools, services, addresses, prefixes }
    }
}

fn backends(config: &Config, numbers: &Numbering) -> Vec<BackendRow> {
    let all = config.pools.iter().flat_map(|pool| pool.backends.iter().map(move |backend| (pool, backend)));
    let row = |(pool, backend): (&Pool, &crate::config::Backend)| {
        let name = BackendName::of(pool, backend);
        let pool_id = numbers.pool(pool.name.as_str());
        let names = |id: &QuicServerId| {
            pool.quic_rotations.iter().map(|&rotation| QuicKey::new(pool_id, rotation, id.bytes())).collect()
        };
        BackendRow {
            id: numbers.backend(&name),
            name,
            pool: pool_id,
            quic_servers: backend.quic_server_id.as_ref().map_or_else(Vec::new, names),
            weight: backend.weight,
            state: backend.state,
            forward: pool.forward,
        }
    };
    all.map(row).collect()
}

type ByAddress = Vec<(Address, Services)>;
type ByPrefix = Vec<(Address, u32, Services)>;

/// The rules of each address and prefix lie together, sorted by protocol and port.
fn services(config: &Config, numbers: &Numbering) -> (Vec<Service>, ByAddress, ByPrefix) {
    let mut by_prefix: BTreeMap<Prefix, Vec<Service>> = BTreeMap::new();
    for vip in &config.vips {
        by_prefix.entry(vip.address.prefix).or_default().push(service(config, vip, numbers));
    }
    for (place, endpoint) in endpoints(config, numbers) {
        by_prefix.entry(place.prefix).or_default().push(endpoint);
    }
    let mut services = Vec::new();
    let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
    for (prefix, mut rules) in by_prefix {
        rules.sort_by_key(|rule| (rule.protocol, rule.port_first));
        let run = Services { first: number(services.len()), count: number(rules.len()) };
        let address = prefix.address().into();
        if prefix.is_host() {
            addresses.push((address, run));
        } else {
            prefixes.push((address, prefix.len_v6(), run));
        }
        services.append(&mut rules);
    }
    (services, addresses, prefixes)
}

/// Where clients join single backends. What comes there counts for the pool's TCP VIP with that address, or else the
/// first of its family.
fn endpoints(config: &Config, numbers: &Numbering) -> Vec<(VipAddress, Service)> {
    let mut all = Vec::new();
    for (index, pool) in config.pools.iter().enumerate() {
        let vips = || config.vips.iter().filter(|vip| vip.pool.0 == index && vip.address.protocol == Protocol::Tcp);
        for backend in &pool.backends {
            for place in backend.join_places(vips()) {
                let family = |vip: &&Vip| vip.address.prefix.address().is_ipv4() == place.prefix.address().is_ipv4();
                let there = vips().find(|vip| vip.address.prefix == place.prefix);
                let vip = there.or_else(|| vips().find(family)).or_else(|| vips().next());
                let Some(vip) = vip else { continue };
                let service = Service {
                    port_first: place.ports.first(),
                    port_last: place.ports.last(),
                    endpoint: numbers.backend(&BackendName::of(pool, backend)),
                    ..service(config, vip, numbers)
                };
                all.push((place, service));
            }
        }
    }
    all
}

#[expect(clippy::cast_possible_truncation, reason = "SERVICES_MAX at most")]
const fn number(rules: usize) -> u32 {
    rules as u32
}

fn service(config: &Config, vip: &Vip, numbers: &Numbering) -> Service {
    let pool = config.pool_of(vip);
    Service {
        port_first: vip.address.ports.first(),
        port_last: vip.address.ports.last(),
        protocol: match vip.address.protocol {
            Protocol::Tcp => ip::TCP,
            Protocol::Udp => ip::UDP,
        },
        ways: match vip.address.protocol {
            Protocol::Tcp => ways(pool),
            Protocol::Udp => Ways::OFF,
        },
        unknown_join: match pool.unknown_join {
            UnknownJoin::Drop => tables::UnknownJoin::DROP,
            UnknownJoin::Hash => tables::UnknownJoin::HASH,
            UnknownJoin::Reset => tables::UnknownJoin::RESET,
        },
        traits: traits(pool),
        quic_id_len: match vip.address.protocol {
            Protocol::Tcp => 0,
            Protocol::Udp => {
                pool.backends.iter().find_map(|backend| backend.quic_server_id.as_ref()).map_or(0, QuicServerId::len)
            }
        },
        reserved: 0,
        endpoint: BackendId::NONE,
        pool: numbers.pool(pool.name.as_str()),
        vip: numbers.vip(vip.address),
    }
}

fn traits(pool: &Pool) -> Traits {
    let by_source = match pool.affinity {
        Affinity::Flow => Traits::NONE,
        Affinity::Source => Traits::SOURCE_AFFINITY,
    };
    let fragments = match pool.tcp_fragments {
        TcpFragments::Drop => Traits::NONE,
        TcpFragments::Forward => Traits::TCP_FRAGMENTS,
    };
    by_source.and(fragments)
}

fn ways(pool: &Pool) -> Ways {
    let Join::By(ways) = &pool.join else { return Ways::OFF };
    let mut bits = Ways::OFF;
    for way in ways {
        bits = bits.and(match way {
            Way::Learn if pool.learn_unseen => Ways::LEARN.and(Ways::LEARN_UNSEEN),
            Way::Learn => Ways::LEARN,
            Way::Report => Ways::REPORT,
            Way::Endpoint => Ways::ENDPOINT,
            Way::Token => Ways::TOKEN,
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
    pub fn entry(&self, hop: &NextHop, source: TunnelSource) -> Option<tables::Backend> {
        let link =
            Link { interface: hop.interface, source_mac: hop.source_mac, next_hop_mac: hop.next_hop_mac, mtu: hop.mtu };
        if self.forward == Forward::L2 {
            return Some(tables::Backend::l2(&link).tagged(&hop.tags));
        }
        let tunnel = match (source.prefix.address(), self.name.address) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Tunnel::V4 { source, destination },
            (IpAddr::V6(source), IpAddr::V6(destination)) => Tunnel::V6 { source, destination },
            _ => return None,
        };
        let backend = match self.forward {
            Forward::Gue => tables::Backend::gue(&link, tunnel, source.gue_port),
            Forward::Ipip | Forward::L2 => tables::Backend::ipip(&link, tunnel),
        };
        Some(backend.spread(source.prefix.host_bits().into()).tagged(&hop.tags))
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
    fn prefixes_ranges_and_protocols_become_rules() {
        let text = CONFIG
            .replace("port = 25", "port = \"any\"")
            .replacen("tcp", "udp", 1)
            .replace("name = \"web\"\n", "name = \"web\"\naffinity = \"source\"\nquic_rotation = [2, 0]\n");
        let with_ids = text.replace("10.0.0.1\" }", "10.0.0.1\", quic_server_id = \"0a0b\" }");
        let with_ids = with_ids.replace("weight = 300 }", "weight = 300, quic_server_id = \"0a0c\" }");
        let with_prefix = with_ids.replace("\"192.0.2.1\"", "\"192.0.2.0/24\"");
        let config = Config::parse(&with_prefix, "weir.toml").expect("a good configuration");
        let layout = Layout::of(&config, &Numbering::default().next(&config).expect("few names"));

        let [(prefix, len, run)] = layout.prefixes[..] else { panic!("one prefix: {:?}", layout.prefixes) };
        assert_eq!((prefix, len, run.count), (Address::v4([192, 0, 2, 0]), 96 + 24, 2));
        let rules = &layout.services[run.first as usize..][..2];
        let ports: Vec<_> = rules.iter().map(|rule| (rule.protocol, rule.port_first, rule.port_last)).collect();
        assert_eq!(ports, [(ip::TCP, 0, 65_535), (ip::UDP, 443, 443)]);
        assert_eq!((rules[1].ways, rules[1].quic_id_len, rules[1].traits), (Ways::OFF, 2, Traits::SOURCE_AFFINITY));
        let over_tcp = layout.services.iter().find(|rule| rule.protocol == ip::TCP && rule.pool == rules[1].pool);
        assert_eq!(over_tcp.map(|rule| (rule.ways, rule.quic_id_len)), Some((Ways::LEARN, 0)));
        let names = [2, 0].map(|rotation| QuicKey::new(rules[1].pool, rotation, &[0x0a, 0x0c]));
        assert_eq!(layout.backends[1].quic_servers, names);
    }

    #[test]
    fn a_backend_is_of_its_own_pool() {
        let layout = layout();
        let rows: Vec<_> = layout.backends.iter().map(|row| (row.id.0, row.pool.0, row.weight)).collect();
        assert_eq!(rows, [(1, 0, 100), (2, 0, 300), (3, 1, 100)]);
        assert_eq!(layout.backends[1].member(10).weight, 3000);
    }
}
