//! The packets that are measured, as a Linux client sends them.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{PacketBuilder, TcpHeader};

use super::farm::{CLIENT_V4, CLIENT_V6, PORT, VIP_V4, VIP_V6};

/// Port of the first client.
const CLIENT_PORT: u16 = 0x8000;
/// The client's initial sequence number.
const ISN: u32 = 1_000;

/// MSS, SACK, timestamps and window scale.
const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
/// Timestamps.
const ACK_OPTIONS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 1];
/// MPTCP v1 with the HMAC-SHA256 flag; in 12 bytes, so that the segment is as long as the third one.
const MP_CAPABLE_SYN: [u8; 12] = [30, 4, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
/// Both keys follow.
const MP_CAPABLE_ACK: [u8; 12] = [30, 20, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8];
/// A token and a nonce follow.
const MP_JOIN: [u8; 4] = [30, 12, 0x10, 1];

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// The VIP's IPv4 address.
    V4,
    /// The VIP's IPv6 address.
    V6,
    /// An IPv4 address that is no VIP's.
    Elsewhere,
}

/// An ACK in the course of a connection.
pub(crate) fn ack(to: To) -> Vec<u8> {
    frame(to, tcp(ISN + 1, &ACK_OPTIONS, |tcp| tcp.ack = true))
}

/// A SYN of plain TCP.
pub(crate) fn syn(to: To) -> Vec<u8> {
    frame(to, tcp(ISN, &SYN_OPTIONS, |tcp| tcp.syn = true))
}

/// A SYN that offers MPTCP.
pub(crate) fn capable_syn() -> Vec<u8> {
    let options = [SYN_OPTIONS.as_slice(), &MP_CAPABLE_SYN].concat();
    frame(To::V4, tcp(ISN, &options, |tcp| tcp.syn = true))
}

/// The third packet of that handshake; the server's key is still zero.
pub(crate) fn third_ack() -> Vec<u8> {
    let options = [ACK_OPTIONS.as_slice(), &MP_CAPABLE_ACK, &[0; 8]].concat();
    frame(To::V4, tcp(ISN + 1, &options, |tcp| tcp.ack = true))
}

/// A SYN that joins; the token is still zero.
pub(crate) fn joining_syn() -> Vec<u8> {
    let options = [SYN_OPTIONS.as_slice(), &MP_JOIN, &[0; 8]].concat();
    frame(To::V4, tcp(ISN, &options, |tcp| tcp.syn = true))
}

/// A UDP datagram.
pub(crate) fn datagram() -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 9, 2]);
    let packet = link.ipv4(CLIENT_V4.octets(), VIP_V4.octets(), 57).udp(CLIENT_PORT, PORT);
    let mut bytes = Vec::new();
    packet.write(&mut bytes, &[0x5a; 100]).expect("a vector takes all");
    bytes
}

fn tcp(sequence: u32, options: &[u8], flags: impl FnOnce(&mut TcpHeader)) -> TcpHeader {
    let mut tcp = TcpHeader::new(CLIENT_PORT, PORT, sequence, 65_000);
    tcp.set_options_raw(options).expect("at most 40 bytes of options");
    flags(&mut tcp);
    tcp
}

fn frame(to: To, tcp: TcpHeader) -> Vec<u8> {
    const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
    let v4 = |vip: Ipv4Addr| (CLIENT_V4.octets(), vip.octets());
    let v6 = |vip: Ipv6Addr| (CLIENT_V6.octets(), vip.octets());
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 9, 2]);
    let packet = match to {
        To::V4 => {
            let (c, s) = v4(VIP_V4);
            link.ipv4(c, s, 57)
        }
        To::Elsewhere => {
            let (c, s) = v4(ELSEWHERE);
            link.ipv4(c, s, 57)
        }
        To::V6 => {
            let (c, s) = v6(VIP_V6);
            link.ipv6(c, s, 57)
        }
    };
    let mut bytes = Vec::new();
    packet.tcp_header(tcp).write(&mut bytes, &[]).expect("a vector takes all");
    bytes
}

/// Which way a packet goes past a backend's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From a client.
    In,
    /// To a client.
    Out,
}

/// Packets that a backend's programs leave alone: data of connections to the service, by IPv4 and IPv6, and to another port of
/// its address, and a datagram.
pub(super) fn foreign(way: Way) -> [Vec<u8>; 4] {
    const ELSEWHERE: u16 = PORT + 1;
    const DATA: [u8; 1000] = [0x5a; 1000];
    let write = |is_ipv6: bool, port: u16, is_tcp: bool| {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 9, 1], [2, 0, 0, 0, 9, 2]);
        let turned = way == Way::Out;
        let packet = match (is_ipv6, turned) {
            (false, false) => link.ipv4(CLIENT_V4.octets(), VIP_V4.octets(), 57),
            (false, true) => link.ipv4(VIP_V4.octets(), CLIENT_V4.octets(), 64),
            (true, false) => link.ipv6(CLIENT_V6.octets(), VIP_V6.octets(), 57),
            (true, true) => link.ipv6(VIP_V6.octets(), CLIENT_V6.octets(), 64),
        };
        let (from, to) = if turned { (port, CLIENT_PORT) } else { (CLIENT_PORT, port) };
        let mut bytes = Vec::new();
        let written = if is_tcp {
            let ack = tcp(ISN + 1, &ACK_OPTIONS, |tcp| tcp.ack = true);
            let ack = TcpHeader { source_port: from, destination_port: to, ..ack };
            packet.tcp_header(ack).write(&mut bytes, &DATA)
        } else {
            packet.udp(from, to).write(&mut bytes, &DATA)
        };
        written.expect("a vector takes all");
        bytes
    };
    [write(false, PORT, true), write(true, PORT, true), write(false, ELSEWHERE, true), write(false, PORT, false)]
}
