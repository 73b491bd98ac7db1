//! What a frame is, in words: addresses, flags, MPTCP options. A key is told nowhere; a token is, for it is asked for.

use lb_common::{
    ids::Token,
    mptcp::{Options, token},
    packet::Packet as _,
    wire::{
        ethernet,
        ip::{self, Address, Header as _, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
        tcp::Tcp,
        udp::Udp,
    },
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a frame carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    /// In a line.
    pub what: String,
    /// Where it comes from.
    pub source: Option<Address>,
    /// The token of a joining SYN, or that of the server's key in a third packet.
    pub token: Option<Token>,
}

/// Reads a frame.
pub(super) fn read(frame: &[u8]) -> Read {
    let Ok(link) = ethernet::parse(&frame) else { return words("no whole Ethernet header") };
    let at = link.payload;
    match link.ethertype {
        ethernet::IPV4 => match Ipv4::load(&frame, at).map(|header| (addresses_v4(frame, at), header.check(&frame))) {
            Ok((Some(ends), Ok(ip))) => read_ip(frame, &ip, ends),
            _ => words("a damaged IPv4 packet"),
        },
        ethernet::IPV6 => match Ipv6::load(&frame, at).map(|header| (addresses_v6(frame, at), header.check(&frame))) {
            Ok((Some(ends), Ok(ip))) => read_ip(frame, &ip, ends),
            _ => words("a damaged IPv6 packet"),
        },
        other => words(&format!("no IP packet (EtherType 0x{other:04x})")),
    }
}

fn words(what: &str) -> Read {
    Read { what: what.to_owned(), ..Read::default() }
}

fn addresses_v4(frame: &[u8], at: usize) -> Option<[IpAddr; 2]> {
    let address = |offset| frame.get(offset..)?.first_chunk::<4>().map(|&bytes| Ipv4Addr::from(bytes).into());
    Some([address(at + 12)?, address(at + 16)?])
}

fn addresses_v6(frame: &[u8], at: usize) -> Option<[IpAddr; 2]> {
    let address = |offset| frame.get(offset..)?.first_chunk::<16>().map(|&bytes| Ipv6Addr::from(bytes).into());
    Some([address(at + 8)?, address(at + 24)?])
}

fn read_ip(frame: &[u8], ip: &Ip, ends: [IpAddr; 2]) -> Read {
    Read { source: Some(ends[0].into()), ..read_transport(frame, ip, ends) }
}

fn read_transport(frame: &[u8], ip: &Ip, [from, to]: [IpAddr; 2]) -> Read {
    if ip.fragment == ip::Fragment::Later {
        return words(&format!("{from} > {to}  a later piece of a datagram"));
    }
    match ip.protocol {
        ip::TCP => match Tcp::parse(&frame, ip) {
            Ok(tcp) => {
                let (from, to) = (SocketAddr::new(from, tcp.source_port), SocketAddr::new(to, tcp.destination_port));
                let (options, token) = options(frame, &tcp);
                let flags = flags(frame, ip);
                Read {
                    what: format!("{from} > {to}  TCP {flags}{options}{}", data(tcp.payload_len)),
                    source: None,
                    token,
                }
            }
            Err(_) => words(&format!("{from} > {to}  a damaged TCP segment")),
        },
        ip::UDP => match Udp::parse(&frame, ip) {
            Ok(udp) => {
                let (from, to) = (SocketAddr::new(from, udp.source_port), SocketAddr::new(to, udp.destination_port));
                words(&format!("{from} > {to}  UDP"))
            }
            Err(_) => words(&format!("{from} > {to}  a damaged UDP datagram")),
        },
        ip::ICMP | ip::ICMPV6 => words(&format!("{from} > {to}  ICMP")),
        other => words(&format!("{from} > {to}  IP protocol {other}")),
    }
}

fn data(len: usize) -> String {
    if len > 0 { format!(", {len} bytes of data") } else { String::new() }
}

fn flags(frame: &[u8], ip: &Ip) -> String {
    let bits = frame.get(ip.payload + 13).copied().unwrap_or_default();
    let names = [(0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK"), (0x20, "URG")];
    let set: Vec<_> = names.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "without flags".to_owned() } else { set.join(" ") }
}

fn options(frame: &[u8], tcp: &Tcp) -> (String, Option<Token>) {
    let Options { capable, join } = frame.mptcp_options(tcp);
    let mut told = String::new();
    let mut token = None;
    if let Some(capable) = capable {
        told.push_str(", MP_CAPABLE");
        let keys = capable.accepted(tcp.payload_len).filter(|_| tcp.acknowledges());
        if let Some((version, (_, server))) = keys.and_then(|version| Some((version, capable.keys(&frame, tcp)?))) {
            token = Some(token::derive(version, server));
            told.push_str(" with both keys");
        }
    }
    if let Some(join) = join {
        told.push_str(", MP_JOIN");
        if tcp.opens() {
            token = join.token(&frame, tcp);
        }
    }
    if let Some(token) = token {
        told.push_str(" (token ");
        told.push_str(&token.to_string());
        told.push(')');
    }
    (told, token)
}
