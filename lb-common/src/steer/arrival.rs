//! The first half of the decision: from the frame to the VIP that it is for, and the flow that it belongs to.
//!
//! What is not for a VIP passes to the host, however malformed; only behind a VIP's address is a packet judged.

use super::{
    fragment,
    icmp::{self, Quoted},
    scope::{Kind, Scope},
};
use core::cmp::Ordering;

use crate::{
    flow::{Ports, WireAddress},
    ids::{BackendId, FlowHash},
    packet::Packet,
    reason::Reason,
    rekey::{self, Names, Rotation},
    tables::{Service, Services, Tables, Traits},
    wire::{
        WireError,
        ethernet::{self, Ethernet},
        ip::{self, Fragment, Header, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
        tcp::Tcp,
        udp::Udp,
    },
};

/// A packet for a VIP, and its flow: where a decision writes down what it reads. In C's order, as [`Ip`].
///
/// In the kernel it lies in a map: as a local it would take a register for each part on each way that ends early, or be
/// zeroed byte by byte for each packet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Arrival {
    /// In which the packet is, or which an ICMP error is about; a later fragment's datagram.
    pub(super) flow: FlowHash,
    /// The same flow under the former cluster key, while `rotation` is under way.
    pub(super) former: FlowHash,
    pub(super) service: Service,
    pub(super) ip: Ip,
    /// The header of a [`Subject::Segment`].
    pub(super) tcp: Tcp,
    /// The header of a [`Subject::Datagram`].
    pub(super) udp: Udp,
    /// The flow's slot in the ring.
    pub(super) slot: u32,
    /// The same under the former cluster key, likewise.
    pub(super) former_slot: u32,
    /// Which key named the flow.
    pub(super) rotation: Rotation,
    /// Where a [`Subject::Piece`] goes.
    pub(super) first_at: BackendId,
}

impl Arrival {
    /// What nothing is known of yet.
    pub const UNREAD: Self = Self {
        service: Service::NONE,
        flow: FlowHash(0),
        former: FlowHash(0),
        slot: 0,
        former_slot: 0,
        rotation: Rotation::settled(0),
        ip: Ip::NONE,
        tcp: Tcp::NONE,
        udp: Udp::NONE,
        first_at: BackendId::NONE,
    };

    /// The protocol of the packet's payload, where the packet was for a VIP.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        self.ip.protocol
    }
}

/// What a packet for a VIP is.
#[derive(Clone, Copy)]
pub(super) enum Subject {
    Segment,
    Datagram,
    /// An ICMP error about a packet of the flow.
    Error,
    /// A piece without ports, of a datagram whose first piece is known.
    Piece,
}

#[inline(always)]
pub(super) fn read<S: Scope, P: Packet, T: Tables>(
    packet: &P,
    tables: &mut T,
    arrival: &mut Arrival,
) -> Result<Result<Subject, Reason>, S::Beyond> {
    let Ok(frame) = ethernet::parse(packet) else { return Ok(Err(Reason::Truncated)) };
    let at = P::opaque_below_64(frame.payload);
    match frame.ethertype {
        ethernet::IPV4 => match Ipv4::load(packet, at) {
            Ok(header) => behind::<S, _, _, _>(packet, tables, arrival, &frame, &header),
            Err(_) => Ok(Err(Reason::Truncated)),
        },
        ethernet::IPV6 => match Ipv6::load(packet, at) {
            Ok(header) => behind::<S, _, _, _>(packet, tables, arrival, &frame, &header),
            Err(_) => Ok(Err(Reason::Truncated)),
        },
        _ => Ok(Err(Reason::NotIp)),
    }
}

#[inline(always)]
fn behind<S: Scope, P: Packet, T: Tables, H: Header>(
    packet: &P,
    tables: &mut T,
    arrival: &mut Arrival,
    frame: &Ethernet,
    header: &H,
) -> Result<Result<Subject, Reason>, S::Beyond> {
    let Some(services) = tables.services(&header.destination().key()) else { return Ok(Err(Reason::NotVip)) };
    if header.is_icmp() {
        S::take(Kind::Icmp)?;
        return Ok(read_icmp(packet, tables, arrival, services, header));
    }
    let is_common = frame.tags() == 0 && header.is_plain();
    S::take(if is_common { Kind::Common } else { Kind::Uncommon })?;
    let read = read_transport(packet, tables, arrival, services, header);
    if let Ok(Subject::Datagram) = read
        && arrival.service.quic_id_len > 0
    {
        S::take(Kind::Uncommon)?;
    }
    Ok(read)
}

#[inline(always)]
fn check<P: Packet, H: Header>(packet: &P, header: &H) -> Result<Ip, Reason> {
    header.check(packet).map_err(|error| match error {
        WireError::TooDeep => Reason::ExtensionsTooDeep,
        WireError::Truncated | WireError::Malformed => Reason::MalformedIp,
    })
}

#[inline(always)]
fn read_icmp<P: Packet, T: Tables, H: Header>(
    packet: &P,
    tables: &mut T,
    arrival: &mut Arrival,
    services: Services,
    header: &H,
) -> Result<Subject, Reason> {
    arrival.ip = check(packet, header)?;
    let Quoted { client, ports, protocol } = icmp::read(packet, header, &arrival.ip)?;
    let service = service_at(tables, services, protocol, ports.destination).ok_or(Reason::IcmpUnrelated)?;
    arrival.service = service.copied_by::<P>();
    let kind = if protocol == ip::UDP { rekey::Kind::Datagram } else { rekey::Kind::Segment };
    arrival.find_slot(tables, client, header.destination(), ports, protocol, kind)?;
    Ok(Subject::Error)
}

#[inline(always)]
fn read_transport<P: Packet, T: Tables, H: Header>(
    packet: &P,
    tables: &mut T,
    arrival: &mut Arrival,
    services: Services,
    header: &H,
) -> Result<Subject, Reason> {
    let ip = check(packet, header)?;
    arrival.ip = ip;
    if ip.fragment == Fragment::Later {
        return fragment::read_later(tables, arrival, header);
    }
    let (subject, ports, kind) = match ip.protocol {
        ip::TCP => {
            let tcp = Tcp::parse(packet, &ip).map_err(|_| Reason::MalformedTcp)?;
            arrival.tcp = tcp;
            let kind = if tcp.opens() { rekey::Kind::Opening } else { rekey::Kind::Segment };
            (Subject::Segment, Ports { source: tcp.source_port, destination: tcp.destination_port }, kind)
        }
        ip::UDP => {
            let udp = Udp::parse(packet, &ip).map_err(|_| Reason::MalformedUdp)?;
            arrival.udp = udp;
            let ports = Ports { source: udp.source_port, destination: udp.destination_port };
            (Subject::Datagram, ports, rekey::Kind::Datagram)
        }
        ip::ICMP | ip::ICMPV6 => return Err(Reason::IcmpOther),
        _ => return Err(Reason::NoService),
    };
    let service = service_at(tables, services, ip.protocol, ports.destination).ok_or(Reason::NoService)?;
    arrival.service = service.copied_by::<P>();
    arrival.find_slot(tables, header.source(), header.destination(), ports, ip.protocol, kind)?;
    if let Subject::Segment = subject
        && ip.fragment != Fragment::Whole
        && !arrival.service.traits.has(Traits::TCP_FRAGMENTS)
    {
        return Err(Reason::TcpFragment);
    }
    Ok(subject)
}

impl Arrival {
    /// Hashes the flow of a client's to the service, and finds its slot.
    #[inline(always)]
    fn find_slot<T: Tables, A: WireAddress>(
        &mut self,
        tables: &mut T,
        client: A,
        vip: A,
        ports: Ports,
        protocol: u8,
        kind: rekey::Kind,
    ) -> Result<(), Reason> {
        let globals = tables.globals().ok_or(Reason::NoService)?;
        let by_source = self.service.traits.has(Traits::SOURCE_AFFINITY);
        let key = globals.key();
        self.rotation = globals.rotation;
        self.flow = client.flow_hash(key, vip, ports, protocol);
        self.slot = if by_source { client.source_hash(key).slot() } else { self.flow.slot() };
        if self.rotation.is_under_way() {
            let key = globals.former_key();
            self.former = client.flow_hash(key, vip, ports, protocol);
            self.former_slot = if by_source { client.source_hash(key).slot() } else { self.former.slot() };
            let names = Names { present: self.flow, former: self.former };
            if tables.goes_by_former(names, self.service.pool, kind) {
                self.flow = self.former;
            }
        }
        Ok(())
    }
}

/// The rule of an address for a port: most addresses have one, so the middle one is looked at here, and only if it does
/// not fit are the others searched.
#[inline(always)]
fn service_at<T: Tables>(tables: &T, services: Services, protocol: u8, port: u16) -> Option<&Service> {
    let middle = tables.service(services.middle())?;
    match middle.compare(protocol, port) {
        Ordering::Equal => Some(middle),
        _ if services.count <= 1 => None,
        _ => tables.service(tables.search(services, protocol, port)?),
    }
}
