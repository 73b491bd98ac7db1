//! The lab's address plan. Every lab has the same one, as the addresses exist only inside its
//! namespaces; nothing here may ever be put on an interface of the host.
//!
//! The third octet (or second IPv6 group) is the network: 1 and 2 the client's paths, 9 the
//! balancer's, 10 + n that of backend n, 99 + n that of a further balancer n, 200 the management's.
//! The router is host 254 in each.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// The most backends that a lab can have: one namespace and two interfaces each.
pub const BACKENDS_MAX: u8 = 64;

/// The port of the service behind the VIPs.
pub const SERVICE_PORT: u16 = 8000;

/// The largest packet on the client's paths, in bytes.
pub const CLIENT_MTU: u16 = 1500;

/// The largest packet between router, balancer and backends, in bytes: a client's packet and any
/// tunnel around it.
pub const CORE_MTU: u16 = 1700;

/// The two addresses of the service.
pub const VIP: DualAddress =
    DualAddress { v4: Ipv4Addr::new(192, 0, 2, 10), v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10) };

/// The most balancers that a fleet can have, dead ones included.
pub const BALANCERS_MAX: u8 = 16;

/// Where the bus of a fleet is.
pub const MANAGEMENT: DualAddress = DualAddress::host(200, 2);

/// The balancer's addresses, which are the outer source of its tunnels.
pub const BALANCER: DualAddress = DualAddress::host(9, 2);

/// An address in each family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DualAddress {
    /// In a /24.
    pub v4: Ipv4Addr,
    /// In a /64.
    pub v6: Ipv6Addr,
}

impl DualAddress {
    const fn host(network: u8, host: u8) -> Self {
        Self {
            v4: Ipv4Addr::new(10, 71, network, host),
            v6: Ipv6Addr::new(0xfd71, network as u16, 0, 0, 0, 0, 0, host as u16),
        }
    }

    /// The router's address in the same network.
    #[must_use]
    pub const fn router(self) -> Self {
        Self::host(self.v4.octets()[2], 254)
    }

    /// Both, IPv4 first.
    pub const fn both(self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }

    /// Whether `address` is one of the two.
    pub fn holds(self, address: IpAddr) -> bool {
        self.both().contains(&address)
    }

    /// The service's port on the address of `other`'s family.
    pub fn service(self, family: Family) -> SocketAddr {
        match family {
            Family::V4 => (self.v4, SERVICE_PORT).into(),
            Family::V6 => (self.v6, SERVICE_PORT).into(),
        }
    }
}

/// The port of its own at which clients join a backend over IPv4.
pub const fn join_port(backend: u8) -> u16 {
    4500 + backend as u16
}

/// The address of its own at which they do over IPv6. It is routed to the balancer, as the VIPs are.
pub const fn join_address(backend: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, backend as u16)
}

/// The family of a connection's first subflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// One of the client's two ways to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Where the default route points: first subflows leave here.
    One,
    /// The second interface, an MPTCP `subflow` endpoint: joins leave here.
    Two,
}

impl Path {
    /// Both paths.
    pub const ALL: [Self; 2] = [Self::One, Self::Two];

    /// The client's addresses on this path.
    pub const fn client(self) -> DualAddress {
        match self {
            Self::One => DualAddress::host(1, 1),
            Self::Two => DualAddress::host(2, 1),
        }
    }

    /// The path that a client's address belongs to.
    pub fn of(address: IpAddr) -> Option<Self> {
        Self::ALL.into_iter().find(|path| path.client().holds(address))
    }
}

/// The addresses of a balancer of a fleet, counted from 1: the first is the [`BALANCER`] of every lab.
pub const fn balancer(number: u8) -> DualAddress {
    match number {
        1 => BALANCER,
        _ => DualAddress::host(99 + number, 2),
    }
}

/// Where the addresses for joins are ([`join_address`]).
pub const JOIN_PREFIX: &str = "2001:db8::1:0/112";

/// The tunnel addresses of a backend, counted from 1.
pub const fn backend(number: u8) -> DualAddress {
    DualAddress::host(10 + number, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_has_room_for_every_backend() {
        let last = backend(BACKENDS_MAX);
        assert_eq!(last.v4, Ipv4Addr::new(10, 71, 74, 2));
        assert_eq!(last.router().v4, Ipv4Addr::new(10, 71, 74, 254));
        assert_eq!(last.router().v6.to_string(), "fd71:4a::fe");
        assert!(last.v4 < balancer(2).v4 && balancer(BALANCERS_MAX).v4 < MANAGEMENT.v4);
    }

    #[test]
    fn a_client_address_names_its_path() {
        assert_eq!(Path::of(Path::Two.client().v6.into()), Some(Path::Two));
        assert_eq!(Path::of(BALANCER.v4.into()), None);
    }
}
