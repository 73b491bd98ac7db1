//! UDP (RFC 768).

use super::{WireError, ip::Ip};
use crate::packet::Packet;

/// Bytes of the header.
pub const HEADER_LEN: usize = 8;

/// A UDP header that lies within the packet. In C's order, as [`Ip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Udp {
    /// Where the payload starts, in bytes from the start of the frame.
    pub payload: usize,
    /// The client's port.
    pub source_port: u16,
    /// The port of the service.
    pub destination_port: u16,
}

impl Udp {
    /// What is no header.
    pub const NONE: Self = Self { source_port: 0, destination_port: 0, payload: 0 };

    /// Reads the header of the packet behind `ip`.
    ///
    /// # Errors
    /// `Truncated` where the packet ends within the header, `Malformed` for a length that does not hold the header or
    /// goes beyond an unfragmented packet.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, ip: &Ip) -> Result<Self, WireError> {
        let b: [u8; HEADER_LEN] = packet.load(ip.payload).ok_or(WireError::Truncated)?;
        if ip.payload + HEADER_LEN > ip.end() {
            return Err(WireError::Truncated);
        }
        let len = usize::from(u16::from_be_bytes([b[4], b[5]]));
        let beyond = ip.fragment == super::ip::Fragment::Whole && ip.payload + len > ip.end();
        if len < HEADER_LEN || beyond {
            return Err(WireError::Malformed);
        }
        Ok(Self {
            source_port: u16::from_be_bytes([b[0], b[1]]),
            destination_port: u16::from_be_bytes([b[2], b[3]]),
            payload: ip.payload + HEADER_LEN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ip::Header as _, ipv4::Ipv4};

    fn packet() -> Vec<u8> {
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .udp(1234, 53)
            .write(&mut bytes, b"query")
            .unwrap();
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Udp, WireError> {
        let ip = Ipv4::load(&bytes, 0)?.check(&bytes)?;
        Udp::parse(&bytes, &ip)
    }

    #[test]
    fn deconstruct() {
        assert_eq!(parse(&packet()), Ok(Udp { source_port: 1234, destination_port: 53, payload: 28 }));
    }

    #[test]
    fn malformed() {
        for len in [0, 7, 14] {
            let mut bytes = packet();
            bytes[25] = len;
            assert_eq!(parse(&bytes), Err(WireError::Malformed), "length {len}");
        }
    }
}
