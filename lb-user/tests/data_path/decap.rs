//! The backend's side: a tunnel from a balancer comes off and leaves the very packet that went in; nothing else changes.

use crate::worlds::{
    Verdict, Worlds,
    client::ISN,
    in_both_worlds,
    kernel::{test_run, verdict},
    mptcp::TOKEN,
    packet::{BALANCER_MAC, ETHERNET, Flow, ROUTER_MAC, with_ipv4_options, with_ipv6_extensions, with_tags},
    setup::{B1, B2, BALANCER_V4, BALANCER_V6},
};
use etherparse::{IpNumber, Ipv4Header, Ipv6Header};
use lb_common::{decap::Decap, reason::Reason, wire::ip::Family};
use lb_user::bpf::Decapsulator;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

const BACKEND_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const BACKEND_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const STRANGER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 101);
const STRANGER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x101);

/// A backend's program, and what it has counted.
struct Backend {
    decapsulator: Decapsulator,
    counts: BTreeMap<&'static str, u64>,
}

impl Backend {
    fn new() -> Self {
        let mut decapsulator = Decapsulator::load().unwrap_or_else(|error| panic!("{error}"));
        for balancer in [IpAddr::from(BALANCER_V4), BALANCER_V6.into()] {
            decapsulator.accept(balancer.into(), 6080).expect("room for a balancer");
        }
        let mut backend = Self { decapsulator, counts: BTreeMap::new() };
        backend.counts = backend.read_counts();
        backend
    }

    fn read_counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.decapsulator.counts().expect("the kernel tells").into_iter();
        counts.map(|(outcome, count)| (outcome.as_str(), count)).collect()
    }

    /// Takes in a frame: it has this outcome, and that counter alone moves, by one.
    #[track_caller]
    fn receives(&mut self, frame: &[u8], outcome: Decap) -> Vec<u8> {
        let (action, bytes) = test_run(self.decapsulator.program().expect("it is loaded"), frame, None);
        *self.counts.entry(outcome.as_str()).or_default() += 1;
        assert_eq!(self.read_counts(), self.counts, "{outcome:?}");
        let expected = if outcome == Decap::Malformed { Verdict::Drop } else { Verdict::Pass };
        assert_eq!(verdict(action), expected);
        bytes
    }

    /// Takes in a frame that it leaves as it is.
    #[track_caller]
    fn leaves(&mut self, frame: &[u8], outcome: Decap) {
        assert_eq!(self.receives(frame, outcome), frame, "{outcome:?} changed the frame");
    }
}

/// The packet of a frame in a tunnel, as anybody may send it.
fn tunnel(source: IpAddr, protocol: IpNumber, frame: &[u8]) -> Vec<u8> {
    let packet = &frame[ETHERNET..];
    let (ethertype, header) = match source {
        IpAddr::V4(source) => {
            let len = u16::try_from(packet.len()).expect("a short packet");
            let header = Ipv4Header::new(len, 64, protocol, source.octets(), BACKEND_V4.octets());
            let mut header = header.expect("a length that fits");
            header.header_checksum = header.calc_header_checksum();
            ([0x08, 0x00], header.to_bytes().to_vec())
        }
        IpAddr::V6(source) => {
            let header = Ipv6Header {
                payload_length: u16::try_from(packet.len()).expect("a short packet"),
                next_header: protocol,
                hop_limit: 64,
                source: source.octets(),
                destination: BACKEND_V6.octets(),
                ..Ipv6Header::default()
            };
            ([0x86, 0xdd], header.to_bytes().to_vec())
        }
    };
    [&BALANCER_MAC[..], &ROUTER_MAC, &ethertype, &header, packet].concat()
}

fn protocol_of(family: Family) -> IpNumber {
    match family {
        Family::V4 => IpNumber::IPV4,
        Family::V6 => IpNumber::IPV6,
    }
}

const BALANCERS: [IpAddr; 2] = [IpAddr::V4(BALANCER_V4), IpAddr::V6(BALANCER_V6)];
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[test]
fn all_four_tunnels_come_off() {
    let mut backend = Backend::new();
    for source in BALANCERS {
        for family in FAMILIES {
            for payload in [0, 1, 1400, 5000] {
                let frame = Flow::new(family).data(ISN).payload(payload).frame();
                let bytes = backend.receives(&tunnel(source, protocol_of(family), &frame), Decap::Taken);
                assert_eq!(bytes[..12], [BALANCER_MAC, ROUTER_MAC].concat());
                assert_eq!(bytes[12..], frame[12..], "{family:?} from {source}");
            }
        }
    }
}

#[test]
fn what_the_balancer_sends_comes_out_as_the_client_sent_it() {
    let mut backend = Backend::new();
    let backend = std::cell::RefCell::new(&mut backend);
    in_both_worlds(|worlds, flow| {
        let first = worlds.connect_at(flow, B1);
        for owner in [B1, B2] {
            let flow = flow.at_port(50_000).owned_by(owner);
            let segments = [
                flow.capable_syn(ISN),
                flow.data(ISN),
                flow.ack(ISN + 1).payload(9000),
                first.data(ISN),
                flow.at_second_address().join(ISN, TOKEN),
            ];
            for frame in segments.map(|segment| segment.frame()) {
                round_trip(worlds, &mut backend.borrow_mut(), &frame);
            }
        }
    });
}

#[track_caller]
fn round_trip(worlds: &mut Worlds, backend: &mut Backend, frame: &[u8]) {
    let sent = worlds.send(frame);
    assert!(matches!(sent.verdict, Verdict::Transmit | Verdict::Redirect), "{:?}", sent.reason);
    assert_ne!(sent.reason, Reason::NoHeadroom);
    let bytes = backend.receives(&sent.bytes, Decap::Taken);
    assert_eq!(bytes[12..], frame[12..]);
}

#[test]
fn a_strangers_tunnel_stays_on() {
    let mut backend = Backend::new();
    for source in [IpAddr::V4(STRANGER_V4), IpAddr::V6(STRANGER_V6)] {
        for family in FAMILIES {
            let frame = Flow::new(family).data(ISN).frame();
            backend.leaves(&tunnel(source, protocol_of(family), &frame), Decap::Stranger);
            backend.leaves(&tunnel(source, protocol_of(family), &frame[..ETHERNET]), Decap::Stranger);
        }
    }
}

#[test]
fn what_is_no_tunnel_passes_and_a_tag_hides_none() {
    let mut backend = Backend::new();
    for family in FAMILIES {
        let frame = Flow::new(family).data(ISN).frame();
        backend.leaves(&frame, Decap::NoTunnel);
        for len in ETHERNET..frame.len() {
            backend.leaves(&frame[..len], Decap::NoTunnel);
        }
    }
    let frame = Flow::new(Family::V4).data(ISN).frame();
    for source in BALANCERS {
        backend.leaves(&tunnel(source, IpNumber::TCP, &frame), Decap::NoTunnel);
        backend.receives(&with_tags(&tunnel(source, IpNumber::IPV4, &frame), &[0x8100]), Decap::Taken);
    }
    let mut arp = frame;
    arp[13] = 0x06;
    backend.leaves(&arp, Decap::NoTunnel);
}

#[test]
fn a_balancers_tunnel_without_its_packet_is_dropped() {
    let mut backend = Backend::new();
    for source in BALANCERS {
        for (said, held) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
            let frame = Flow::new(held).data(ISN).frame();
            backend.leaves(&tunnel(source, protocol_of(said), &frame), Decap::Malformed);
        }
        backend.leaves(&tunnel(source, IpNumber::IPV4, &[0; ETHERNET]), Decap::Malformed);
        backend.leaves(&tunnel(source, IpNumber::IPV6, &[0; ETHERNET]), Decap::Malformed);
    }
}

#[test]
fn a_tunnel_of_a_form_that_no_balancer_sends_is_dropped() {
    let mut backend = Backend::new();
    let frame = Flow::new(Family::V4).data(ISN).frame();
    let in_v4 = tunnel(BALANCER_V4.into(), IpNumber::IPV4, &frame);
    backend.leaves(&with_ipv4_options(&in_v4, 4), Decap::Malformed);
    for (high, low) in [(0x20, 0), (0, 1)] {
        let mut fragment = in_v4.clone();
        (fragment[ETHERNET + 6], fragment[ETHERNET + 7]) = (high, low);
        backend.leaves(&fragment, Decap::Malformed);
    }
    let in_v6 = tunnel(BALANCER_V6.into(), IpNumber::IPV4, &frame);
    let limit = [4, 0, 4, 1, 4, 1, 0, 0];
    backend.leaves(&with_ipv6_extensions(&in_v6, 60, &limit), Decap::Malformed);
    // A frame that ends within what its header promises is the host's to judge.
    backend.leaves(&in_v4[..in_v4.len() - 1], Decap::NoTunnel);
    backend.receives(&in_v4, Decap::Taken);
}
