//! The farm that both worlds are set up from: backends, rings and VIPs, described once.
//!
//! Its addresses and its way of giving out slots are plain enough for a test to foretell them without Weir's help.

use lb_common::{
    encap::{Link, Tunnel},
    ids::{BackendId, PoolId, VipId},
    tables::{self, RING_SLOTS, Service, Services, Slot, UnknownJoin, Ways},
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
}

/// A backend; all its addresses follow from its id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backend {
    pub(crate) id: BackendId,
    pub(crate) path: Path,
    pub(crate) interface: u32,
    pub(crate) mtu: u16,
}

/// A pool, and who owns which slot of its ring.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) ways: Ways,
    pub(crate) unknown_join: UnknownJoin,
    pub(crate) ring: Vec<Slot>,
}

/// A VIP; its id is its place in the list, counted from 1.
#[derive(Clone, Debug)]
pub(crate) struct Vip {
    pub(crate) address: IpAddr,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) pool: PoolId,
}

/// Everything that a balancer is told.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) backends: Vec<Backend>,
    pub(crate) pools: Vec<Pool>,
    pub(crate) vips: Vec<Vip>,
}

impl Setup {
    /// Three backends, one for each kind of path, behind a pool that learns, with a VIP of either family.
    pub(crate) fn farm() -> Self {
        Self::farm_with(Ways::LEARN, UnknownJoin::DROP)
    }

    /// The same with other ways to keep subflows together.
    pub(crate) fn farm_with(ways: Ways, unknown_join: UnknownJoin) -> Self {
        let backend = |id, path, interface| Backend { id, path, interface, mtu: MTU };
        let vip = |family| Vip { address: vip_address(family), ports: PORTS, pool: WEB };
        Self {
            backends: vec![
                backend(B1, Path::InIpv4, LOOPBACK),
                backend(B2, Path::InIpv6, ELSEWHERE),
                backend(B3, Path::L2, LOOPBACK),
            ],
            pools: vec![Pool { ways, unknown_join, ring: ring_of(&[B1, B2, B3]) }],
            vips: vec![vip(Family::V4), vip(Family::V6)],
        }
    }

    /// The port rules of all addresses, and where each address has its own.
    pub(crate) fn rules(&self) -> (Vec<Service>, Vec<(Address, Services)>) {
        let mut by_address: BTreeMap<IpAddr, Vec<Service>> = BTreeMap::new();
        for (vip, id) in self.vips.iter().zip(1..) {
            by_address.entry(vip.address).or_default().push(self.service(vip, VipId(id)));
        }
        let number = |n: usize| u32::try_from(n).expect("few rules");
        let mut services = Vec::new();
        let mut addresses = Vec::new();
        for (address, mut rules) in by_address {
            rules.sort_by_key(|rule| rule.port_first);
            addresses.push((address.into(), Services { first: number(services.len()), count: number(rules.len()) }));
            services.append(&mut rules);
        }
        (services, addresses)
    }

    fn service(&self, vip: &Vip, id: VipId) -> Service {
        let pool = &self.pools[usize::from(vip.pool.0)];
        Service {
            port_first: *vip.ports.start(),
            port_last: *vip.ports.end(),
            protocol: ip::TCP,
            ways: pool.ways,
            unknown_join: pool.unknown_join,
            pool: vip.pool,
            vip: id,
            ..Service::NONE
        }
    }
}

impl Backend {
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
        match self.path {
            Path::L2 => tables::Backend::l2(&link),
            Path::InIpv4 => tables::Backend::ipip(&link, Tunnel::V4 { source: BALANCER_V4, destination: self.ipv4() }),
            Path::InIpv6 => tables::Backend::ipip(&link, Tunnel::V6 { source: BALANCER_V6, destination: self.ipv6() }),
        }
    }
}

/// The balancer's own addresses: where tunnels come from.
pub(crate) const BALANCER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 100);
pub(crate) const BALANCER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);

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
