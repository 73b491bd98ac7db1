//! The answer to a join that no way knows, where the pool's policy is `reset`: RST with `MP_TCPRST` (RFC 8684, 3.6), as a
//! server without the connection would send it.
//!
//! It is as long as it must be and shorter than the SYN that it answers, so that nobody is amplified.

use crate::{
    packet::Packet,
    wire::{
        ethernet,
        ip::{self, Header},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        tcp::{self, Tcp},
    },
};

const OPTION_LEN: usize = 4;
/// Subtype 8, not transient, reason 1: "MPTCP-specific error".
const MP_TCPRST: [u8; OPTION_LEN] = [30, 4, 0x80, 1];
const SEGMENT: usize = tcp::HEADER_LEN + OPTION_LEN;
const DATA_OFFSET: u8 = 6;
const _: () = assert!(SEGMENT == DATA_OFFSET as usize * 4);
const RST_ACK: u8 = 0x14;
const HOP_LIMIT: u8 = 64;

/// Bytes of the answer over IPv4.
pub const RESET_V4: usize = ethernet::HEADER_LEN + ipv4::HEADER_LEN + SEGMENT;
/// Bytes of the answer over IPv6.
pub const RESET_V6: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN + SEGMENT;

/// What an answer takes from the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syn<A> {
    source: A,
    destination: A,
    source_port: u16,
    destination_port: u16,
    /// The first sequence number after the SYN and its data.
    end: u32,
}

/// A SYN of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnySyn {
    /// Over IPv4.
    V4(Syn<[u8; 4]>),
    /// Over IPv6.
    V6(Syn<[u8; 16]>),
}

/// Reads a SYN without VLAN tags; nothing where the frame is not one.
#[inline(always)]
pub fn read<P: Packet>(packet: &P) -> Option<AnySyn> {
    let frame = ethernet::parse(packet).ok()?;
    match frame.ethertype {
        ethernet::IPV4 => {
            let header = Ipv4::load(packet, frame.payload).ok()?;
            read_behind(packet, &header, header.source(), header.destination()).map(AnySyn::V4)
        }
        ethernet::IPV6 => {
            let header = Ipv6::load(packet, frame.payload).ok()?;
            read_behind(packet, &header, header.source(), header.destination()).map(AnySyn::V6)
        }
        _ => None,
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a payload has 16 bits")]
fn read_behind<P: Packet, H: Header, A>(packet: &P, header: &H, source: A, destination: A) -> Option<Syn<A>> {
    let ip = header.check(packet).ok()?;
    let tcp = Tcp::parse(packet, &ip).ok()?;
    if !tcp.opens() {
        return None;
    }
    Some(Syn {
        source,
        destination,
        source_port: tcp.source_port,
        destination_port: tcp.destination_port,
        end: tcp.sequence.wrapping_add(1).wrapping_add(tcp.payload_len as u32),
    })
}

/// Turns the first bytes of a SYN over IPv4 into the answer to it, to be sent back by the interface that it came from.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "constants far below 16 bits")]
pub fn write_v4(bytes: &mut [u8; RESET_V4], syn: &Syn<[u8; 4]>) {
    const LEN: u16 = (ipv4::HEADER_LEN + SEGMENT) as u16;
    swap_macs(bytes);
    bytes[ethernet::HEADER_LEN..].fill(0);
    bytes[14] = 0x45;
    [bytes[16], bytes[17]] = LEN.to_be_bytes();
    bytes[20] = 0x40;
    bytes[22] = HOP_LIMIT;
    bytes[23] = ip::TCP;
    bytes[26..30].copy_from_slice(&syn.destination);
    bytes[30..34].copy_from_slice(&syn.source);
    [bytes[24], bytes[25]] = checksum(sum::<10>(bytes, 14));
    write_segment(bytes, 34, syn);
    let pseudo = sum::<4>(bytes, 26) + u32::from(ip::TCP) + SEGMENT as u32;
    [bytes[50], bytes[51]] = checksum(pseudo + sum::<12>(bytes, 34));
}

/// Likewise over IPv6.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "constants far below 16 bits")]
pub fn write_v6(bytes: &mut [u8; RESET_V6], syn: &Syn<[u8; 16]>) {
    swap_macs(bytes);
    bytes[ethernet::HEADER_LEN..].fill(0);
    bytes[14] = 0x60;
    [bytes[18], bytes[19]] = (SEGMENT as u16).to_be_bytes();
    bytes[20] = ip::TCP;
    bytes[21] = HOP_LIMIT;
    bytes[22..38].copy_from_slice(&syn.destination);
    bytes[38..54].copy_from_slice(&syn.source);
    write_segment(bytes, 54, syn);
    let pseudo = sum::<16>(bytes, 22) + u32::from(ip::TCP) + SEGMENT as u32;
    [bytes[70], bytes[71]] = checksum(pseudo + sum::<12>(bytes, 54));
}

#[inline(always)]
fn swap_macs(bytes: &mut [u8]) {
    for i in 0..6 {
        bytes.swap(i, i + 6);
    }
}

/// The segment with a zero checksum: sequence number 0, all of the SYN acknowledged (RFC 9293, 3.10.7.1).
#[inline(always)]
fn write_segment<A>(bytes: &mut [u8], at: usize, syn: &Syn<A>) {
    bytes[at..at + 2].copy_from_slice(&syn.destination_port.to_be_bytes());
    bytes[at + 2..at + 4].copy_from_slice(&syn.source_port.to_be_bytes());
    bytes[at + 8..at + 12].copy_from_slice(&syn.end.to_be_bytes());
    bytes[at + 12] = DATA_OFFSET << 4;
    bytes[at + 13] = RST_ACK;
    bytes[at + 20..at + 24].copy_from_slice(&MP_TCPRST);
}

/// The sum of `WORDS` big-endian words.
#[inline(always)]
fn sum<const WORDS: usize>(bytes: &[u8], at: usize) -> u32 {
    (0..WORDS).map(|i| u32::from(u16::from_be_bytes([bytes[at + 2 * i], bytes[at + 2 * i + 1]]))).sum()
}

/// RFC 1071.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "folded twice")]
const fn checksum(sum: u32) -> [u8; 2] {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    const JOIN: [u8; 12] = [30, 12, 0x10, 2, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];

    fn check(reset: &[u8], sequence: u32) {
        let packet = SlicedPacket::from_ethernet(reset).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("no TCP") };
        let expected = match packet.net.unwrap() {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                assert_eq!(header.header_checksum, header.calc_header_checksum());
                assert_eq!((header.source, header.destination), ([192, 0, 2, 9], [192, 0, 2, 1]));
                tcp.calc_checksum_ipv4(header.source, header.destination).unwrap()
            }
            NetSlice::Ipv6(ip) => {
                assert_eq!((ip.header().source(), ip.header().destination()), ([9; 16], [1; 16]));
                tcp.calc_checksum_ipv6(ip.header().source(), ip.header().destination()).unwrap()
            }
            NetSlice::Arp(_) => panic!("ARP"),
        };
        assert_eq!(tcp.checksum(), expected);
        assert_eq!((tcp.source_port(), tcp.destination_port()), (443, 5000));
        assert!(tcp.rst() && tcp.ack() && !tcp.syn());
        assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (0, sequence.wrapping_add(1)));
        assert_eq!(tcp.options(), MP_TCPRST);
        assert!(tcp.payload().is_empty());
        let link = packet.link.unwrap().to_header().unwrap().ethernet2().unwrap();
        assert_eq!((link.source, link.destination), ([2; 6], [1; 6]));
    }

    proptest::proptest! {
        #[test]
        fn a_join_is_reset(sequence: u32) {
            let builder = |builder: etherparse::PacketBuilderStep<etherparse::IpHeaders>| {
                let mut frame = Vec::new();
                let builder = builder.tcp(5000, 443, sequence, 100).syn().options_raw(&JOIN).unwrap();
                builder.write(&mut frame, &[]).unwrap();
                frame
            };
            let frame = builder(PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 9], 7));
            let Some(AnySyn::V4(syn)) = read(&frame.as_slice()) else { panic!("no SYN") };
            let mut reset = *frame.first_chunk::<RESET_V4>().unwrap();
            write_v4(&mut reset, &syn);
            proptest::prop_assert!(reset.len() < frame.len());
            check(&reset, sequence);
            let frame = builder(PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6([1; 16], [9; 16], 7));
            let Some(AnySyn::V6(syn)) = read(&frame.as_slice()) else { panic!("no SYN") };
            let mut reset = *frame.first_chunk::<RESET_V6>().unwrap();
            write_v6(&mut reset, &syn);
            proptest::prop_assert!(reset.len() < frame.len());
            check(&reset, sequence);
        }
    }

    #[test]
    fn only_a_syn_is_answered() {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 9], 7);
        builder.tcp(5000, 443, 1, 100).ack(1).write(&mut frame, &[]).unwrap();
        assert_eq!(read(&frame.as_slice()), None);
    }
}
