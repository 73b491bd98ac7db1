//! The first half of the decision: from the frame to the VIP that it is for, and the flow that it belongs to.
//!
//! What is not for a VIP passes to the host, however malformed; only behind a VIP's address is a packet judged.

use crate::{
    flow::Ports,
    ids::FlowHash,
    limits::SERVICES_PER_ADDRESS_MAX,
    packet::Packet,
    reason::Reason,
    tables::{Service, Services, Tables},
    wire::{
        WireError, ethernet,
        ip::{self, Fragment, Header, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
        tcp::Tcp,
    },
};

/// A TCP segment for a VIP.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) service: Service,
    pub(super) flow: FlowHash,
    pub(super) ip: Ip,
    pub(super) tcp: Tcp,
}

#[inline(always)]
pub(super) fn read<P: Packet, T: Tables>(packet: &P, tables: &T) -> Result<Arrival, Reason> {
    let frame = ethernet::parse(packet).map_err(|_| Reason::Truncated)?;
    match frame.ethertype {
        ethernet::IPV4 => behind(packet, tables, frame.tags(), Ipv4::load(packet, frame.payload)),
        ethernet::IPV6 => behind(packet, tables, frame.tags(), Ipv6::load(packet, frame.payload)),
        _ => Err(Reason::NotIp),
    }
}

#[inline(always)]
fn behind<P: Packet, T: Tables, H: Header>(
    packet: &P,
    tables: &T,
    tags: usize,
    header: Result<H, WireError>,
) -> Result<Arrival, Reason> {
    let header = header.map_err(|_| Reason::Truncated)?;
    let services = tables.services(&header.destination_address()).ok_or(Reason::NotVip)?;
    if tags > 0 {
        return Err(Reason::Tagged);
    }
    let ip = header.check(packet).map_err(|error| match error {
        WireError::TooDeep => Reason::ExtensionsTooDeep,
        WireError::Truncated | WireError::Malformed => Reason::MalformedIp,
    })?;
    if ip.protocol != ip::TCP {
        return Err(Reason::NoService);
    }
    if ip.fragment != Fragment::Whole {
        return Err(Reason::Fragment);
    }
    let tcp = Tcp::parse(packet, &ip).map_err(|_| Reason::MalformedTcp)?;
    let service = service_at(tables, services, ip.protocol, tcp.destination_port).ok_or(Reason::NoService)?;
    let globals = tables.globals().ok_or(Reason::NoService)?;
    let ports = Ports { source: tcp.source_port, destination: tcp.destination_port };
    let flow = header.flow_hash(&globals.cluster_key, ports, ip.protocol);
    Ok(Arrival { service, flow, ip, tcp })
}

/// Binary search in the sorted rules of an address.
#[inline(always)]
fn service_at<T: Tables>(tables: &T, services: Services, protocol: u8, port: u16) -> Option<Service> {
    const STEPS: u32 = SERVICES_PER_ADDRESS_MAX.ilog2() + 1;
    let wanted = (protocol, port);
    let (mut first, mut count) = (services.first, services.count);
    for _ in 0..STEPS {
        if count == 0 {
            break;
        }
        let half = count / 2;
        let service = tables.service(first + half)?;
        if wanted < (service.protocol, service.port_first) {
            count = half;
        } else if wanted > (service.protocol, service.port_last) {
            first += half + 1;
            count -= half + 1;
        } else {
            return Some(service);
        }
    }
    None
}
