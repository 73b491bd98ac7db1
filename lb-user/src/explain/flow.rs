//! A flow that somebody asks for by its ends, as a client's ticket or `ss` tells them: the frame that stands for it.
//!
//! It is the least that a client sends: no MPTCP option, so it neither joins a connection nor teaches a token.

use super::frames::{self, Fitted};
use lb_common::wire::{ip, udp};
use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

/// The offset of a TCP header without options, in its place.
const NO_OPTIONS: u8 = 5 << 4;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// Any window that is not 0.
const WINDOW: u16 = 0xffff;

/// A flow, from a client to a VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    protocol: Protocol,
    client: SocketAddr,
    vip: SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

/// Which of a flow's packets is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The first, which opens a connection.
    Opening,
    /// One of a connection that is open.
    Open,
}

impl FromStr for Flow {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let written = || {
            "write it like 198.51.100.7:40000,192.0.2.1:443, the client first; an IPv6 address in brackets; for UDP with `udp,` \
             in front"
                .to_owned()
        };
        let parts: Vec<&str> = text.split(',').map(str::trim).collect();
        let (protocol, client, vip) = match parts[..] {
            [client, vip] | ["tcp", client, vip] => (Protocol::Tcp, client, vip),
            ["udp", client, vip] => (Protocol::Udp, client, vip),
            _ => return Err(written()),
        };
        let end = |text: &str| text.parse::<SocketAddr>().map_err(|_| written());
        let (client, vip) = (end(client)?, end(vip)?);
        if client.is_ipv4() != vip.is_ipv4() {
            return Err("one end is IPv4 and the other IPv6, which is no flow".to_owned());
        }
        Ok(Self { protocol, client, vip })
    }
}

impl Flow {
    /// The frame that stands for it. Checksums are zero: nobody asks for them.
    ///
    /// # Errors
    /// It would be no whole frame.
    pub fn frame(&self, moment: Moment) -> Fitted {
        let transport = match self.protocol {
            Protocol::Tcp => self.segment(moment),
            Protocol::Udp => self.datagram(),
        };
        let what = match (self.protocol, moment) {
            (Protocol::Udp, _) => "a datagram of this flow",
            (Protocol::Tcp, Moment::Open) => "a packet of this connection as if it were open; --new asks for a new one",
            (Protocol::Tcp, Moment::Opening) => "a new connection's first packet, without MPTCP",
        };
        frames::made_up(&[self.ip_header(transport.len()), transport].concat(), what)
    }

    fn ports(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.client.port().to_be_bytes(), self.vip.port().to_be_bytes());
        [a, b, c, d]
    }

    fn segment(&self, moment: Moment) -> Vec<u8> {
        let (flags, acknowledged) = match moment {
            Moment::Opening => (SYN, 0_u32),
            Moment::Open => (ACK, 1),
        };
        let sequence = 1_u32.to_be_bytes();
        let fields = [NO_OPTIONS, flags];
        [&self.ports()[..], &sequence, &acknowledged.to_be_bytes(), &fields, &WINDOW.to_be_bytes(), &[0; 4]].concat()
    }

    fn datagram(&self) -> Vec<u8> {
        let len = u16::try_from(udp::HEADER_LEN).unwrap_or_default();
        [&self.ports()[..], &len.to_be_bytes(), &[0; 2]].concat()
    }

    fn ip_header(&self, payload: usize) -> Vec<u8> {
        const TTL: u8 = 64;
        let protocol = match self.protocol {
            Protocol::Tcp => ip::TCP,
            Protocol::Udp => ip::UDP,
        };
        let len = |len: usize| u16::try_from(len).unwrap_or_default().to_be_bytes();
        match (self.client.ip(), self.vip.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let begin = [0x45, 0];
                let fields = [0, 0, 0x40, 0, TTL, protocol, 0, 0];
                [&begin[..], &len(20 + payload), &fields, &from.octets(), &to.octets()].concat()
            }
            (from, to) => {
                let octets = |address: IpAddr| match address {
                    IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                    IpAddr::V6(address) => address.octets(),
                };
                [&[0x60, 0, 0, 0][..], &len(payload), &[protocol, TTL], &octets(from), &octets(to)].concat()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::explain::line::unhex;
    use etherparse::{PacketHeaders, TransportHeader};

    fn read(flow: &str, moment: Moment) -> (TransportHeader, String) {
        let flow: Flow = flow.parse().expect("a flow");
        let frame = flow.frame(moment).expect("a frame");
        let bytes = unhex(&frame.hex).expect("digits");
        let headers = PacketHeaders::from_ethernet_slice(&bytes).expect("a packet");
        let ends = match headers.net.expect("an IP header") {
            etherparse::NetHeaders::Ipv4(ip, _) => format!("{:?} {:?}", ip.source, ip.destination),
            etherparse::NetHeaders::Ipv6(ip, _) => format!("{} {}", ip.source_addr(), ip.destination_addr()),
            other @ etherparse::NetHeaders::Arp(_) => panic!("{other:?}"),
        };
        (headers.transport.expect("a transport header"), ends)
    }

    #[test]
    fn a_flow_is_the_packet_that_etherparse_reads() {
        let (TransportHeader::Tcp(tcp), ends) = read("198.51.100.7:40000,192.0.2.1:443", Moment::Open) else {
            panic!()
        };
        assert_eq!((tcp.source_port, tcp.destination_port, tcp.syn, tcp.ack), (40000, 443, false, true));
        assert_eq!(ends, "[198, 51, 100, 7] [192, 0, 2, 1]");
        let (TransportHeader::Tcp(tcp), ends) = read("tcp,[2001:db8::7]:1,[2001:db8::1]:443", Moment::Opening) else {
            panic!()
        };
        assert_eq!((tcp.source_port, tcp.destination_port, tcp.syn, tcp.ack), (1, 443, true, false));
        assert_eq!(ends, "2001:db8::7 2001:db8::1");
        let (TransportHeader::Udp(udp), _) = read("udp, 198.51.100.7:40000, 192.0.2.1:443", Moment::Open) else {
            panic!()
        };
        assert_eq!((udp.source_port, udp.destination_port, udp.length), (40000, 443, 8));
    }

    #[test]
    fn what_is_no_flow_is_refused() {
        for text in [
            "",
            "192.0.2.1:443",
            "198.51.100.7,192.0.2.1:443",
            "sctp,198.51.100.7:1,192.0.2.1:443",
            "2001:db8::7:1,[::1]:2",
        ] {
            assert!(text.parse::<Flow>().is_err_and(|error| error.contains("write it like")), "{text}");
        }
        let mixed = "[2001:db8::7]:1,192.0.2.1:443".parse::<Flow>();
        assert!(mixed.is_err_and(|error| error.contains("one end is IPv4")));
    }
}
