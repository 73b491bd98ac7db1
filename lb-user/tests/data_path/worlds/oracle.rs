//! What must come of a packet, by the word of crates that Weir had no part in: SipHash by siphasher, headers by etherparse.

use super::{
    Outcome, Verdict, answers,
    packet::{ETHERNET, Flow},
    setup::{self, BALANCER_V4, BALANCER_V6, Path, Setup},
};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket, TransportSlice, UdpHeader};
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
const UDP: u8 = 17;

/// SipHash-1-3 of the wire bytes of a TCP flow's 5-tuple.
pub(crate) fn flow_hash(flow: Flow) -> FlowHash {
    hash(flow, TCP)
}

/// The same for a flow of another protocol.
pub(crate) fn hash(flow: Flow, protocol: u8) -> FlowHash {
    hash_under(&setup::CLUSTER_KEY, flow, protocol)
}

/// The same under any key.
pub(crate) fn hash_under(key: &[u8; 16], flow: Flow, protocol: u8) -> FlowHash {
    let mut hasher = SipHasher13::new_with_key(key);
    for end in [flow.client, flow.vip] {
        match end.ip() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
    }
    hasher.write(&flow.client.port().to_be_bytes());
    hasher.write(&flow.vip.port().to_be_bytes());
    hasher.write(&[protocol]);
    FlowHash(hasher.finish())
}

/// SipHash-1-3 of the wire bytes of an address.
pub(crate) fn source_hash(address: IpAddr) -> FlowHash {
    let mut hasher = SipHasher13::new_with_key(&setup::CLUSTER_KEY);
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    FlowHash(hasher.finish())
}

/// The high half of a hash, scaled to the 65,537 slots.
pub(crate) fn slot(hash: FlowHash) -> u32 {
    u32::try_from(((hash.0 >> 32) * 65_537) >> 32).expect("below 65,537")
}

/// The farm gives its slots out in turn.
pub(crate) fn farm_owner(hash: FlowHash) -> BackendId {
    [setup::B1, setup::B2, setup::B3][slot(hash) as usize % 3]
}

/// The flow of a frame, if etherparse can read it as a TCP segment.
pub(crate) fn flow_of(frame: &[u8]) -> Option<Flow> {
    ends_of(frame).filter(|(_, protocol)| *protocol == TCP).map(|(flow, _)| flow)
}

/// Whether bits are those of the hash of a frame's flow, under the key or the one that takes its place; yes, if etherparse
/// cannot read its ports.
fn are_of_flow(frame: &[u8], bits: impl Fn(u64) -> bool) -> bool {
    let Some((flow, protocol)) = ends_of(frame) else { return true };
    [setup::CLUSTER_KEY, setup::SECOND_KEY].iter().any(|key| bits(hash_under(key, flow, protocol).0))
}

fn ends_of(frame: &[u8]) -> Option<(Flow, u8)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let (from, to, protocol) = match packet.transport? {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port(), TCP),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port(), UDP),
        _ => return None,
    };
    let (source, destination): (IpAddr, IpAddr) = match packet.net? {
        NetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
        NetSlice::Arp(_) => return None,
    };
    Some((Flow { client: SocketAddr::new(source, from), vip: SocketAddr::new(destination, to) }, protocol))
}

/// Judges what left for a packet: untouched where nothing was sent, a reset that a TCP stack takes, or the very packet
/// behind the right outer header.
pub(crate) fn judge_bytes(setup: &Setup, frame: &[u8], outcome: &Outcome) {
    let Some(id) = outcome.backend else {
        match (outcome.verdict, outcome.reason) {
            (Verdict::Transmit, Reason::TooBig) => answers::judge_too_big(setup, frame, &outcome.bytes),
            (Verdict::Transmit, Reason::EchoAnswered) => answers::judge_echo(frame, &outcome.bytes),
            (Verdict::Transmit, _) => answers::judge_reset(frame, &outcome.bytes),
            _ => assert_eq!(outcome.bytes, frame, "{} changed the packet", outcome.reason.as_str()),
        }
        return;
    };
    let frame = &untagged(frame);
    let backend = setup.backends.iter().find(|backend| backend.id == id).expect("a backend of the setup");
    let expected = if backend.interface == setup::LOOPBACK { Verdict::Transmit } else { Verdict::Redirect };
    assert_eq!(outcome.verdict, expected, "backend {} is behind interface {}", id.0, backend.interface);
    assert_eq!(outcome.bytes[..6], backend.mac());
    assert_eq!(outcome.bytes[6..12], backend.source_mac());
    let sent = &without_tags_of(backend, &outcome.bytes);
    let inner = Inner::of(frame);
    assert!(inner.len + backend.path.tunnel_len() <= usize::from(backend.mtu), "longer than the path takes");
    let inside = match backend.path {
        Path::L2 => return assert_eq!(sent[12..], frame[12..], "more than the MAC addresses changed"),
        Path::InIpv4 => judge_ipv4(backend, frame, sent, inner.number),
        Path::InIpv6 => judge_ipv6(backend, frame, sent, inner.number),
        Path::InGue4 => judge_gue(frame, judge_ipv4(backend, frame, sent, IpNumber::UDP)),
        Path::InGue6 => judge_gue(frame, judge_ipv6(backend, frame, sent, IpNumber::UDP)),
    };
    assert_eq!(inside, &frame[ETHERNET..], "the packet inside the tunnel changed");
}

/// What was sent, without the tags that the backend's network wants.
fn without_tags_of(backend: &setup::Backend, sent: &[u8]) -> Vec<u8> {
    let tags: Vec<u8> =
        backend.tags.iter().flat_map(|tag| [tag.to_be_bytes(), setup::VLAN.to_be_bytes()].concat()).collect();
    assert_eq!(sent[12..12 + tags.len()], tags, "other tags than the backend's");
    [&sent[..12], &sent[12 + tags.len()..]].concat()
}

/// The frame without its VLAN tags.
pub(crate) fn untagged(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    while matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
        frame.drain(12..16);
    }
    frame
}

/// The frame without the extension headers of IPv6 (RFC 8200, 4): etherparse takes no hop-by-hop header but the first.
pub(crate) fn without_extensions(frame: &[u8]) -> Vec<u8> {
    let (link, packet) = frame.split_at(ETHERNET);
    if packet[0] >> 4 != 6 {
        return frame.to_vec();
    }
    let (mut next, mut at) = (packet[6], Ipv6Header::LEN);
    while matches!(next, 0 | 43 | 44 | 60) {
        let words = if next == 44 { 0 } else { usize::from(packet[at + 1]) };
        next = packet[at];
        at += 8 * (1 + words);
    }
    let (mut header, _) = Ipv6Header::from_slice(packet).expect("an IPv6 header");
    let len = usize::from(header.payload_length) - (at - Ipv6Header::LEN);
    header.next_header = IpNumber(next);
    header.set_payload_length(len).expect("shorter than before");
    [link, &header.to_bytes(), &packet[at..]].concat()
}

/// Judges the outer header, and returns what follows it.
fn judge_ipv4<'s>(backend: &setup::Backend, frame: &[u8], sent: &'s [u8], number: IpNumber) -> &'s [u8] {
    assert_eq!(sent[12..14], [0x08, 0x00]);
    let (outer, rest) = Ipv4Header::from_slice(&sent[ETHERNET..]).expect("an IPv4 header");
    let inner = Inner::of(frame);
    assert_eq!(outer.header_checksum, outer.calc_header_checksum());
    judge_source(backend, frame, u32::from(BALANCER_V4), u32::from_be_bytes(outer.source));
    assert_eq!(outer.destination, backend.ipv4().octets());
    assert_eq!(usize::from(outer.total_len), backend.path.tunnel_len() + inner.len);
    assert_eq!(outer.protocol, number);
    assert_eq!(outer.dscp.value() << 2 | outer.ecn.value(), inner.traffic_class);
    assert_eq!((outer.time_to_live, outer.header_len()), (64, Ipv4Header::MIN_LEN));
    assert!(outer.dont_fragment && !outer.more_fragments && outer.fragment_offset.value() == 0);
    rest
}

/// The same for IPv6.
fn judge_ipv6<'s>(backend: &setup::Backend, frame: &[u8], sent: &'s [u8], number: IpNumber) -> &'s [u8] {
    assert_eq!(sent[12..14], [0x86, 0xdd]);
    let (outer, rest) = Ipv6Header::from_slice(&sent[ETHERNET..]).expect("an IPv6 header");
    let inner = Inner::of(frame);
    let (balancer, last) =
        BALANCER_V6.octets().split_last_chunk::<4>().map(|(net, last)| (net.to_vec(), *last)).expect("16 bytes");
    let (network, host) = outer.source.split_last_chunk::<4>().expect("16 bytes");
    assert_eq!(network, balancer);
    judge_source(backend, frame, u32::from_be_bytes(last), u32::from_be_bytes(*host));
    assert_eq!(outer.destination, backend.ipv6().octets());
    assert_eq!(usize::from(outer.payload_length), backend.path.tunnel_len() - Ipv6Header::LEN + inner.len);
    assert_eq!(outer.next_header, number);
    assert_eq!((outer.traffic_class, outer.hop_limit), (inner.traffic_class, 64));
    let label = u64::from(outer.flow_label.value());
    assert!(are_of_flow(frame, |hash| label == hash >> 8 & 0xf_ffff), "{label:#x} is not the flow's label");
    rest
}

/// The last 32 bits of the source address: the balancer's own, but for those that the flow's hash fills in.
fn judge_source(backend: &setup::Backend, frame: &[u8], own: u32, source: u32) {
    let spread = u32::try_from((1_u64 << backend.spread) - 1).expect("32 bits at most");
    assert_eq!(source & !spread, own);
    let spread = u64::from(spread);
    let is_spread = |hash| u64::from(source) & spread == hash >> 8 & spread;
    assert!(are_of_flow(frame, is_spread), "{source:#x} is not where the flow's hash says");
}

/// The UDP and GUE headers of draft-ietf-intarea-gue-09, 3.2: no checksum, variant 0, no control message, no options. What
/// follows them is returned.
fn judge_gue<'s>(frame: &[u8], datagram: &'s [u8]) -> &'s [u8] {
    let inner = Inner::of(frame);
    let (udp, rest) = UdpHeader::from_slice(datagram).expect("a UDP header");
    assert_eq!((udp.destination_port, udp.checksum), (6080, 0));
    assert_eq!(usize::from(udp.length), 8 + 4 + inner.len);
    assert!(udp.source_port >= 0xc000, "not a dynamic port");
    let port = u64::from(udp.source_port & 0x3fff);
    assert!(are_of_flow(frame, |hash| port == hash >> 12 & 0x3fff), "{port:#x} is not where the flow's hash says");
    let (gue, inside) = rest.split_at(4);
    assert_eq!(gue, [0, inner.number.0, 0, 0]);
    inside
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
