//! Single entries of the kernel's neighbour table: reading one, and asking the kernel to resolve or confirm it.

use super::error::{ResolveError, system_error};
use super::{Mac, Neighbour};
use futures_util::StreamExt as _;
use rtnetlink::Handle;
use rtnetlink::packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use std::io;
use std::net::IpAddr;

/// What the kernel knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its address.
    Known(Mac),
    /// Its address, good to send to, but not confirmed for a while.
    Stale(Mac),
    /// A request is under way.
    Asked,
    /// It was not asked, or it did not answer.
    Silent,
}

impl State {
    /// The address to send to.
    pub(super) const fn mac(self) -> Option<Mac> {
        match self {
            Self::Known(mac) | Self::Stale(mac) => Some(mac),
            Self::Asked | Self::Silent => None,
        }
    }
}

/// Makes the kernel resolve a silent neighbour, or confirm a stale one, as a packet to it would.
///
/// Not for a known one: the kernel would take the permanence from an operator's entry (`__neigh_update` with
/// `NEIGH_UPDATE_F_USE`).
pub(super) async fn refresh(netlink: &Handle, neighbour: Neighbour) -> Result<(), ResolveError> {
    let request = netlink
        .neighbours()
        .add(neighbour.interface, neighbour.address)
        .state(NeighbourState::None)
        .flags(NeighbourFlags::Use)
        .replace();
    let Err(error) = request.execute().await else {
        return Ok(());
    };
    match system_error(error) {
        error if error.kind() == io::ErrorKind::PermissionDenied => Err(ResolveError::NotPermitted(error)),
        source => Err(ResolveError::Refused { asked: format!("resolving neighbour {}", neighbour.address), source }),
    }
}

/// Reads one entry, without listing the table, which may be long.
pub(super) async fn state(netlink: &Handle, neighbour: Neighbour) -> Result<State, ResolveError> {
    let mut question = NeighbourMessage::default();
    question.header.ifindex = neighbour.interface;
    let (family, address) = match neighbour.address {
        IpAddr::V4(v4) => (AddressFamily::Inet, NeighbourAddress::Inet(v4)),
        IpAddr::V6(v6) => (AddressFamily::Inet6, NeighbourAddress::Inet6(v6)),
    };
    question.header.family = family;
    question.attributes.push(NeighbourAttribute::Destination(address));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNeighbour(question));
    request.header.flags = NLM_F_REQUEST;

    let mut answers = netlink.clone().request(request).map_err(|_| ResolveError::Closed)?;
    let answer = answers.next().await.ok_or(ResolveError::Closed)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => Ok(entry_state(&entry)),
        NetlinkPayload::Error(error) if error.to_io().kind() == io::ErrorKind::NotFound => Ok(State::Silent),
        NetlinkPayload::Error(error) => {
            Err(ResolveError::Refused { asked: format!("neighbour {}", neighbour.address), source: error.to_io() })
        }
        _ => Err(ResolveError::Closed),
    }
}

pub(super) fn entry_state(entry: &NeighbourMessage) -> State {
    let known: fn(Mac) -> State = match entry.header.state {
        NeighbourState::Incomplete => return State::Asked,
        NeighbourState::Failed | NeighbourState::None => return State::Silent,
        NeighbourState::Stale => State::Stale,
        _ => State::Known,
    };
    mac(entry).map_or(State::Silent, known)
}

/// Which neighbour an entry is about.
pub(super) fn of_entry(entry: &NeighbourMessage) -> Option<Neighbour> {
    let address = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
        _ => None,
    })?;
    Some(Neighbour { interface: entry.header.ifindex, address })
}

fn mac(entry: &NeighbourMessage) -> Option<Mac> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(mac) => Mac::try_from(mac.as_slice()).ok(),
        _ => None,
    })
}
