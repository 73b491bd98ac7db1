//! "Your packet is too big for the path": ICMP's "fragmentation needed" (RFC 1191, 4) and `ICMPv6`'s "packet too big"
//! (RFC 4443, 3.2), from the VIP to the client. With it the client's kernel lowers its path MTU, so that the tunnel fits.

use crate::{
    packet::Frame,
    wire::{
        checksum,
        ethernet::{self, HEADER_LEN},
        icmp,
        ip::{self, Header as _},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
    },
};

/// Bytes of the packet that is quoted: its IP header with all options, its TCP header, and more.
const QUOTE: usize = 128;
const HOP_LIMIT: u8 = 64;
/// No link of IPv6 takes less (RFC 8200, 5).
const MTU_MIN_V6: u16 = 1280;

const MESSAGE: usize = icmp::HEADER_LEN + QUOTE;
const LEN_V4: usize = ipv4::HEADER_LEN + MESSAGE;
const LEN_V6: usize = ipv6::HEADER_LEN + MESSAGE;
const FRAME_V4: usize = HEADER_LEN + LEN_V4;
const FRAME_V6: usize = HEADER_LEN + LEN_V6;

/// Makes an untagged packet into the error about it. Nothing where it is shorter than what is quoted of it.
#[inline(always)]
pub(super) fn write<F: Frame>(frame: &mut F, path_mtu: u16) -> Option<()> {
    match ethernet::parse(frame).ok()?.ethertype {
        ethernet::IPV4 => {
            let header = Ipv4::load(frame, HEADER_LEN).ok()?;
            write_v4(room::<FRAME_V4, F>(frame)?, header.destination(), header.source(), path_mtu);
        }
        ethernet::IPV6 => {
            let header = Ipv6::load(frame, HEADER_LEN).ok()?;
            write_v6(room::<FRAME_V6, F>(frame)?, header.destination(), header.source(), path_mtu);
        }
        _ => return None,
    }
    Some(())
}

/// Cuts the packet to what is quoted of it, and makes the frame `N` bytes long in front of it.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "a constant far below")]
fn room<const N: usize, F: Frame>(frame: &mut F) -> Option<&mut [u8; N]> {
    let ethernet: [u8; HEADER_LEN] = frame.load(0)?;
    if !frame.cut_to(HEADER_LEN + QUOTE) || !frame.move_start((HEADER_LEN + QUOTE) as i32 - N as i32) {
        return None;
    }
    *frame.place(0)? = ethernet;
    frame.place(0)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "constants far below 16 bits")]
fn write_v4(bytes: &mut [u8; FRAME_V4], source: [u8; 4], destination: [u8; 4], path_mtu: u16) {
    bytes[14..42].fill(0);
    bytes[14] = 0x45;
    [bytes[16], bytes[17]] = (LEN_V4 as u16).to_be_bytes();
    bytes[22] = HOP_LIMIT;
    bytes[23] = ip::ICMP;
    bytes[26..30].copy_from_slice(&source);
    bytes[30..34].copy_from_slice(&destination);
    [bytes[24], bytes[25]] = checksum::finish(checksum::sum::<10>(bytes, 14));
    bytes[34] = icmp::UNREACHABLE;
    bytes[35] = icmp::FRAGMENTATION_NEEDED;
    [bytes[40], bytes[41]] = path_mtu.to_be_bytes();
    [bytes[36], bytes[37]] = checksum::finish(checksum::sum::<{ MESSAGE / 2 }>(bytes, 34));
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "constants far below 16 bits")]
fn write_v6(bytes: &mut [u8; FRAME_V6], source: [u8; 16], destination: [u8; 16], path_mtu: u16) {
    bytes[14..62].fill(0);
    bytes[14] = 0x60;
    [bytes[18], bytes[19]] = (MESSAGE as u16).to_be_bytes();
    bytes[20] = ip::ICMPV6;
    bytes[21] = HOP_LIMIT;
    bytes[22..38].copy_from_slice(&source);
    bytes[38..54].copy_from_slice(&destination);
    bytes[54] = icmp::PACKET_TOO_BIG_V6;
    let mtu = if path_mtu < MTU_MIN_V6 { MTU_MIN_V6 } else { path_mtu };
    [bytes[60], bytes[61]] = mtu.to_be_bytes();
    let pseudo = checksum::sum::<16>(bytes, 22) + u32::from(ip::ICMPV6) + MESSAGE as u32;
    [bytes[56], bytes[57]] = checksum::finish(pseudo + checksum::sum::<{ MESSAGE / 2 }>(bytes, 54));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{answer::answer, host::HostFrame, reason::Reason};
    use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice, icmpv4};

    fn answered(frame: &[u8], path_mtu: u16) -> Option<Vec<u8>> {
        let mut frame = HostFrame::new(frame);
        answer(&mut frame, Reason::TooBig, path_mtu)?;
        Some(frame.bytes().to_vec())
    }

    fn frame(v6: bool, payload: usize, tags: &[u8]) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let builder = if v6 { link.ipv6([1; 16], [9; 16], 7) } else { link.ipv4([192, 0, 2, 1], [192, 0, 2, 9], 7) };
        let mut frame = Vec::new();
        builder.tcp(5000, 443, 1, 100).ack(1).write(&mut frame, &vec![0x5a; payload]).unwrap();
        [&frame[..12], tags, &frame[12..]].concat()
    }

    proptest::proptest! {
        #[test]
        fn the_client_is_told(path_mtu in 500_u16..9000, payload in 1000..2000_usize) {
            let sent = frame(false, payload, &[]);
            let reply = answered(&sent, path_mtu).unwrap();
            let packet = SlicedPacket::from_ethernet(&reply).unwrap();
            let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
            let header = ip.header().to_header();
            proptest::prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
            proptest::prop_assert_eq!((header.source, header.destination), ([192, 0, 2, 9], [192, 0, 2, 1]));
            let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { panic!("no ICMP") };
            let needed = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: path_mtu };
            proptest::prop_assert_eq!(icmp.icmp_type(), Icmpv4Type::DestinationUnreachable(needed));
            proptest::prop_assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
            proptest::prop_assert_eq!(icmp.payload(), &sent[14..14 + QUOTE]);

            let sent = frame(true, payload, &[]);
            let reply = answered(&sent, path_mtu).unwrap();
            let packet = SlicedPacket::from_ethernet(&reply).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
            let mtu = u32::from(path_mtu.max(1280));
            proptest::prop_assert_eq!(icmp.icmp_type(), Icmpv6Type::PacketTooBig { mtu });
            proptest::prop_assert!(icmp.is_checksum_valid([9; 16], [1; 16]));
            proptest::prop_assert_eq!(icmp.payload(), &sent[14..14 + QUOTE]);
        }
    }

    #[test]
    fn the_answer_to_a_tagged_packet_is_tagged() {
        for tags in [&[0x81, 0, 0, 42][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 42]] {
            let (plain, tagged) =
                (answered(&frame(true, 1500, &[]), 1400).unwrap(), answered(&frame(true, 1500, tags), 1400).unwrap());
            assert_eq!(tagged, [&plain[..12], tags, &plain[12..]].concat());
        }
    }

    #[test]
    fn a_packet_shorter_than_its_quotation_is_not_answered() {
        assert_eq!(answered(&frame(false, 60, &[]), 1400), None);
    }
}
