//! Every way to a backend: the packet inside is the client's, byte for byte, and the outer header is right by etherparse,
//! which is judged of every packet that is sent.

use crate::worlds::{
    Outcome, Worlds,
    client::ISN,
    frames::{datagram, quic_short},
    in_both_worlds_of, over,
    packet::{ETHERNET, Flow, with_ipv4_options, with_ipv6_extensions, with_tags, with_traffic_class},
    setup::Setup,
    wide::quic_id,
};
use etherparse::{Ipv4Header, Ipv6Header, UdpHeader};
use lb_common::{ids::BackendId, reason::Reason, wire::ip::Family};
use std::collections::BTreeSet;

/// Of the wide farm: by MAC address, in IPv4, in IPv6, in GUE over both, by MAC address with a tag, in IPv6 with two.
const BACKENDS: std::ops::RangeInclusive<u16> = 1..=7;
const GUE4: u16 = 4;
const GUE6: u16 = 5;

/// A datagram that names its backend, whatever its flow.
fn to_backend(flow: Flow, backend: u16, len: usize) -> Vec<u8> {
    let id = [&[0x0b][..], &quic_id(backend), &[0; 3]].concat();
    datagram(flow.to_port(443), &[quic_short(&id), vec![0xa5; len]].concat())
}

#[track_caller]
fn arrives(worlds: &mut Worlds, frame: &[u8], backend: u16) -> Outcome {
    worlds.gets(frame, Reason::QuicServer, BackendId(backend))
}

#[test]
fn every_way_takes_packets_of_both_families_and_of_any_length() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for backend in BACKENDS {
            for len in [0, 1, 2, 3, 1000, 1001, 9000] {
                arrives(worlds, &to_backend(flow, backend, len), backend);
            }
        }
    });
}

#[test]
fn every_way_takes_tagged_packets_and_gives_them_the_backends_tags() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for backend in BACKENDS {
            for tags in [&[0x8100][..], &[0x88a8], &[0x88a8, 0x8100], &[0x8100, 0x8100]] {
                arrives(worlds, &with_tags(&to_backend(flow, backend, 100), tags), backend);
            }
        }
    });
}

#[test]
fn every_way_takes_options_and_extension_headers() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for backend in BACKENDS {
            let frame = to_backend(flow, backend, 100);
            let frames = if flow.vip.is_ipv4() {
                vec![with_ipv4_options(&frame, 4), with_ipv4_options(&frame, 40)]
            } else {
                let one = [60, 0, 1, 4, 0, 0, 0, 0];
                vec![
                    with_ipv6_extensions(&frame, 60, &[17, 0, 1, 4, 0, 0, 0, 0]),
                    with_ipv6_extensions(&frame, 0, &[&one[..], &[17, 0, 1, 4, 0, 0, 0, 0]].concat()),
                ]
            };
            for frame in frames {
                arrives(worlds, &frame, backend);
            }
        }
    });
}

#[test]
fn every_way_keeps_the_traffic_class() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for backend in BACKENDS {
            for traffic_class in [0, 1, 3, 0x2e << 2, 0xff] {
                arrives(worlds, &with_traffic_class(&to_backend(flow, backend, 100), traffic_class), backend);
            }
        }
    });
}

#[test]
fn every_way_takes_a_frame_whose_head_alone_is_in_one_piece() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for backend in BACKENDS {
            let frame = to_backend(flow, backend, 5000);
            let outcome = worlds.send_with_head(&frame, 200);
            assert_eq!((outcome.reason, outcome.backend), (Reason::QuicServer, Some(BackendId(backend))));
        }
    });
}

/// The source port of a frame that was sent in GUE.
fn gue_port(sent: &[u8]) -> u16 {
    let outer = &sent[ETHERNET..];
    let rest = if outer[0] >> 4 == 4 {
        Ipv4Header::from_slice(outer).expect("IPv4").1
    } else {
        Ipv6Header::from_slice(outer).expect("IPv6").1
    };
    UdpHeader::from_slice(rest).expect("UDP").0.source_port
}

#[test]
fn gue_spreads_flows_over_source_ports_and_keeps_each_at_one() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for backend in [GUE4, GUE6] {
            let mut ports = BTreeSet::new();
            for flow in (20_000..20_050).map(|port| flow.at_port(port)) {
                let [first, second] = [10, 700].map(|len| arrives(worlds, &to_backend(flow, backend, len), backend));
                assert_eq!(gue_port(&first.bytes), gue_port(&second.bytes));
                ports.insert(gue_port(&first.bytes));
            }
            assert!(ports.len() > 40, "50 flows have {} ports", ports.len());
        }
    });
}

/// With receive-side scaling a network card tells IPIP tunnels apart by their addresses alone.
#[test]
fn ipip_spreads_flows_over_source_addresses() {
    over(Family::V4, &Setup::wide(), |worlds, flow| {
        let mut sources = BTreeSet::new();
        for flow in (20_000..20_050).map(|port| flow.at_port(port)) {
            let outcome = arrives(worlds, &to_backend(flow, 2, 10), 2);
            sources.insert(Ipv4Header::from_slice(&outcome.bytes[ETHERNET..]).expect("IPv4").0.source);
        }
        assert!(sources.len() > 40, "50 flows have {} sources", sources.len());
    });
}

#[test]
fn tcp_takes_every_way_too() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let mut reached = BTreeSet::new();
        for flow in (20_000..20_060).map(|port| flow.at_port(port)) {
            let syn = worlds.send(&flow.capable_syn(ISN).frame());
            let data = worlds.send(&flow.data(ISN).payload(1400).frame());
            assert_eq!(syn.backend, data.backend);
            reached.extend(syn.backend);
        }
        assert_eq!(reached, (1..=5).map(BackendId).collect());
    });
}
