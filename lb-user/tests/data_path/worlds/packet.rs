//! Packets as clients send them, built by etherparse, so that no code under test has a hand in them.

use super::{
    oracle,
    setup::{PORTS, vip_address},
};
use etherparse::{PacketBuilder, TcpHeader};
use lb_common::{
    ids::{BackendId, FlowHash},
    wire::ip::Family,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(crate) const ROUTER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 1];
pub(crate) const BALANCER_MAC: [u8; 6] = [2, 0, 0, 0, 9, 2];
/// Bytes in front of an IP packet.
pub(crate) const ETHERNET: usize = 14;

/// A client's side of a TCP connection or subflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) client: SocketAddr,
    pub(crate) vip: SocketAddr,
}

impl Flow {
    /// A flow from a client's first address to the first port of the web VIP.
    pub(crate) const fn new(family: Family) -> Self {
        let client = match family {
            Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
            Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
        };
        Self { client: SocketAddr::new(client, 40_000), vip: SocketAddr::new(vip_address(family), *PORTS.start()) }
    }

    /// The same from the client's second address.
    pub(crate) fn at_second_address(mut self) -> Self {
        self.client.set_ip(match self.client.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::new(203, 0, 113, 2)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2)),
        });
        self
    }

    pub(crate) fn at_port(mut self, port: u16) -> Self {
        self.client.set_port(port);
        self
    }

    pub(crate) fn to_port(mut self, port: u16) -> Self {
        self.vip.set_port(port);
        self
    }

    /// The same to another address of its family.
    pub(crate) const fn to_address(mut self, address: IpAddr) -> Self {
        self.vip.set_ip(address);
        self
    }

    /// The other way: what a server sends.
    pub(crate) const fn back(self) -> Self {
        Self { client: self.vip, vip: self.client }
    }

    /// The same from the next client port for which the farm's ring names `backend`.
    pub(crate) fn owned_by(self, backend: BackendId) -> Self {
        let ports = self.client.port()..=u16::MAX;
        ports.map(|port| self.at_port(port)).find(|flow| flow.owner() == backend).expect("a third of all ports")
    }

    /// Whom the farm's ring names, as an independent SipHash has it.
    pub(crate) fn owner(self) -> BackendId {
        oracle::farm_owner(self.hash())
    }

    pub(crate) fn hash(self) -> FlowHash {
        oracle::flow_hash(self)
    }

    /// A SYN with an initial sequence number.
    pub(crate) fn syn(self, isn: u32) -> Segment {
        let mut segment = self.segment(isn);
        segment.tcp.syn = true;
        segment
    }

    /// A segment in the course of a connection, whose first byte is `sequence`.
    pub(crate) fn ack(self, sequence: u32) -> Segment {
        let mut segment = self.segment(sequence);
        segment.tcp.ack = true;
        segment.tcp.acknowledgment_number = 77_000;
        segment
    }

    fn segment(self, sequence: u32) -> Segment {
        let tcp = TcpHeader::new(self.client.port(), self.vip.port(), sequence, 65_000);
        Segment { flow: self, tcp, hops: 57, payload: Vec::new() }
    }
}

/// A TCP segment of a flow.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    flow: Flow,
    pub(crate) tcp: TcpHeader,
    hops: u8,
    payload: Vec<u8>,
}

impl Segment {
    /// With these TCP options, padded at their end.
    pub(crate) fn options(mut self, options: &[u8]) -> Self {
        self.tcp.set_options_raw(options).expect("at most 40 bytes of options");
        self
    }

    /// With `len` bytes of payload.
    pub(crate) fn payload(mut self, len: usize) -> Self {
        self.payload = (0..=u8::MAX).cycle().take(len).collect();
        self
    }

    pub(crate) fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    pub(crate) fn rst(mut self) -> Self {
        self.tcp.rst = true;
        self
    }

    pub(crate) fn fin(mut self) -> Self {
        self.tcp.fin = true;
        self
    }

    /// The frame as it comes from the router.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(ROUTER_MAC, BALANCER_MAC);
        let packet = match (self.flow.client.ip(), self.flow.vip.ip()) {
            (IpAddr::V4(client), IpAddr::V4(vip)) => link.ipv4(client.octets(), vip.octets(), self.hops),
            (IpAddr::V6(client), IpAddr::V6(vip)) => link.ipv6(client.octets(), vip.octets(), self.hops),
            _ => panic!("{:?} is of two families", self.flow),
        };
        let mut frame = Vec::new();
        packet.tcp_header(self.tcp.clone()).write(&mut frame, &self.payload).expect("a vector takes all");
        frame
    }
}

/// The frame with IPv4 options of `len` bytes, NOPs, in its IP header.
pub(crate) fn with_ipv4_options(frame: &[u8], len: usize) -> Vec<u8> {
    let (mut header, rest) = etherparse::Ipv4Header::from_slice(&frame[ETHERNET..]).expect("an IPv4 packet");
    header.options = vec![1; len].as_slice().try_into().expect("whole words, 40 bytes at most");
    header.set_payload_len(rest.len()).expect("a short packet");
    header.header_checksum = header.calc_header_checksum();
    [&frame[..ETHERNET], &header.to_bytes(), rest].concat()
}

/// The frame with extension headers in front of its transport header: the first is of the type `first`, and what each
/// says of the next must be right already.
pub(crate) fn with_ipv6_extensions(frame: &[u8], first: u8, extensions: &[u8]) -> Vec<u8> {
    let (mut header, rest) = etherparse::Ipv6Header::from_slice(&frame[ETHERNET..]).expect("an IPv6 packet");
    header.next_header = first.into();
    header.set_payload_length(extensions.len() + rest.len()).expect("a short packet");
    [&frame[..ETHERNET], &header.to_bytes(), extensions, rest].concat()
}

/// The frame with another type of service or traffic class in its IP header.
pub(crate) fn with_traffic_class(frame: &[u8], traffic_class: u8) -> Vec<u8> {
    let packet = &frame[ETHERNET..];
    let (header, rest) = if packet[0] >> 4 == 4 {
        let (mut header, rest) = etherparse::Ipv4Header::from_slice(packet).expect("an IPv4 packet");
        header.dscp = (traffic_class >> 2).try_into().expect("six bits");
        header.ecn = (traffic_class & 3).try_into().expect("two bits");
        header.header_checksum = header.calc_header_checksum();
        (header.to_bytes().to_vec(), rest)
    } else {
        let (mut header, rest) = etherparse::Ipv6Header::from_slice(packet).expect("an IPv6 packet");
        header.traffic_class = traffic_class;
        (header.to_bytes().to_vec(), rest)
    };
    [&frame[..ETHERNET], &header, rest].concat()
}

/// The frame with VLAN tags of these types, outermost first.
pub(crate) fn with_tags(frame: &[u8], types: &[u16]) -> Vec<u8> {
    let tags = types.iter().flat_map(|tag| [tag.to_be_bytes(), [0, 42]].concat()).collect::<Vec<u8>>();
    [&frame[..12], &tags, &frame[12..]].concat()
}
