//! Interfaces: their index, name, Ethernet address and MTU, and what is below one that is a VLAN.
//!
//! XDP sends past the VLAN devices, so the tags that they would add are Weir's to add.

use super::Mac;
use super::error::{ResolveError, system_error};
use futures_util::TryStreamExt as _;
use lb_common::{encap::Tag, limits::VLAN_TAGS_MAX, wire::ethernet};
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoVlan, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage, LinkXdp, VlanProtocol,
    XdpAttached,
};

/// An Ethernet interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Bytes of the largest IP packet it sends, capped at 65,535.
    pub mtu: u16,
    /// What it is, if it is a VLAN.
    pub vlan: Option<Vlan>,
}

/// An XDP program on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Xdp {
    /// The kernel's number for it.
    pub program: u32,
    /// `native`, `generic`, `hardware`, or `several`.
    pub mode: &'static str,
}

/// A VLAN on another interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    /// The tag of its packets.
    pub tag: Tag,
    /// The kernel's number for the other interface.
    pub lower: u32,
}

pub(super) async fn by_name(netlink: &Handle, name: &str) -> Result<Interface, ResolveError> {
    let request = netlink.link().get().match_name(name).execute();
    let answer = std::pin::pin!(request).try_next().await;
    match answer {
        Ok(Some(link)) => interface(&link),
        Ok(None) => no_interface(netlink, name).await,
        Err(error) => match system_error(error) {
            error if error.raw_os_error() == Some(nix::libc::ENODEV) => no_interface(netlink, name).await,
            source => Err(ResolveError::Refused { asked: format!("interface {name}"), source }),
        },
    }
}

pub(super) async fn xdp_program(netlink: &Handle, name: &str) -> Result<Option<Xdp>, ResolveError> {
    let request = netlink.link().get().match_name(name).execute();
    let answer = std::pin::pin!(request).try_next().await;
    let link = answer.map_err(|error| ResolveError::refused(format!("interface {name}"), error))?;
    Ok(link.as_ref().and_then(Xdp::of))
}

impl Xdp {
    /// The program on an interface.
    pub(crate) fn of(link: &LinkMessage) -> Option<Self> {
        let attributes = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::Xdp(attributes) => Some(attributes),
            _ => None,
        })?;
        let mode = attributes.iter().find_map(|attribute| match attribute {
            LinkXdp::Attached(XdpAttached::Driver) => Some("native"),
            LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
            LinkXdp::Attached(XdpAttached::Hardware) => Some("hardware"),
            LinkXdp::Attached(XdpAttached::Multiple) => Some("several"),
            _ => None,
        })?;
        let program = attributes.iter().find_map(|attribute| match attribute {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) => Some(*id),
            _ => None,
        })?;
        Some(Self { program, mode })
    }
}

pub(super) async fn by_index(netlink: &Handle, index: u32) -> Result<Interface, ResolveError> {
    let request = netlink.link().get().match_index(index).execute();
    let answer = std::pin::pin!(request).try_next().await;
    let asked = || format!("interface number {index}");
    match answer {
        Ok(Some(link)) => interface(&link),
        Ok(None) => Err(ResolveError::Closed),
        Err(error) => Err(ResolveError::refused(asked(), error)),
    }
}

/// The interface below all VLANs that this one is in, and the tags that packets carry there, outermost first.
pub(super) async fn below_vlans(netlink: &Handle, top: &Interface) -> Result<(u32, Vec<Tag>), ResolveError> {
    let (mut index, mut vlan, mut tags) = (top.index, top.vlan, Vec::new());
    while let Some(Vlan { tag, lower }) = vlan {
        if tags.len() == VLAN_TAGS_MAX {
            return Err(ResolveError::TooManyTags(top.name.clone()));
        }
        tags.insert(0, tag);
        index = lower;
        vlan = by_index(netlink, lower).await?.vlan;
    }
    Ok((index, tags))
}

async fn no_interface(netlink: &Handle, name: &str) -> Result<Interface, ResolveError> {
    let links: Vec<_> = netlink
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|error| ResolveError::refused("the list of interfaces", error))?;
    let names: Vec<_> = links.iter().map(name_of).collect();
    Err(ResolveError::NoInterface { name: name.to_owned(), existing: names.join(", ") })
}

fn interface(link: &LinkMessage) -> Result<Interface, ResolveError> {
    let mac = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => Mac::try_from(mac.as_slice()).ok(),
        _ => None,
    });
    let mtu = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(u16::try_from(*mtu).unwrap_or(u16::MAX)),
        _ => None,
    });
    let name = name_of(link).to_owned();
    let is_ethernet = link.header.link_layer_type == LinkLayerType::Ether;
    let (true, Some(mac), Some(mtu)) = (is_ethernet, mac, mtu) else {
        return Err(ResolveError::NotEthernet(name));
    };
    Ok(Interface { index: link.header.index, name, mac, mtu, vlan: vlan(link) })
}

fn vlan(link: &LinkMessage) -> Option<Vlan> {
    let infos = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    })?;
    let lower = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Link(index) => Some(*index),
        _ => None,
    })?;
    if !infos.contains(&LinkInfo::Kind(InfoKind::Vlan)) {
        return None;
    }
    let data = infos.iter().find_map(|info| match info {
        LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
        _ => None,
    })?;
    let control = data.iter().find_map(|info| match info {
        InfoVlan::Id(id) => Some(*id),
        _ => None,
    })?;
    let is_service_tag = data.contains(&InfoVlan::Protocol(VlanProtocol::Ieee8021Ad));
    let ethertype = if is_service_tag { ethernet::DOT1AD } else { ethernet::DOT1Q };
    Some(Vlan { tag: Tag { ethertype, control }, lower })
}

fn name_of(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 7;
        link.header.link_layer_type = LinkLayerType::Ether;
        link.attributes = vec![
            LinkAttribute::IfName("eth0.42".to_owned()),
            LinkAttribute::Address(vec![2, 0, 0, 0, 0, 7]),
            LinkAttribute::Mtu(1496),
        ];
        link.attributes.extend(attributes);
        link
    }

    fn info(kind: InfoKind, data: Vec<InfoVlan>) -> LinkAttribute {
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(InfoData::Vlan(data))])
    }

    #[test]
    fn a_vlan_has_a_tag_and_another_interface_below() {
        for (protocol, ethertype) in [(VlanProtocol::Ieee8021Q, 0x8100), (VlanProtocol::Ieee8021Ad, 0x88a8)] {
            let data = vec![InfoVlan::Protocol(protocol), InfoVlan::Id(42)];
            let found = interface(&link(vec![LinkAttribute::Link(3), info(InfoKind::Vlan, data)])).expect("Ethernet");
            assert_eq!((found.index, found.mtu), (7, 1496));
            assert_eq!(found.vlan, Some(Vlan { tag: Tag { ethertype, control: 42 }, lower: 3 }));
        }
    }

    #[test]
    fn what_is_no_vlan_has_no_tag() {
        let id = || vec![InfoVlan::Id(42)];
        for attributes in [
            Vec::new(),
            vec![LinkAttribute::Link(3)],
            vec![LinkAttribute::Link(3), info(InfoKind::Veth, id())],
            vec![info(InfoKind::Vlan, id())],
            vec![LinkAttribute::Link(3), info(InfoKind::Vlan, Vec::new())],
        ] {
            assert_eq!(interface(&link(attributes)).expect("Ethernet").vlan, None);
        }
    }
}
