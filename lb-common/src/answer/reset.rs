//! The answer to a join that no way knows, where the pool's policy is `reset`: RST with `MP_TCPRST` (RFC 8684, 3.6), as a
//! server without the connection would send it.
//!
//! It is as long as it must be and shorter than the SYN that it answers, so that nobody is amplified.

use crate::{
    packet::{Frame, Packet},
    wire::{
        checksum::{self, sum},
        ethernet::{self, HEADER_LEN},
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
const RESET_V4: usize = HEADER_LEN + ipv4::HEADER_LEN + SEGMENT;
/// Bytes of the answer over IPv6.
const RESET_V6: usize = HEADER_LEN + ipv6::HEADER_LEN + SEGMENT;

/// What an answer takes from the SYN.
struct Syn<A> {
    source: A,
    destination: A,
    source_port: u16,
    destination_port: u16,
    /// The first sequence number after the SYN and its data.
    end: u32,
}

/// Makes an untagged SYN into the reset that answers it. Nothing where it is no SYN.
#[inline(always)]
pub(super) fn write<F: Frame>(frame: &mut F) -> Option<()> {
    match ethernet::parse(frame).ok()?.ethertype {
        ethernet::IPV4 => {
            let syn = Syn::read(frame, &Ipv4::load(frame, HEADER_LEN).ok()?)?;
            write_v4(room::<RESET_V4, F>(frame)?, &syn);
        }
        ethernet::IPV6 => {
            let syn = Syn::read(frame, &Ipv6::load(frame, HEADER_LEN).ok()?)?;
            write_v6(room::<RESET_V6, F>(frame)?, &syn);
        }
        _ => return None,
    }
    Some(())
}

/// Cuts the frame to `N` bytes and hands all of them out.
#[inline(always)]
fn room<const N: usize, F: Frame>(frame: &mut F) -> Option<&mut [u8; N]> {
    if frame.cut_to(N) { frame.place(0) } else { None }
}

impl<A> Syn<A> {
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "a payload has 16 bits")]
    fn read<P: Packet, H: Header<Address = A>>(packet: &P, header: &H) -> Option<Self> {
        let ip = header.outline(packet).ok()?;
        let tcp = Tcp::parse(packet, &ip).ok()?;
        if !tcp.opens() {
            return None;
        }
        Some(Self {
            source: header.source(),
            destination: header.destination(),
            source_port: tcp.source_port,
            destination_port: tcp.destination_port,
            end: tcp.sequence.wrapping_add(1).wrapping_add(tcp.payload_len as u32),
        })
    }
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "constants far below 16 bits")]
fn write_v4(bytes: &mut [u8; RESET_V4], syn: &Syn<[u8; 4]>) {
    const LEN: u16 = (ipv4::HEADER_LEN + SEGMENT) as u16;
    bytes[HEADER_LEN..].fill(0);
    bytes[14] = 0x45;
    [bytes[16], bytes[17]] = LEN.to_be_bytes();
    bytes[20] = 0x40;
    bytes[22] = HOP_LIMIT;
    bytes[23] = ip::TCP;
    bytes[26..30].copy_from_slice(&syn.destination);
    bytes[30..34].copy_from_slice(&syn.source);
    [bytes[24], bytes[25]] = checksum::finish(sum::<10>(bytes, 14));
    write_segment(bytes, 34, syn);
    let pseudo = sum::<4>(bytes, 26) + u32::from(ip::TCP) + SEGMENT as u32;
    [bytes[50], bytes[51]] = checksum::finish(pseudo + sum::<12>(bytes, 34));
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "constants far below 16 bits")]
fn write_v6(bytes: &mut [u8; RESET_V6], syn: &Syn<[u8; 16]>) {
    bytes[HEADER_LEN..].fill(0);
    bytes[14] = 0x60;
    [bytes[18], bytes[19]] = (SEGMENT as u16).to_be_bytes();
    bytes[20] = ip::TCP;
    bytes[21] = HOP_LIMIT;
    bytes[22..38].copy_from_slice(&syn.destination);
    bytes[38..54].copy_from_slice(&syn.source);
    write_segment(bytes, 54, syn);
    let pseudo = sum::<16>(bytes, 22) + u32::from(ip::TCP) + SEGMENT as u32;
    [bytes[70], bytes[71]] = checksum::finish(pseudo + sum::<12>(bytes, 54));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{answer::answer, host::HostFrame, reason::Reason};
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    const JOIN: [u8; 12] = [30, 12, 0x10, 2, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];

    fn answered(frame: &[u8]) -> Option<Vec<u8>> {
        let mut frame = HostFrame::new(frame);
        answer(&mut frame, Reason::JoinUnknownReset, 0)?;
        Some(frame.bytes().to_vec())
    }

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
            let reset = answered(&frame).unwrap();
            proptest::prop_assert!(reset.len() < frame.len());
            check(&reset, sequence);
            let frame = builder(PacketBuilder::ethernet2([1; 6], [2; 6]).ipv6([1; 16], [9; 16], 7));
            let reset = answered(&frame).unwrap();
            proptest::prop_assert!(reset.len() < frame.len());
            check(&reset, sequence);
        }
    }

    #[test]
    fn only_a_syn_is_answered() {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([192, 0, 2, 1], [192, 0, 2, 9], 7);
        builder.tcp(5000, 443, 1, 100).ack(1).write(&mut frame, &[]).unwrap();
        assert_eq!(answered(&frame), None);
    }
}
