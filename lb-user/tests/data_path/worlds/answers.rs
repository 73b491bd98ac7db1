//! What Weir may answer itself, by the RFCs' word and etherparse's checksums.

use super::{
    oracle::{flow_of, untagged, without_extensions},
    packet::ETHERNET,
    setup::Setup,
};
use etherparse::{
    Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, checksum::Sum16BitWords,
    icmpv4::DestUnreachableHeader,
};

/// Bytes of the packet that an error quotes.
const QUOTE: usize = 128;

/// The RST of RFC 9293, 3.10.7.1, with the `MP_TCPRST` of RFC 8684, 3.6, back to where the SYN came from.
pub(crate) fn judge_reset(frame: &[u8], sent: &[u8]) {
    judge_link(frame, sent);
    let (frame, sent) = (&without_extensions(&untagged(frame)), &untagged(sent));
    let syn = SlicedPacket::from_ethernet(frame).expect("a packet");
    let reset = SlicedPacket::from_ethernet(sent).expect("a packet");
    let (Some(TransportSlice::Tcp(syn)), Some(TransportSlice::Tcp(tcp))) = (syn.transport, reset.transport) else {
        panic!("TCP is answered by TCP");
    };
    let checksum = match reset.net.expect("an IP packet") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            assert_eq!((header.time_to_live, usize::from(header.total_len)), (64, sent.len() - ETHERNET));
            tcp.calc_checksum_ipv4(header.source, header.destination)
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            assert_eq!((header.hop_limit, usize::from(header.payload_length)), (64, sent.len() - ETHERNET - 40));
            tcp.calc_checksum_ipv6(header.source, header.destination)
        }
        NetSlice::Arp(_) => panic!("ARP"),
    };
    assert_eq!(tcp.checksum(), checksum.expect("a short segment"));
    let (from, back) = (flow_of(frame).expect("a flow"), flow_of(sent).expect("a flow"));
    assert_eq!((back.client, back.vip), (from.vip, from.client));
    let flags = [tcp.syn(), tcp.ack(), tcp.rst(), tcp.fin(), tcp.psh(), tcp.urg()];
    assert_eq!(flags, [false, true, true, false, false, false]);
    let payload_len = u32::try_from(syn.payload().len()).expect("a frame");
    let end = syn.sequence_number().wrapping_add(1).wrapping_add(payload_len);
    assert_eq!((tcp.sequence_number(), tcp.acknowledgment_number()), (0, end));
    assert_eq!(tcp.options(), [30, 4, 0x80, 1]);
    assert!(tcp.payload().is_empty() && sent.len() < frame.len());
}

/// "Fragmentation needed" (RFC 1191, 4) or "packet too big" (RFC 4443, 3.2), from the VIP to the client.
pub(crate) fn judge_too_big(setup: &Setup, frame: &[u8], sent: &[u8]) {
    judge_link(frame, sent);
    let (frame, sent) = (&untagged(frame), &untagged(sent));
    let packet = SlicedPacket::from_ethernet(sent).expect("a packet");
    judge_way_back(frame, &packet);
    let mtus = || setup.backends.iter().map(|backend| usize::from(backend.mtu) - backend.path.tunnel_len());
    let quoted = match packet.transport {
        Some(TransportSlice::Icmpv4(icmp)) => {
            let Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu }) =
                icmp.icmp_type()
            else {
                panic!("{:?}", icmp.icmp_type())
            };
            assert!(mtus().any(|mtu| mtu == usize::from(next_hop_mtu)), "no path takes {next_hop_mtu} bytes");
            assert_eq!(icmp.checksum(), icmp.icmp_type().calc_checksum(icmp.payload()));
            icmp.payload().to_vec()
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let Icmpv6Type::PacketTooBig { mtu } = icmp.icmp_type() else { panic!("{:?}", icmp.icmp_type()) };
            assert!(mtus().any(|known| known.max(1280) == mtu as usize), "no path takes {mtu} bytes");
            icmp.payload().to_vec()
        }
        _ => panic!("no ICMP"),
    };
    assert_eq!(quoted, frame[ETHERNET..ETHERNET + QUOTE]);
    assert!(sent.len() - ETHERNET - QUOTE <= 40 + 8);
}

/// The request itself with another type, from where it went to where it came from (RFC 792, RFC 4443, 4.2). Its checksum
/// is as right as it came.
pub(crate) fn judge_echo(frame: &[u8], sent: &[u8]) {
    judge_link(frame, sent);
    let (frame, sent) = (&untagged(frame), &untagged(sent));
    assert_eq!(sent.len(), frame.len(), "an echo has the length of what it answers");
    let (Ok(request), Ok(packet)) = (SlicedPacket::from_ethernet(frame), SlicedPacket::from_ethernet(sent)) else {
        return;
    };
    judge_way_back(frame, &packet);
    let sum = |bytes: &[u8]| Sum16BitWords::new().add_slice(bytes).ones_complement();
    match (&request.transport, &packet.transport) {
        (Some(TransportSlice::Icmpv4(request)), Some(TransportSlice::Icmpv4(reply))) => {
            let (Icmpv4Type::EchoRequest(asked), Icmpv4Type::EchoReply(echo)) =
                (request.icmp_type(), reply.icmp_type())
            else {
                return;
            };
            assert_eq!((asked, request.payload()), (echo, reply.payload()));
            assert!(sum(request.slice()) != 0 || sum(reply.slice()) == 0, "the reply's checksum");
        }
        (Some(TransportSlice::Icmpv6(request)), Some(TransportSlice::Icmpv6(reply))) => {
            let (Icmpv6Type::EchoRequest(asked), Icmpv6Type::EchoReply(echo)) =
                (request.icmp_type(), reply.icmp_type())
            else {
                return;
            };
            assert_eq!((asked, request.payload()), (echo, reply.payload()));
            let ends = |slice: &SlicedPacket| match &slice.net {
                Some(NetSlice::Ipv6(ip)) => (ip.header().source(), ip.header().destination()),
                _ => panic!("ICMPv6 over IPv6"),
            };
            let (source, destination) = ends(&packet);
            let was_valid = request.is_checksum_valid(destination, source);
            assert!(!was_valid || reply.is_checksum_valid(source, destination), "the reply's checksum");
        }
        _ => {}
    }
}

/// Back on the link, with the tags that the frame came with.
fn judge_link(frame: &[u8], sent: &[u8]) {
    assert_eq!((&sent[..6], &sent[6..12]), (&frame[6..12], &frame[..6]));
    let tags = frame.len() - untagged(frame).len();
    assert_eq!(sent[12..12 + tags], frame[12..12 + tags], "other tags than the frame's");
}

/// From the VIP to the client, by a valid header.
fn judge_way_back(frame: &[u8], packet: &SlicedPacket) {
    match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header().to_header();
            let came = etherparse::Ipv4Header::from_slice(&frame[ETHERNET..]).expect("an IPv4 header").0;
            assert!(
                came.header_checksum != came.calc_header_checksum()
                    || header.header_checksum == header.calc_header_checksum()
            );
            assert_eq!((header.source, header.destination, header.time_to_live), (came.destination, came.source, 64));
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header().to_header();
            let came = etherparse::Ipv6Header::from_slice(&frame[ETHERNET..]).expect("an IPv6 header").0;
            assert_eq!((header.source, header.destination, header.hop_limit), (came.destination, came.source, 64));
        }
        _ => panic!("no IP"),
    }
}
