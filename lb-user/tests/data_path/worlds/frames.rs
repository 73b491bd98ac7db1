//! Frames other than a client's TCP segments: datagrams, QUIC, ICMP, and pieces of any of them.

use super::packet::{BALANCER_MAC, ETHERNET, Flow, ROUTER_MAC};
use etherparse::{Icmpv6Slice, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, PacketBuilderStep, UdpHeader};
use std::net::IpAddr;

pub(crate) const ICMP: u8 = 1;
pub(crate) const UDP: u8 = 17;
const FRAGMENT: u8 = 44;
pub(crate) const ICMPV6: u8 = 58;

/// A packet of any protocol between two addresses of one family.
pub(crate) fn packet(from: IpAddr, to: IpAddr, protocol: u8, content: &[u8]) -> Vec<u8> {
    let link: PacketBuilderStep<etherparse::Ethernet2Header> = PacketBuilder::ethernet2(ROUTER_MAC, BALANCER_MAC);
    let mut frame = Vec::new();
    let packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 57),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 57),
        _ => panic!("a packet of two families"),
    };
    packet.write(&mut frame, IpNumber(protocol), content).expect("a vector takes all");
    frame
}

/// A datagram of a flow.
pub(crate) fn datagram(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let header = udp(flow, payload);
    packet(flow.client.ip(), flow.vip.ip(), UDP, &[&header.to_bytes()[..], payload].concat())
}

fn udp(flow: Flow, payload: &[u8]) -> UdpHeader {
    let (source, destination) = (flow.client.port(), flow.vip.port());
    let header = match (flow.client.ip(), flow.vip.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            UdpHeader::with_ipv4_checksum(source, destination, &ipv4(from.octets(), to.octets()), payload)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header { source: from.octets(), destination: to.octets(), ..Ipv6Header::default() };
            UdpHeader::with_ipv6_checksum(source, destination, &header, payload)
        }
        _ => panic!("a datagram of two families"),
    };
    header.expect("a short payload")
}

fn ipv4(from: [u8; 4], to: [u8; 4]) -> Ipv4Header {
    Ipv4Header::new(0, 57, IpNumber::UDP, from, to).expect("a short packet")
}

/// A QUIC packet with a long header (RFC 9000, 17.2) of this kind, version and connection id.
pub(crate) fn quic_long(kind: u8, version: u32, id: &[u8]) -> Vec<u8> {
    let len = u8::try_from(id.len()).expect("20 bytes at most");
    [&[0xc0 | kind << 4][..], &version.to_be_bytes(), &[len], id, &[8], &[0x51; 48]].concat()
}

/// A QUIC packet with a short header (RFC 9000, 17.3) and this connection id.
pub(crate) fn quic_short(id: &[u8]) -> Vec<u8> {
    [&[0x40][..], id, &[0x51; 40]].concat()
}

/// An ICMP message to an address, its checksum right.
pub(crate) fn icmp(from: IpAddr, to: IpAddr, kind: u8, code: u8, rest: [u8; 4], content: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest, content].concat();
    let sum = etherparse::checksum::Sum16BitWords::new().add_slice(&message);
    let (protocol, sum) = match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let len = u32::try_from(message.len()).expect("a short message").to_be_bytes();
            let sum = sum.add_slice(&from.octets()).add_slice(&to.octets());
            (ICMPV6, sum.add_slice(&len).add_slice(&[0, 0, 0, ICMPV6]))
        }
        _ => (ICMP, sum),
    };
    message[2..4].copy_from_slice(&sum.ones_complement().to_be_bytes());
    debug_assert!(protocol == ICMP || Icmpv6Slice::from_slice(&message).is_ok(), "a message");
    packet(from, to, protocol, &message)
}

/// The pieces of a packet, each with `len` bytes at most, a multiple of eight, and all with one number.
pub(crate) fn pieces(frame: &[u8], number: u32, len: usize) -> Vec<Vec<u8>> {
    let packet = &frame[ETHERNET..];
    if packet[0] >> 4 == 4 {
        let (header, content) = Ipv4Header::from_slice(packet).expect("an IPv4 packet");
        return cut(content, len).map(|(at, more, piece)| v4_piece(frame, &header, number, at, more, piece)).collect();
    }
    let (header, content) = Ipv6Header::from_slice(packet).expect("an IPv6 packet");
    cut(content, len).map(|(at, more, piece)| v6_piece(frame, &header, number, at, more, piece)).collect()
}

fn cut(content: &[u8], len: usize) -> impl Iterator<Item = (u16, bool, &[u8])> {
    let last = content.len().div_ceil(len) - 1;
    let at = move |i: usize| u16::try_from(i * len / 8).expect("a short packet");
    content.chunks(len).enumerate().map(move |(i, piece)| (at(i), i < last, piece))
}

fn v4_piece(frame: &[u8], header: &Ipv4Header, number: u32, at: u16, more: bool, piece: &[u8]) -> Vec<u8> {
    let mut header = header.clone();
    header.identification = u16::try_from(number & 0xffff).expect("sixteen bits");
    header.dont_fragment = false;
    header.more_fragments = more;
    header.fragment_offset = at.try_into().expect("thirteen bits");
    header.set_payload_len(piece.len()).expect("a short piece");
    header.header_checksum = header.calc_header_checksum();
    [&frame[..ETHERNET], &header.to_bytes(), piece].concat()
}

fn v6_piece(frame: &[u8], header: &Ipv6Header, number: u32, at: u16, more: bool, piece: &[u8]) -> Vec<u8> {
    let mut header = header.clone();
    let [high, low] = (at << 3 | u16::from(more)).to_be_bytes();
    let fragment = [&[header.next_header.0, 0, high, low][..], &number.to_be_bytes()].concat();
    header.next_header = IpNumber(FRAGMENT);
    header.set_payload_length(fragment.len() + piece.len()).expect("a short piece");
    [&frame[..ETHERNET], &header.to_bytes(), &fragment, piece].concat()
}
