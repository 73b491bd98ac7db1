//! The farm that both worlds are set up from: backends, rings and VIPs, described once.
//!
//! Its addresses and its way of giving out slots are plain enough for a test to foretell them without Weir's help.

use lb_common::{
    encap::{GUE_PORT, Link, Tag, Tunnel},
    ids::{BackendId, PoolId, VipId},
    limits,
    stateless::{Bearer, Codec, TokenId},
    tables::{self, QuicKey, RING_SLOTS, Service, Services, Slot, Traits, UnknownJoin, Ways},
    wire::ip::{self, Address, Family},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// The interface that a test run's packets come in by: what goes to a backend there is transmitted, not redirected.
pub(crate) const LOOPBACK: u32 = 1;
/// Another interface. Nothing is sent: a test run ends with the program's verdict.
pub(crate) const ELSEWHERE: u32 = 7;

pub(crate) const CLUSTER_KEY: [u8; 16] = *b"a cluster's key!";
/// The key that takes its place, where it is changed.
pub(crate) const SECOND_KEY: [u8; 16] = *b"the second key..";
/// Below it every packet of the tests fits, the longest of several pages included.
pub(crate) const MTU: u16 = 12_000;

pub(crate) const B1: BackendId = BackendId(1);
pub(crate) const B2: BackendId = BackendId(2);
pub(crate) const B3: BackendId = BackendId(3);
pub(crate) const WEB: PoolId = PoolId(0);
/// Ports of the web VIPs.
pub(crate) const PORTS: RangeInclusive<u16> = 8000..=8001;

/// How a backend is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    L2,
    InIpv4,
    InIpv6,
    InGue4,
    InGue6,
}

impl Path {
    /// Bytes that it puts between the link's header and the packet.
    pub(crate) const fn tunnel_len(self) -> usize {
        match self {
            Self::L2 => 0,
            Self::InIpv4 => 20,
            Self::InIpv6 => 40,
            Self::InGue4 => 20 + 8 + 4,
            Self::InGue6 => 40 + 8 + 4,
        }
    }
}

/// A backend; all its addresses follow from its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) id: BackendId,
    pub(crate) path: Path,
    pub(crate) interface: u32,
    pub(crate) mtu: u16,
    /// The types of the VLAN tags that its frames carry.
    pub(crate) tags: &'static [u16],
    /// Bits of the tunnel's source address that flows are spread over.
    pub(crate) spread: u32,
}

/// A pool, and who owns which slot of its ring.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) ways: Ways,
    pub(crate) unknown_join: UnknownJoin,
    pub(crate) traits: Traits,
    pub(crate) quic_id_len: u8,
    pub(crate) ring: Vec<Slot>,
}

impl Pool {
    pub(crate) fn new(ways: Ways, unknown_join: UnknownJoin, ring: Vec<Slot>) -> Self {
        Self { ways, unknown_join, traits: Traits::NONE, quic_id_len: 0, ring }
    }
}

/// A VIP; its id is its place in the list, counted from 1.
#[derive(Clone, Debug)]
pub(crate) struct Vip {
    pub(crate) address: IpAddr,
    /// Bits of the address that count, if it is a prefix.
    pub(crate) prefix: Option<u32>,
    pub(crate) protocol: u8,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) pool: PoolId,
    /// The backend whose join endpoint this is.
    pub(crate) endpoint: BackendId,
}

/// Everything that a balancer is told.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) backends: Vec<Backend>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) vips: Vec<Vip>,
    pub(crate) quic_servers: Vec<(QuicKey, BackendId)>,
    pub(crate) codecs: Vec<(PoolId, Codec)>,
    pub(crate) bearers: Vec<(PoolId, TokenId, Bearer)>,
    pub(crate) limits: Limits,
}

/// What the operator may bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Entries of each kind that flows may have, and tokens.
    pub(crate) entries: u32,
    pub(crate) entries_per_network: u32,
    /// Unbounded by default: tests of other things join one connection again and again.
    pub(crate) joins_per_token: u32,
    pub(crate) icmp_errors_per_cpu: u32,
}

impl Limits {
    pub(crate) const DEFAULT: Self = Self {
        entries: limits::JOINED_FLOWS.min,
        entries_per_network: limits::ENTRIES_PER_NETWORK.default,
        joins_per_token: u32::MAX,
        icmp_errors_per_cpu: limits::ICMP_ERRORS_PER_CPU.default,
    };
}

/// The port rules of all addresses, and where each address and each prefix (in bits of an IPv6 address) has its own.
pub(crate) struct Rules {
    pub(crate) services: Vec<Service>,
    pub(crate) addresses: Vec<(Address, Services)>,
    pub(crate) prefixes: Vec<(Address, u32, Services)>,
}

impl Setup {
    /// Three backends, one for each kind of path, behind a pool that learns, with a VIP of either family.
    pub(crate) fn farm() -> Self {
        Self::farm_with(Ways::LEARN, UnknownJoin::DROP)
    }

    /// The same with other ways to keep subflows together.
    pub(crate) fn farm_with(ways: Ways, unknown_join: UnknownJoin) -> Self {
        let vip = |family| Vip::exact(vip_address(family), ip::TCP, PORTS, WEB);
        Self {
            backends: vec![
                Backend::new(B1, Path::InIpv4, LOOPBACK),
                Backend::new(B2, Path::InIpv6, ELSEWHERE),
                Backend::new(B3, Path::L2, LOOPBACK),
            ],
            pools: vec![Pool::new(ways, unknown_join, ring_of(&[B1, B2, B3]))],
            vips: vec![vip(Family::V4), vip(Family::V6)],
            quic_servers: Vec::new(),
            codecs: Vec::new(),
            bearers: Vec::new(),
            limits: Limits::DEFAULT,
        }
    }

    /// The port rules that the balancer is told.
    pub(crate) fn rules(&self) -> Rules {
        let mut by_address: BTreeMap<(IpAddr, Option<u32>), Vec<Service>> = BTreeMap::new();
        for (vip, id) in self.vips.iter().zip(1..) {
            by_address.entry((vip.address, vip.prefix)).or_default().push(self.service(vip, VipId(id)));
        }
        let number = |n: usize| u32::try_from(n).expect("few rules");
        let mut rules = Rules { services: Vec::new(), addresses: Vec::new(), prefixes: Vec::new() };
        for ((address, prefix), mut services) in by_address {
            services.sort_by_key(|rule| (rule.protocol, rule.port_first));
            let run = Services { first: number(rules.services.len()), count: number(services.len()) };
            let mapped = if address.is_ipv4() { 96 } else { 0 };
            match prefix {
                None => rules.addresses.push((address.into(), run)),
                Some(len) => rules.prefixes.push((Address::from(address).masked(mapped + len), mapped + len, run)),
            }
            rules.services.append(&mut services);
        }
        rules
    }

    fn service(&self, vip: &Vip, id: VipId) -> Service {
        let pool = &self.pools[usize::from(vip.pool.0)];
        Service {
            port_first: *vip.ports.start(),
            port_last: *vip.ports.end(),
            protocol: vip.protocol,
            ways: pool.ways,
            unknown_join: pool.unknown_join,
            traits: pool.traits,
            quic_id_len: if vip.protocol == ip::UDP { pool.quic_id_len } else { 0 },
            pool: vip.pool,
            vip: id,
            endpoint: vip.endpoint,
            ..Service::NONE
        }
    }
}

impl Vip {
    pub(crate) const fn exact(address: IpAddr, protocol: u8, ports: RangeInclusive<u16>, pool: PoolId) -> Self {
        Self { address, prefix: None, protocol, ports, pool, endpoint: BackendId::NONE }
    }

    /// A backend's own TCP port for joins.
    pub(crate) const fn endpoint(address: IpAddr, port: u16, pool: PoolId, endpoint: BackendId) -> Self {
        Self { endpoint, ..Self::exact(address, ip::TCP, port..=port, pool) }
    }
}

impl Backend {
    pub(crate) const fn new(id: BackendId, path: Path, interface: u32) -> Self {
        Self { id, path, interface, mtu: MTU, tags: &[], spread: 0 }
    }

    pub(crate) const fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 1, self.id.0.to_le_bytes()[0]]
    }

    pub(crate) const fn source_mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 2, self.interface.to_le_bytes()[0]]
    }

    pub(crate) const fn ipv4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, self.id.0.to_le_bytes()[0])
    }

    pub(crate) const fn ipv6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.id.0)
    }

    /// What the data path's table holds for it.
    pub(crate) fn entry(&self) -> tables::Backend {
        let link =
            Link { interface: self.interface, source_mac: self.source_mac(), next_hop_mac: self.mac(), mtu: self.mtu };
        let v4 = Tunnel::V4 { source: BALANCER_V4, destination: self.ipv4() };
        let v6 = Tunnel::V6 { source: BALANCER_V6, destination: self.ipv6() };
        let entry = match self.path {
            Path::L2 => tables::Backend::l2(&link),
            Path::InIpv4 => tables::Backend::ipip(&link, v4),
            Path::InIpv6 => tables::Backend::ipip(&link, v6),
            Path::InGue4 => tables::Backend::gue(&link, v4, GUE_PORT),
            Path::InGue6 => tables::Backend::gue(&link, v6, GUE_PORT),
        };
        let tags: Vec<Tag> = self.tags.iter().map(|&ethertype| Tag { ethertype, control: VLAN }).collect();
        let entry = if tags.is_empty() { entry } else { entry.tagged(&tags) };
        if self.spread == 0 { entry } else { entry.spread(self.spread) }
    }
}

/// The VLAN that tags name.
pub(crate) const VLAN: u16 = 42;

/// The balancer's own addresses: where tunnels come from. Their last bits are for flows to be spread over.
pub(crate) const BALANCER_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);
pub(crate) const BALANCER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0);

pub(crate) const fn vip_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
    }
}

/// A ring whose slots go to the backends in turn.
pub(crate) fn ring_of(backends: &[BackendId]) -> Vec<Slot> {
    let owners = backends.iter().cycle().take(RING_SLOTS as usize);
    owners.map(|&owner| Slot::settled(owner)).collect()
}
