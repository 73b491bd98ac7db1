//! TCP (RFC 9293): the fixed header. Its options are walked by [`crate::mptcp::options`].

use super::{WireError, ip::Ip};
use crate::packet::Packet;

/// Bytes of a header without options.
pub const HEADER_LEN: usize = 20;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A TCP header whose options lie within the packet. In C's order, as [`Ip`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Tcp {
    /// Where the options start, in bytes from the start of the frame.
    pub options: usize,
    /// Bytes of options, 0 to 40.
    pub options_len: usize,
    /// Bytes after the options.
    pub payload_len: usize,
    /// The sequence number of the first byte.
    pub sequence: u32,
    /// The acknowledged sequence number; means nothing without ACK.
    pub acknowledgment: u32,
    /// The client's port.
    pub source_port: u16,
    /// The port of the service.
    pub destination_port: u16,
    flags: u8,
}

impl Tcp {
    /// What is no header.
    pub const NONE: Self = Self {
        source_port: 0,
        destination_port: 0,
        sequence: 0,
        acknowledgment: 0,
        flags: 0,
        options: 0,
        options_len: 0,
        payload_len: 0,
    };

    /// Reads the header of the packet behind `ip`.
    ///
    /// # Errors
    /// `Truncated` where the packet (in XDP: its linear head) ends within the header, `Malformed` for a data offset below 5 or beyond the
    /// packet.
    #[inline(always)]
    pub fn parse<P: Packet>(packet: &P, ip: &Ip) -> Result<Self, WireError> {
        let b: [u8; HEADER_LEN] = packet.load(ip.payload).ok_or(WireError::Truncated)?;
        let header_len = usize::from(b[12] >> 4) * 4;
        if ip.payload + HEADER_LEN > ip.end() {
            return Err(WireError::Truncated);
        }
        if header_len < HEADER_LEN || ip.payload + header_len > ip.end() {
            return Err(WireError::Malformed);
        }
        // Options beyond the linear head may be a join's: who cannot read them must not guess.
        let _: [u8; 1] = packet.load(ip.payload + header_len - 1).ok_or(WireError::Truncated)?;
        Ok(Self {
            source_port: u16::from_be_bytes([b[0], b[1]]),
            destination_port: u16::from_be_bytes([b[2], b[3]]),
            sequence: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
            acknowledgment: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
            flags: b[13],
            options: ip.payload + HEADER_LEN,
            options_len: header_len - HEADER_LEN,
            payload_len: ip.end() - ip.payload - header_len,
        })
    }

    /// SYN without ACK and RST: a client opens.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST) == SYN
    }

    /// SYN in any company.
    #[inline(always)]
    pub const fn is_syn(&self) -> bool {
        self.flags & SYN != 0
    }

    /// ACK without SYN and RST: a client goes on.
    #[inline(always)]
    pub const fn acknowledges(&self) -> bool {
        self.flags & (SYN | ACK | RST) == ACK
    }

    /// ACK in any company.
    #[inline(always)]
    pub const fn is_ack(&self) -> bool {
        self.flags & ACK != 0
    }

    /// FIN or RST: this side of the flow ends.
    #[inline(always)]
    pub const fn closes(&self) -> bool {
        self.flags & (FIN | RST) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ethernet, ip::Header as _, ipv4::Ipv4};

    fn packet(options: &[u8], payload: usize) -> Vec<u8> {
        let builder = etherparse::PacketBuilder::ethernet2([0; 6], [0; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(1234, 80, 77, 512)
            .ack(99)
            .options_raw(options)
            .unwrap();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &vec![0; payload]).unwrap();
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Tcp, WireError> {
        let ip = Ipv4::load(&bytes, ethernet::HEADER_LEN)?.check(&bytes)?;
        Tcp::parse(&bytes, &ip)
    }

    #[test]
    fn deconstruct() {
        for options in (0..=40).step_by(4) {
            let tcp = parse(&packet(&vec![1; options], 5)).unwrap();
            assert_eq!((tcp.source_port, tcp.destination_port), (1234, 80));
            assert_eq!((tcp.sequence, tcp.acknowledgment), (77, 99));
            assert_eq!((tcp.options, tcp.options_len, tcp.payload_len), (54, options, 5));
        }
    }

    #[test]
    fn flags() {
        let tcp = |flags| Tcp { flags, ..parse(&packet(&[], 0)).unwrap() };
        assert!(tcp(SYN).opens() && !tcp(SYN | ACK).opens() && !tcp(SYN | RST).opens());
        assert!(tcp(ACK | FIN).acknowledges() && !tcp(ACK | RST).acknowledges() && !tcp(0).acknowledges());
        assert!(tcp(RST).closes() && tcp(FIN | ACK).closes() && !tcp(ACK).closes());
    }

    #[test]
    fn impossible_len() {
        for words in [0_u8, 4, 6, 15] {
            let mut bytes = packet(&[], 0);
            bytes[46] = words << 4;
            assert_eq!(parse(&bytes), Err(WireError::Malformed), "{words} words");
        }
    }

    #[test]
    fn truncated_by_the_ip_header() {
        let mut bytes = packet(&[], 0);
        bytes[16..18].copy_from_slice(&39_u16.to_be_bytes());
        assert_eq!(parse(&bytes), Err(WireError::Truncated));
    }
}
