//! Interfaces: their index, name, Ethernet address and MTU.

use super::Mac;
use super::error::{ResolveError, system_error};
use futures_util::TryStreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};

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
    Ok(Interface { index: link.header.index, name, mac, mtu })
}

fn name_of(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or_default()
}
