//! What must come of a packet, by the word of crates that Weir had no part in: SipHash by siphasher, headers by etherparse.

use super::{
    Outcome, Verdict,
    packet::{ETHERNET, Flow},
    setup::{self, BALANCER_V4, BALANCER_V6, Path, Setup},
};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket, TransportSlice};
use lb_common::{
    ids::{BackendId, FlowHash},
    reason::Reason,
};
use siphasher::sip::SipHasher13;
use std::{
    hash::Hasher as _,
    net::{IpAddr, SocketAddr},
};

const TCP: u8 = 6;

/// SipHash-1-3 of a 5-tuple's wire bytes.
pub(crate) fn flow_hash(flow: Flow) -> FlowHash {
    let mut hasher = SipHasher13::new_with_key(&setup::CLUSTER_KEY);
    for end in [flow.client, flow.vip] {
        match end.ip() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
    }
    hasher.write(&flow.client.port().to_be_bytes());
    hasher.write(&flow.vip.port().to_be_bytes());
    hasher.write(&[TCP]);
    FlowHash(hasher.finish())
}

/// The farm gives its slots out in turn; a slot is the high half of the hash, scaled to the 65,537 of them.
pub(crate) fn farm_owner(hash: FlowHash) -> BackendId {
    let slot = ((hash.0 >> 32) * 65_537) >> 32;
    [setup::B1, setup::B2, setup::B3][usize::try_from(slot % 3).expect("below 3")]
}

/// The flow of a frame, if etherparse can read it as a TCP segment.
pub(crate) fn flow_of(frame: &[u8]) -> Option<Flow> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return None };
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    Some(Flow {
        client: SocketAddr::new(source, tcp.source_port()),
        vip: SocketAddr::new(destination, tcp.destination_port()),
    })
}

/// Judges what left for a packet: untouched where nothing was sent, a reset that a TCP stack takes, or the very packet
/// behind the right outer header.
pub(crate) fn judge_bytes(setup: &Setup, frame: &[u8], outcome: &Outcome) {
    let Some(id) = outcome.backend else {
        if outcome.reason == Reason::TooBig {
            return;
        }
        if outcome.verdict == Verdict::Transmit {
            return judge_reset(frame, &outcome.bytes);
        }
        assert_eq!(outcome.bytes, frame, "{} changed the packet", outcome.reason.as_str());
        return;
    };
    let frame = &untagged(frame);
    let backend = setup.backends.iter().find(|backend| backend.id == id).expect("a backend of the setup");
    let expected = if backend.interface == setup::LOOPBACK { Verdict::Transmit } else { Verdict::Redirect };
    assert_eq!(outcome.verdict, expected, "backend {} is behind interface {}", id.0, backend.interface);
    assert_eq!(outcome.bytes[..6], backend.mac());
    assert_eq!(outcome.bytes[6..12], backend.source_mac());
    match backend.path {
        Path::L2 => assert_eq!(outcome.bytes[12..], frame[12..], "more than the MAC addresses changed"),
        Path::InIpv4 => judge_ipv4(backend, frame, &outcome.bytes),
        Path::InIpv6 => judge_ipv6(backend, frame, &outcome.bytes),
    }
}

/// The frame without its VLAN tags.
fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    while matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
        frame.drain(12..16);
    }
    frame
}

fn judge_ipv4(backend: &setup::Backend, frame: &[u8], sent: &[u8]) {
    assert_eq!(sent[12..14], [0x08, 0x00]);
    let (outer, inside) = Ipv4Header::from_slice(&sent[ETHERNET..]).expect("an IPv4 header");
    let inner = Inner::of(frame);
    assert_eq!(inside, &frame[ETHERNET..], "the packet inside the tunnel changed");
    assert_eq!(outer.header_checksum, outer.calc_header_checksum());
    assert_eq!((outer.source, outer.destination), (BALANCER_V4.octets(), backend.ipv4().octets()));
    assert_eq!(usize::from(outer.total_len), Ipv4Header::MIN_LEN + inner.len);
    assert_eq!(outer.protocol, inner.number);
    assert_eq!(outer.dscp.value() << 2 | outer.ecn.value(), inner.traffic_class);
    assert_eq!((outer.time_to_live, outer.header_len()), (64, Ipv4Header::MIN_LEN));
    assert!(outer.dont_fragment && !outer.more_fragments && outer.fragment_offset.value() == 0);
}

fn judge_ipv6(backend: &setup::Backend, frame: &[u8], sent: &[u8]) {
    assert_eq!(sent[12..14], [0x86, 0xdd]);
    let (outer, inside) = Ipv6Header::from_slice(&sent[ETHERNET..]).expect("an IPv6 header");
    let inner = Inner::of(frame);
    assert_eq!(inside, &frame[ETHERNET..], "the packet inside the tunnel changed");
    assert_eq!((outer.source, outer.destination), (BALANCER_V6.octets(), backend.ipv6().octets()));
    assert_eq!(usize::from(outer.payload_length), inner.len);
    assert_eq!(outer.next_header, inner.number);
    assert_eq!((outer.traffic_class, outer.hop_limit), (inner.traffic_class, 64));
    if let Some(flow) = flow_of(frame) {
        assert_eq!(u64::from(outer.flow_label.value()), flow_hash(flow).0 >> 8 & 0xf_ffff);
    }
}

/// The RST of RFC 9293, 3.10.7.1, with the `MP_TCPRST` of RFC 8684, 3.6, back to where the SYN came from.
fn judge_reset(frame: &[u8], sent: &[u8]) {
    assert_eq!((&sent[..6], &sent[6..12]), (&frame[6..12], &frame[..6]));
    let syn = SlicedPacket::from_ethernet(frame).expect("a SYN was answered");
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

/// What the outer header has to say of a packet.
pub(crate) struct Inner {
    pub(crate) len: usize,
    number: IpNumber,
    traffic_class: u8,
}

impl Inner {
    pub(crate) fn of(frame: &[u8]) -> Self {
        let packet = &frame[ETHERNET..];
        if packet[0] >> 4 == 4 {
            return Self {
                len: usize::from(u16::from_be_bytes([packet[2], packet[3]])),
                number: IpNumber::IPV4,
                traffic_class: packet[1],
            };
        }
        let (header, _) = Ipv6Header::from_slice(packet).expect("an IPv6 header");
        Self {
            len: Ipv6Header::LEN + usize::from(header.payload_length),
            number: IpNumber::IPV6,
            traffic_class: header.traffic_class,
        }
    }
}
