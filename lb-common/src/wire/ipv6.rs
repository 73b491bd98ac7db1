//! IPv6 (RFC 8200) and the extension headers that may stand before the transport header.

use super::{
    WireError,
    ip::{self, Family, Fragment, Header, Ip},
};
use crate::{limits::IPV6_EXTENSIONS_MAX, packet::Packet};

/// Bytes of the fixed header.
pub const HEADER_LEN: usize = 40;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The fixed header, loaded but not yet believed.
#[derive(Clone, Copy)]
pub struct Ipv6 {
    at: usize,
    bytes: [u8; HEADER_LEN],
}

impl Ipv6 {
    #[inline(always)]
    const fn address(&self, at: usize) -> [u8; 16] {
        let mut address = [0; 16];
        let mut i = 0;
        while i < 16 {
            address[i] = self.bytes[at + i];
            i += 1;
        }
        address
    }
}

impl Header for Ipv6 {
    type Address = [u8; 16];

    #[inline(always)]
    fn load<P: Packet>(packet: &P, at: usize) -> Result<Self, WireError> {
        let bytes = packet.load(at).ok_or(WireError::Truncated)?;
        Ok(Self { at, bytes })
    }

    #[inline(always)]
    fn source(&self) -> [u8; 16] {
        self.address(8)
    }

    #[inline(always)]
    fn destination(&self) -> [u8; 16] {
        self.address(24)
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.bytes[0] >> 4 == 6 && matches!(self.bytes[6], ip::TCP | ip::UDP)
    }

    #[inline(always)]
    fn is_icmp(&self) -> bool {
        self.bytes[6] == ip::ICMPV6
    }

    #[inline(always)]
    fn outline<P: Packet>(&self, packet: &P) -> Result<Ip, WireError> {
        let b = &self.bytes;
        if b[0] >> 4 != 6 {
            return Err(WireError::Malformed);
        }
        let ip = Ip {
            family: Family::V6,
            header: self.at,
            payload: self.at + HEADER_LEN,
            len: HEADER_LEN + usize::from(u16::from_be_bytes([b[4], b[5]])),
            protocol: b[6],
            traffic_class: b[0] << 4 | b[1] >> 4,
            datagram: 0,
            fragment: Fragment::Whole,
        };
        if is_extension(ip.protocol) { skip_extensions(packet, ip) } else { Ok(ip) }
    }

    #[inline(always)]
    fn check<P: Packet>(&self, packet: &P) -> Result<Ip, WireError> {
        let b = &self.bytes;
        let len = HEADER_LEN + usize::from(u16::from_be_bytes([b[4], b[5]]));
        if packet.holds(self.at + len) { self.outline(packet) } else { Err(WireError::Malformed) }
    }
}

const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

#[inline(always)]
fn skip_extensions<P: Packet>(packet: &P, mut ip: Ip) -> Result<Ip, WireError> {
    for _ in 0..IPV6_EXTENSIONS_MAX {
        let header: [u8; 4] = packet.load(ip.payload).ok_or(WireError::Truncated)?;
        if ip.protocol == FRAGMENT {
            ip.datagram = packet.load(ip.payload + 4).map(u32::from_be_bytes).ok_or(WireError::Truncated)?;
            ip.payload += 8;
            match u16::from_be_bytes([header[2], header[3]]) & 0xfff9 {
                0 => {}
                1 => ip.fragment = Fragment::First,
                _ => return Ok(Ip { protocol: header[0], fragment: Fragment::Later, ..ip }),
            }
        } else {
            ip.payload += (usize::from(header[1]) + 1) * 8;
        }
        ip.protocol = header[0];
        if ip.payload > ip.end() {
            return Err(WireError::Malformed);
        }
        if !is_extension(ip.protocol) {
            return Ok(ip);
        }
    }
    Err(WireError::TooDeep)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    fn packet(first: u8, extensions: &[u8]) -> Vec<u8> {
        let header = etherparse::Ipv6Header {
            traffic_class: 0xab,
            payload_length: (extensions.len() + 20) as u16,
            next_header: first.into(),
            source: [1; 16],
            destination: [2; 16],
            ..Default::default()
        };
        [&header.to_bytes()[..], extensions, &[0; 20]].concat()
    }

    fn check(bytes: &[u8]) -> Result<Ip, WireError> {
        Ipv6::load(&bytes, 0)?.check(&bytes)
    }

    #[test]
    fn deconstruct() {
        let bytes = packet(6, &[]);
        let ip = check(&bytes).unwrap();
        assert_eq!((ip.payload, ip.len, ip.protocol, ip.traffic_class), (40, 60, 6, 0xab));
        let ipv6 = Ipv6::load(&bytes.as_slice(), 0).ok().unwrap();
        assert_eq!((ipv6.source(), ipv6.destination()), ([1; 16], [2; 16]));
    }

    #[test]
    fn extensions() {
        let hop_by_hop = [60, 0, 1, 4, 0, 0, 0, 0];
        let destination = [43, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let routing = [44, 0, 4, 0, 0, 0, 0, 0];
        let atomic = [6, 0, 0, 0, 0, 0, 0, 7];
        let bytes = packet(0, &[&hop_by_hop[..], &destination, &routing, &atomic].concat());
        let ip = check(&bytes).unwrap();
        assert_eq!((ip.payload, ip.protocol, ip.fragment), (80, 6, Fragment::Whole));
    }

    #[test]
    fn fragments() {
        for (field, fragment) in
            [(1_u16, Fragment::First), (8, Fragment::Later), (9, Fragment::Later), (6, Fragment::Whole)]
        {
            let [high, low] = field.to_be_bytes();
            let bytes = packet(44, &[6, 0, high, low, 0, 0, 0, 7]);
            let ip = check(&bytes).unwrap();
            assert_eq!((ip.fragment, ip.datagram, ip.protocol, ip.payload), (fragment, 7, 6, 48), "{field}");
        }
    }

    #[test]
    fn truncated() {
        let bytes = packet(6, &[]);
        for len in 0..40 {
            assert_eq!(check(&bytes[..len]), Err(WireError::Truncated));
        }
    }

    #[test]
    fn malformed() {
        let mut bytes = packet(6, &[]);
        bytes[0] = 0x45;
        assert_eq!(check(&bytes), Err(WireError::Malformed));
        let bytes = packet(6, &[]);
        assert_eq!(check(&bytes[..59]), Err(WireError::Malformed));
        let long_extension = packet(60, &[6, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(check(&long_extension), Err(WireError::Malformed));
    }

    #[test]
    fn too_deep() {
        let one = [60, 0, 1, 4, 0, 0, 0, 0];
        assert_eq!(check(&packet(60, &one.repeat(7))), Err(WireError::TooDeep));
    }
}
