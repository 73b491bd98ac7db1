//! The answer to an ICMP echo request for a VIP (RFC 792, RFC 4443, 4.2): the request itself, turned around.

use crate::{
    packet::Frame,
    wire::{
        checksum,
        ethernet::{self, HEADER_LEN},
        icmp,
        ip::Header as _,
        ipv4::Ipv4,
        ipv6::Ipv6,
    },
};

const HOP_LIMIT: u8 = 64;

/// Makes an untagged echo request into the reply to it.
#[inline(always)]
pub(super) fn write<F: Frame>(frame: &mut F) -> Option<()> {
    match ethernet::parse(frame).ok()?.ethertype {
        ethernet::IPV4 => {
            let ip = Ipv4::load(frame, HEADER_LEN).ok()?.outline(frame).ok()?;
            turn_v4(frame.place(HEADER_LEN)?);
            turn_message(frame.place(ip.payload)?, icmp::ECHO_REPLY);
        }
        ethernet::IPV6 => {
            let ip = Ipv6::load(frame, HEADER_LEN).ok()?.outline(frame).ok()?;
            turn_v6(frame.place(HEADER_LEN)?);
            turn_message(frame.place(ip.payload)?, icmp::ECHO_REPLY_V6);
        }
        _ => return None,
    }
    Some(())
}

#[inline(always)]
fn turn_v4(header: &mut [u8; 20]) {
    swap::<4>(header, 12, 16);
    let [before, after] = [header[8], HOP_LIMIT].map(|hops| u16::from_be_bytes([hops, header[9]]));
    header[8] = HOP_LIMIT;
    [header[10], header[11]] = updated([header[10], header[11]], before, after);
}

#[inline(always)]
fn turn_v6(header: &mut [u8; 40]) {
    swap::<16>(header, 8, 24);
    header[7] = HOP_LIMIT;
}

#[inline(always)]
fn turn_message(message: &mut [u8; 4], reply: u8) {
    let [before, after] = [message[0], reply].map(|kind| u16::from_be_bytes([kind, message[1]]));
    message[0] = reply;
    [message[2], message[3]] = updated([message[2], message[3]], before, after);
}

#[inline(always)]
fn swap<const N: usize>(bytes: &mut [u8], a: usize, b: usize) {
    let mut i = 0;
    while i < N {
        bytes.swap(a + i, b + i);
        i += 1;
    }
}

/// A checksum after one of its words has changed (RFC 1624, 3). Of the two zeros of ones' complement this is the one that
/// holds for a message of nothing but zeros too.
#[inline(always)]
fn updated(checksum: [u8; 2], before: u16, after: u16) -> [u8; 2] {
    match checksum::finish(u32::from(!u16::from_be_bytes(checksum)) + u32::from(!before) + u32::from(after)) {
        [0, 0] => [0xff, 0xff],
        updated => updated,
    }
}

#[cfg(test)]
mod tests {
    use crate::{answer::answer, host::HostFrame, reason::Reason};
    use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

    fn is_valid(bytes: &[u8]) -> bool {
        etherparse::checksum::Sum16BitWords::new().add_slice(bytes).ones_complement() == 0
    }

    fn answered(frame: &[u8]) -> Vec<u8> {
        let mut frame = HostFrame::new(frame);
        answer(&mut frame, Reason::EchoAnswered, 0).expect("an answer");
        frame.bytes().to_vec()
    }

    proptest::proptest! {
        #[test]
        fn an_echo_comes_back(id: u16, sequence: u16, hops: u8, payload in proptest::collection::vec(0_u8.., 0..200)) {
            let mut frame = Vec::new();
            let link = PacketBuilder::ethernet2([1; 6], [2; 6]);
            link.ipv4([192, 0, 2, 1], [192, 0, 2, 9], hops).icmpv4_echo_request(id, sequence).write(&mut frame, &payload).unwrap();
            let reply = answered(&frame);
            let packet = SlicedPacket::from_ethernet(&reply).unwrap();
            let Some(NetSlice::Ipv4(ip)) = packet.net else { panic!("no IPv4") };
            let header = ip.header().to_header();
            proptest::prop_assert!(is_valid(&header.to_bytes()));
            proptest::prop_assert_eq!((header.source, header.destination), ([192, 0, 2, 9], [192, 0, 2, 1]));
            let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else { panic!("no ICMP") };
            let Icmpv4Type::EchoReply(echo) = icmp.icmp_type() else { panic!("no reply") };
            proptest::prop_assert_eq!((echo.id, echo.seq), (id, sequence));
            proptest::prop_assert_eq!(icmp.payload(), &payload);
            proptest::prop_assert!(is_valid(&reply[34..]));
            proptest::prop_assert_eq!(&reply[..12], [[1; 6], [2; 6]].concat());

            let mut frame = Vec::new();
            let link = PacketBuilder::ethernet2([1; 6], [2; 6]);
            link.ipv6([1; 16], [9; 16], hops).icmpv6_echo_request(id, sequence).write(&mut frame, &payload).unwrap();
            let reply = answered(&frame);
            let packet = SlicedPacket::from_ethernet(&reply).unwrap();
            let Some(TransportSlice::Icmpv6(icmp)) = packet.transport else { panic!("no ICMPv6") };
            let Icmpv6Type::EchoReply(echo) = icmp.icmp_type() else { panic!("no reply") };
            proptest::prop_assert_eq!((echo.id, echo.seq), (id, sequence));
            proptest::prop_assert!(icmp.is_checksum_valid([9; 16], [1; 16]));
        }
    }
}
