//! The kernel's route to an address: what `ip route get` shows.

use super::Target;
use super::error::{ResolveError, system_error};
use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::io;
use std::net::IpAddr;

/// The way that the kernel would send a packet.
pub(super) struct Route {
    pub(super) interface: u32,
    /// `None` where the target is on the link.
    pub(super) gateway: Option<IpAddr>,
    pub(super) source: IpAddr,
    /// The route's own MTU in bytes, where it has one.
    pub(super) mtu: Option<u16>,
}

pub(super) async fn to(netlink: &Handle, target: &Target) -> Result<Route, ResolveError> {
    let no_route = |source| ResolveError::NoRoute { backend: target.backend.clone(), address: target.address, source };
    let whole_address = if target.address.is_ipv4() { 32 } else { 128 };
    let question = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(target.address, whole_address)
        .map_err(|error| no_route(io::Error::other(error.to_string())))?
        .build();
    let request = netlink.route().get(question).execute();
    let answer = std::pin::pin!(request).try_next().await;
    let message = answer.map_err(|error| no_route(system_error(error)))?.ok_or(ResolveError::Closed)?;
    usable(&message, target)
}

fn usable(message: &RouteMessage, target: &Target) -> Result<Route, ResolveError> {
    if message.header.kind == RouteType::Local {
        return Err(ResolveError::ThisMachine { backend: target.backend.clone(), address: target.address });
    }
    let (mut interface, mut gateway, mut source, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => gateway = Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => gateway = Some((*address).into()),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Metrics(metrics) => mtu = route_mtu(metrics),
            _ => {}
        }
    }
    let Some(interface) = interface else {
        return Err(ResolveError::NoRoute {
            backend: target.backend.clone(),
            address: target.address,
            source: io::ErrorKind::NetworkUnreachable.into(),
        });
    };
    let Some(source) = source else {
        return Err(ResolveError::NoSource { backend: target.backend.clone(), address: target.address });
    };
    Ok(Route { interface, gateway, source, mtu })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn route_mtu(metrics: &[RouteMetric]) -> Option<u16> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(0) => None,
        RouteMetric::Mtu(mtu) => Some(u16::try_from(*mtu).unwrap_or(u16::MAX)),
        _ => None,
    })
}
