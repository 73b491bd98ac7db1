//! The interfaces of this machine, with what XDP and addresses are on them, as the kernel tells by netlink; and the names
//! of programs, where this process may know them.

use super::Finding;
use crate::resolve::Xdp;
use aya::programs::loaded_programs;
use futures_util::TryStreamExt as _;
use lb_common::programs::ENTRY;
use rtnetlink::{
    Handle,
    packet_route::{
        address::{AddressAttribute, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, State},
    },
};
use std::{io, net::IpAddr};
use tokio::task::AbortHandle;

/// Why the machine could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// There is no netlink.
    #[error("the kernel gives no netlink socket: {0}; a sandbox around this command must allow AF_NETLINK")]
    Netlink(#[from] io::Error),
    /// The kernel refuses an answer.
    #[error("the kernel does not tell of its interfaces: {0}")]
    Refused(#[from] rtnetlink::Error),
}

/// The interfaces, as of one moment.
pub struct Links {
    all: Vec<LinkMessage>,
    addresses: Vec<AddressMessage>,
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occupant {
    pub(super) id: u32,
    /// `native`, `generic` or `hardware`.
    pub(super) mode: &'static str,
    /// None where this process may not know.
    pub(super) name: Option<String>,
}

impl Occupant {
    /// Its name and number, for people.
    pub(super) fn who(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} (program {})", self.id),
            None => format!("program {}", self.id),
        }
    }

    /// Whether it is this program of Weir's; where its name is unknown, it may be.
    pub(super) fn may_be(&self, program: &str) -> bool {
        self.name.as_deref().is_none_or(|name| name == program)
    }

    pub(super) fn is_balancer(&self) -> bool {
        self.may_be(ENTRY)
    }
}

/// One interface.
#[derive(Clone, Copy)]
pub(super) struct Link<'l> {
    message: &'l LinkMessage,
    links: &'l Links,
}

impl Links {
    /// Reads them all.
    ///
    /// # Errors
    /// The kernel does not tell.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn read() -> Result<Self, DoctorError> {
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        let _task = Task(tokio::spawn(connection).abort_handle());
        Self::ask(&netlink).await
    }

    async fn ask(netlink: &Handle) -> Result<Self, DoctorError> {
        let all = netlink.link().get().execute().try_collect().await?;
        let addresses = netlink.address().get().execute().try_collect().await?;
        Ok(Self { all, addresses })
    }

    pub(super) fn by_name(&self, name: &str) -> Option<Link<'_>> {
        self.iter().find(|link| link.name() == name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Link<'_>> {
        self.all.iter().map(|message| Link { message, links: self })
    }

    /// The interface that has an address.
    pub(super) fn holder_of(&self, address: IpAddr) -> Option<Link<'_>> {
        self.iter().find(|link| link.addresses().any(|(own, _)| own == address))
    }

    /// Whether this machine takes tunnels off: by Weir, or by a tunnel device of the kernel's.
    pub fn decapsulates(&self) -> bool {
        self.iter().any(|link| link.xdp().is_some_and(|xdp| xdp.name.as_deref() == Some(crate::bpf::DECAP_PROGRAM)))
    }
}

/// A task that ends with this.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<'l> Link<'l> {
    pub(super) fn name(self) -> &'l str {
        let name = self.message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        });
        name.unwrap_or_default()
    }

    pub(super) fn index(self) -> u32 {
        self.message.header.index
    }

    pub(super) fn mtu(self) -> u32 {
        let mtu = self.message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        });
        mtu.unwrap_or(u32::MAX)
    }

    pub(super) fn is_ethernet(self) -> bool {
        self.message.header.link_layer_type == LinkLayerType::Ether
    }

    /// Whether it is up, and whether it has a carrier.
    pub(super) fn is_up(self) -> (bool, bool) {
        let down = |attribute: &LinkAttribute| {
            matches!(attribute, LinkAttribute::OperState(State::Down | State::LowerLayerDown | State::NotPresent))
        };
        let up = self.message.header.flags.contains(LinkFlags::Up);
        (up, up && !self.message.attributes.iter().any(down))
    }

    pub(super) fn kind(self) -> Option<&'l InfoKind> {
        let infos = self.message.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(infos) => Some(infos),
            _ => None,
        });
        infos?.iter().find_map(|info| match info {
            LinkInfo::Kind(kind) => Some(kind),
            _ => None,
        })
    }

    /// The VLAN devices on it.
    pub(super) fn vlans(self) -> impl Iterator<Item = Link<'l>> {
        let on_this = move |link: &Link<'l>| {
            link.kind() == Some(&InfoKind::Vlan) && link.message.attributes.contains(&LinkAttribute::Link(self.index()))
        };
        self.links.iter().filter(on_this)
    }

    /// Its addresses, with the lengths of their prefixes.
    pub(super) fn addresses(self) -> impl Iterator<Item = (IpAddr, u8)> {
        let own = self.links.addresses.iter().filter(move |message| message.header.index == self.index());
        own.filter_map(|message| {
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            });
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            });
            local.or(address).map(|address| (address, message.header.prefix_len))
        })
    }

    /// The program on it.
    pub(super) fn xdp(self) -> Option<Occupant> {
        let Xdp { program, mode } = Xdp::of(self.message)?;
        Some(Occupant { id: program, mode, name: name_of(program) })
    }

    /// Whether it is up.
    pub(super) fn state_finding(self) -> Finding {
        let name = self.name();
        match self.is_up() {
            (true, true) => Finding::good("interface", format!("{name} is up, {} bytes of MTU", self.mtu())),
            (true, false) => {
                Finding::fault("interface", format!("{name} has no carrier: the cable, the port or the peer is down"))
                    .mend(format!("ethtool {name}"))
            }
            (false, _) => {
                Finding::fault("interface", format!("{name} is down")).mend(format!("ip link set dev {name} up"))
            }
        }
    }
}

/// The name of a program. Only who may see all programs of the machine may know it (`CAP_SYS_ADMIN`).
fn name_of(id: u32) -> Option<String> {
    let mut programs = loaded_programs().flatten();
    let name = programs.find(|program| program.id() == id)?.name_as_str().map(str::to_owned)?;
    (!name.is_empty()).then_some(name)
}
