//! Where packets for a backend leave this machine: interface, MAC addresses, source address and MTU, from the kernel's
//! own routes and neighbours, by netlink.
//!
//! The kernel decides, this only asks: it installs no route and no address. It does ask the kernel to resolve the
//! neighbours that Weir sends to and keeps those entries fresh, because packets from XDP do not.

mod error;
mod link;
mod neighbour;
mod route;
mod watch;

pub use error::ResolveError;
pub use link::{Interface, Xdp};
pub use watch::Changes;

use lb_common::encap::Tag;
use neighbour::State;
use rtnetlink::Handle;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;
use watch::{Follower, Neighbours};

/// How long a neighbour may take to answer. The kernel gives up after three requests, a second apart.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The way to a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface that the packets leave by: below all VLANs, and above the parts of a bond, which chooses
    /// among them itself.
    pub interface: u32,
    /// Its name, or that of the VLAN that the route names.
    pub interface_name: String,
    /// The VLAN tags that they carry there, outermost first.
    pub tags: Vec<Tag>,
    /// The address of this machine that the route prefers as source.
    pub source: IpAddr,
    /// The interface's own Ethernet address.
    pub source_mac: Mac,
    /// The Ethernet address of the backend, or of the gateway to it.
    pub next_hop_mac: Mac,
    /// Bytes of the largest IP packet on the way, as far as this machine knows.
    pub mtu: u16,
}

/// A backend to find the way to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The backend's name, for messages.
    pub backend: String,
    /// The backend's address.
    pub address: IpAddr,
    /// How far away it may be.
    pub reach: Reach,
}

/// How far away a backend may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere: packets for it are tunnelled.
    Routed,
    /// On a link of this machine: packets for it carry the client's addresses, which no gateway would bring there.
    OnLink,
}

/// A question of one neighbour: who has this address on this interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Neighbour {
    interface: u32,
    address: IpAddr,
}

/// Asks the kernel, and keeps what it was asked for fresh as long as it lives.
#[derive(Debug)]
pub struct Resolver {
    netlink: Handle,
    neighbours: Arc<Neighbours>,
    /// Ends the tasks with the resolver.
    _tasks: JoinSet<()>,
}

impl Resolver {
    /// Opens a netlink socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel gives no netlink socket.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn connect() -> Result<Self, ResolveError> {
        let (connection, netlink, events) =
            rtnetlink::new_multicast_connection(&watch::GROUPS).map_err(ResolveError::Connect)?;
        let (follower, neighbours) = Follower::new(netlink.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        tasks.spawn(follower.run(events));
        Ok(Self { netlink, neighbours, _tasks: tasks })
    }

    /// An Ethernet interface by name.
    ///
    /// # Errors
    /// There is none of that name, or it is not an Ethernet interface.
    pub async fn interface(&self, name: &str) -> Result<Interface, ResolveError> {
        link::by_name(&self.netlink, name).await
    }

    /// The kernel's number for the XDP program on an interface, if there is one.
    ///
    /// # Errors
    /// There is no such interface, or the kernel does not tell.
    pub async fn xdp_program(&self, name: &str) -> Result<Option<Xdp>, ResolveError> {
        link::xdp_program(&self.netlink, name).await
    }

    /// The way to a backend. A neighbour that the kernel does not know yet is asked and waited for.
    ///
    /// # Errors
    /// There is no way, it is not one that packets can be sent by, or the neighbour does not answer.
    pub async fn next_hop(&self, target: &Target) -> Result<NextHop, ResolveError> {
        let route = route::to(&self.netlink, target).await?;
        let interface = link::by_index(&self.netlink, route.interface).await?;
        let neighbour = Neighbour { interface: route.interface, address: route.gateway.unwrap_or(target.address) };
        if target.reach == Reach::OnLink && route.gateway.is_some() {
            return Err(ResolveError::BehindGateway {
                backend: target.backend.clone(),
                address: target.address,
                gateway: neighbour.address,
                interface: interface.name,
            });
        }
        let answer = timeout(ANSWER_DEADLINE, self.mac_of(neighbour)).await;
        let Some(next_hop_mac) = answer.unwrap_or(Ok(None))? else {
            return Err(ResolveError::NoAnswer {
                backend: target.backend.clone(),
                address: target.address,
                neighbour: neighbour.address,
                interface: interface.name,
            });
        };
        let (lower, tags) = link::below_vlans(&self.netlink, &interface).await?;
        Ok(NextHop {
            interface: lower,
            tags,
            interface_name: interface.name,
            source: route.source,
            source_mac: interface.mac,
            next_hop_mac,
            mtu: route.mtu.unwrap_or(u16::MAX).min(interface.mtu),
        })
    }

    /// The interface by which this machine would send a packet of its own to a VIP.
    ///
    /// # Errors
    /// There is no route, or it leads to this machine.
    pub async fn way_to_vip(&self, vip: IpAddr) -> Result<String, ResolveError> {
        let target = Target { backend: String::new(), address: vip, reach: Reach::Routed };
        let route = route::to(&self.netlink, &target).await.map_err(|error| match error {
            ResolveError::ThisMachine { address, .. } => ResolveError::VipHere(address),
            ResolveError::NoRoute { address, .. } | ResolveError::NoSource { address, .. } => {
                ResolveError::NoRouteToVip(address)
            }
            other => other,
        })?;
        Ok(link::by_index(&self.netlink, route.interface).await?.name)
    }

    /// Changes of routes, rules, addresses, links and of the neighbours that were asked for, from now on.
    pub fn watch(&self) -> Changes {
        self.neighbours.changes()
    }

    /// Stops keeping neighbours fresh, before everything is resolved anew.
    pub fn forget_neighbours(&self) {
        self.neighbours.forget();
    }

    /// The neighbour's address; `None` if it does not answer.
    async fn mac_of(&self, neighbour: Neighbour) -> Result<Option<Mac>, ResolveError> {
        let mut heard = self.neighbours.follow(neighbour);
        let mut state = neighbour::state(&self.netlink, neighbour).await?;
        if let State::Silent | State::Stale(_) = state {
            neighbour::refresh(&self.netlink, neighbour).await?;
            state = neighbour::state(&self.netlink, neighbour).await?;
        }
        while state == State::Asked {
            heard.changed().await.map_err(|_| ResolveError::Closed)?;
            state = neighbour::state(&self.netlink, neighbour).await?;
        }
        if let Some(mac) = state.mac() {
            self.neighbours.learn(neighbour, mac);
        }
        Ok(state.mac())
    }
}
