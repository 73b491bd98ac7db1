//! IPv4 (RFC 791), options included: they are stepped over, never read.

use super::{
    WireError,
    ip::{self, Family, Fragment, Header, Ip},
};
use crate::packet::Packet;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

/// The fixed part of a header, loaded but not yet believed.
#[derive(Clone, Copy)]
pub struct Ipv4 {
    at: usize,
    bytes: [u8; HEADER_LEN],
}

impl Ipv4 {
    #[inline(always)]
    const fn fragment(&self) -> Fragment {
        match u16::from_be_bytes([self.bytes[6], self.bytes[7]]) & 0x3fff {
            0 => Fragment::Whole,
            0x2000 => Fragment::First,
            _ => Fragment::Later,
        }
    }
}

impl Header for Ipv4 {
    type Address = [u8; 4];

    #[inline(always)]
    fn load<P: Packet>(packet: &P, at: usize) -> Result<Self, WireError> {
        let bytes = packet.load(at).ok_or(WireError::Truncated)?;
        Ok(Self { at, bytes })
    }

    #[inline(always)]
    fn source(&self) -> [u8; 4] {
        let b = &self.bytes;
        [b[12], b[13], b[14], b[15]]
    }

    #[inline(always)]
    fn destination(&self) -> [u8; 4] {
        let b = &self.bytes;
        [b[16], b[17], b[18], b[19]]
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        let b = &self.bytes;
        b[0] == 0x45 && self.fragment() == Fragment::Whole && matches!(b[9], ip::TCP | ip::UDP)
    }

    #[inline(always)]
    fn is_icmp(&self) -> bool {
        self.bytes[9] == ip::ICMP
    }

    #[inline(always)]
    fn outline<P: Packet>(&self, _packet: &P) -> Result<Ip, WireError> {
        let b = &self.bytes;
        let header_len = usize::from(b[0] & 0x0f) * 4;
        let len = usize::from(u16::from_be_bytes([b[2], b[3]]));
        if b[0] >> 4 != 4 || header_len < HEADER_LEN || len < header_len {
            return Err(WireError::Malformed);
        }
        Ok(Ip {
            family: Family::V4,
            header: self.at,
            payload: self.at + header_len,
            len,
            protocol: b[9],
            traffic_class: b[1],
            datagram: u32::from(u16::from_be_bytes([b[4], b[5]])),
            fragment: self.fragment(),
        })
    }

    #[inline(always)]
    fn check<P: Packet>(&self, packet: &P) -> Result<Ip, WireError> {
        let ip = self.outline(packet)?;
        if packet.holds(ip.end()) { Ok(ip) } else { Err(WireError::Malformed) }
    }
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    fn header(options: usize, payload: usize) -> Vec<u8> {
        let options = etherparse::Ipv4Options::try_from(vec![1; options].as_slice()).unwrap();
        let header = etherparse::Ipv4Header {
            total_len: (20 + options.len() + payload) as u16,
            protocol: etherparse::IpNumber::TCP,
            source: [192, 0, 2, 1],
            destination: [198, 51, 100, 2],
            options,
            ..Default::default()
        };
        let mut bytes = header.to_bytes().to_vec();
        bytes.resize(bytes.len() + payload, 0);
        bytes
    }

    fn check(bytes: &[u8]) -> Result<Ip, WireError> {
        Ipv4::load(&bytes, 0)?.check(&bytes)
    }

    #[test]
    fn deconstruct() {
        for options in (0..=40).step_by(4) {
            let bytes = header(options, 8);
            let ip = check(&bytes).unwrap();
            assert_eq!((ip.payload, ip.len, ip.end()), (20 + options, 28 + options, 28 + options));
            assert_eq!((ip.protocol, ip.fragment), (6, Fragment::Whole));
        }
        let bytes = header(0, 0);
        let ipv4 = Ipv4::load(&bytes.as_slice(), 0).ok().unwrap();
        assert_eq!((ipv4.source(), ipv4.destination()), ([192, 0, 2, 1], [198, 51, 100, 2]));
    }

    #[test]
    fn fragments() {
        let mut bytes = header(0, 8);
        bytes[4..6].copy_from_slice(&[0x12, 0x34]);
        for (field, fragment) in [
            (0x4000_u16, Fragment::Whole),
            (0x8000, Fragment::Whole),
            (0x2000, Fragment::First),
            (0x2001, Fragment::Later),
            (0x0001, Fragment::Later),
            (0x1fff, Fragment::Later),
        ] {
            bytes[6..8].copy_from_slice(&field.to_be_bytes());
            let ip = check(&bytes).unwrap();
            assert_eq!((ip.fragment, ip.datagram), (fragment, 0x1234), "{field:#06x}");
        }
    }

    #[test]
    fn truncated() {
        let bytes = header(0, 0);
        for len in 0..20 {
            assert_eq!(check(&bytes[..len]), Err(WireError::Truncated));
        }
    }

    #[test]
    fn malformed() {
        for (at, value) in [(0, 0x65), (0, 0x44), (0, 0x4f), (3, 19), (3, 29)] {
            let mut bytes = header(0, 8);
            bytes[at] = value;
            assert_eq!(check(&bytes), Err(WireError::Malformed), "byte {at} = {value:#x}");
        }
    }

    #[test]
    fn trailing_padding_is_no_part_of_the_packet() {
        let mut bytes = header(0, 8);
        bytes.resize(46, 0);
        assert_eq!(check(&bytes).unwrap().end(), 28);
    }
}
