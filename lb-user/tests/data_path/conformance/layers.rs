//! What stands in front of the TCP header, and how the packet leaves.

use crate::worlds::{
    Verdict, Worlds,
    client::ISN,
    in_both_worlds, in_both_worlds_of,
    kernel::Kernel,
    mptcp::{DSS, SERVER_KEY, SYN_OPTIONS, TOKEN},
    over,
    packet::{ETHERNET, Flow, with_ipv4_options, with_ipv6_extensions, with_tags, with_traffic_class},
    setup::{B1, B2, B3, Setup},
};
use etherparse::{Ipv4Header, Ipv6Header};
use lb_common::{
    reason::Reason,
    tables::{UnknownJoin, Ways},
    wire::ip::Family,
};

const DOT1Q: u16 = 0x8100;
const DOT1AD: u16 = 0x88a8;

#[test]
fn case_74_tagged_frames_are_steered_like_others() {
    in_both_worlds(|worlds, flow| {
        let frame = flow.plain_syn(ISN).frame();
        for tags in [&[DOT1Q][..], &[DOT1AD], &[DOT1AD, DOT1Q], &[DOT1Q, DOT1Q]] {
            let outcome = worlds.send(&with_tags(&frame, tags));
            assert_eq!((outcome.reason, outcome.backend), (Reason::RingNew, Some(flow.owner())), "{tags:x?}");
        }
        let outcome = worlds.send(&with_tags(&frame, &[DOT1Q; 3]));
        assert_eq!((outcome.reason, outcome.verdict), (Reason::NotIp, Verdict::Pass));
    });
}

#[test]
fn case_75_behind_ipv4_options_the_tcp_header_is_found() {
    over(Family::V4, &Setup::farm(), |worlds, flow| {
        let first = worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B2);
        for len in (4..=40).step_by(4) {
            let outcome = worlds.send(&with_ipv4_options(&subflow.join(ISN, TOKEN).frame(), len));
            assert_eq!((outcome.reason, outcome.backend), (Reason::JoinToken, Some(B1)), "{len} bytes");
            let outcome = worlds.send(&with_ipv4_options(&first.data(ISN).frame(), len));
            assert_eq!((outcome.reason, outcome.backend), (Reason::Ring, Some(B1)), "{len} bytes");
        }
    });
}

const HOP_BY_HOP: u8 = 0;
const TCP: u8 = 6;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Extension headers in this order in front of TCP; a fragment header among them is an atomic one.
fn extensions(kinds: &[u8]) -> Vec<u8> {
    let next = kinds.iter().skip(1).chain(&[TCP]);
    let header = |(&kind, &next): (&u8, &u8)| match kind {
        ROUTING => [next, 0, 4, 0, 0, 0, 0, 0],
        FRAGMENT => [next, 0, 0, 0, 0, 0, 0, 7],
        _ => [next, 0, 1, 4, 0, 0, 0, 0],
    };
    kinds.iter().zip(next).flat_map(header).collect()
}

fn send_behind(worlds: &mut Worlds, frame: &[u8], kinds: &[u8]) -> Reason {
    worlds.send(&with_ipv6_extensions(frame, kinds[0], &extensions(kinds))).reason
}

#[test]
fn case_77_ipv6_extension_headers_are_walked() {
    over(Family::V6, &Setup::farm(), |worlds, flow| {
        let first = worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B2);
        let all = [HOP_BY_HOP, DESTINATION, ROUTING, FRAGMENT, DESTINATION, DESTINATION];
        let chains = [&[HOP_BY_HOP][..], &[DESTINATION], &[ROUTING], &[FRAGMENT], &[HOP_BY_HOP, FRAGMENT], &all];
        for kinds in chains {
            assert_eq!(send_behind(worlds, &subflow.join(ISN, TOKEN).frame(), kinds), Reason::JoinToken, "{kinds:?}");
            assert_eq!(send_behind(worlds, &first.data(ISN).frame(), kinds), Reason::Ring, "{kinds:?}");
        }
        let long = [&[TCP, 3, 1, 28][..], &[0; 28]].concat();
        let outcome = worlds.send(&with_ipv6_extensions(&first.data(ISN).frame(), DESTINATION, &long));
        assert_eq!((outcome.reason, outcome.backend), (Reason::Ring, Some(B1)));
    });
}

#[test]
fn case_77_what_cannot_be_walked_is_dropped() {
    over(Family::V6, &Setup::farm(), |worlds, flow| {
        let frame = flow.data(ISN).frame();
        assert_eq!(send_behind(worlds, &frame, &[DESTINATION; 7]), Reason::ExtensionsTooDeep);
        let beyond = [TCP, 200, 1, 4, 0, 0, 0, 0];
        assert_eq!(worlds.send(&with_ipv6_extensions(&frame, DESTINATION, &beyond)).reason, Reason::MalformedIp);
        for offset_and_more in [1_u16, 8, 9] {
            let [high, low] = offset_and_more.to_be_bytes();
            let fragment = [TCP, 0, high, low, 0, 0, 0, 7];
            let outcome = worlds.send(&with_ipv6_extensions(&frame, FRAGMENT, &fragment));
            let reason = if offset_and_more == 1 { Reason::TcpFragment } else { Reason::FragmentUnknown };
            assert_eq!((outcome.reason, outcome.verdict), (reason, Verdict::Drop), "{offset_and_more}");
        }
    });
}

/// One flow for each kind of path: in IPv4, in IPv6, by MAC address.
fn flow_for_each_path(flow: Flow) -> [Flow; 3] {
    [B1, B2, B3].map(|backend| flow.owned_by(backend))
}

#[test]
fn case_80_the_last_hop_is_no_matter_and_nothing_in_the_packet_changes() {
    in_both_worlds(|worlds, flow| {
        let add_addr = [30, 16, 0x30, 2, 203, 0, 113, 9, 1, 2, 3, 4, 5, 6, 7, 8];
        for flow in flow_for_each_path(flow) {
            // The outer header, its checksum and lengths, and every byte behind it are judged of every packet.
            worlds.sends(&flow.plain_syn(ISN).hops(1), Reason::RingNew, flow.owner());
            worlds.sends(&flow.data(ISN).hops(0), Reason::Ring, flow.owner());
            let options = flow.ack(ISN + 1).options(&[&DSS[..], &add_addr].concat());
            for len in [0, 1, 7, 1448, 9000] {
                let segment = options.clone().payload(len).hops(1);
                worlds.sends(&segment, Reason::Ring, flow.owner());
            }
        }
    });
}

#[test]
fn case_80_the_outer_header_has_the_packets_traffic_class_and_its_own_hops() {
    in_both_worlds(|worlds, flow| {
        for flow in flow_for_each_path(flow) {
            for traffic_class in [0, 1, 3, 0x2e << 2, 0xff] {
                let frame = with_traffic_class(&flow.data(ISN).hops(1).frame(), traffic_class);
                let outcome = worlds.send(&frame);
                assert_eq!(outcome.backend, Some(flow.owner()));
                let outer = &outcome.bytes[ETHERNET..];
                let (class, hops) = if outer[0] >> 4 == 4 {
                    let header = Ipv4Header::from_slice(outer).expect("IPv4").0;
                    (header.dscp.value() << 2 | header.ecn.value(), header.time_to_live)
                } else {
                    let header = Ipv6Header::from_slice(outer).expect("IPv6").0;
                    (header.traffic_class, header.hop_limit)
                };
                let expected_hops = if flow.owner() == B3 { 1 } else { 64 };
                assert_eq!((class, hops), (traffic_class, expected_hops));
            }
        }
    });
}

#[test]
fn case_80_padding_behind_a_short_packet_is_no_part_of_it() {
    over(Family::V4, &Setup::farm(), |worlds, flow| {
        for flow in flow_for_each_path(flow) {
            let mut frame = flow.ack(ISN + 1).frame();
            let bare = frame.len() as u64;
            frame.resize(60, 0);
            let outcome = worlds.send(&frame);
            assert_eq!((outcome.backend, outcome.counted_bytes), (Some(flow.owner()), bare));
        }
    });
}

#[test]
fn case_81_the_headers_of_a_packet_of_several_buffers_are_read_from_its_head() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        for (flow, backend) in [B1, B2, B3].map(|owner| (flow.at_port(50_000).owned_by(owner), owner)) {
            for payload in [100, 3000, 5000, 11_000] {
                let frame = flow.data(ISN).payload(payload).frame();
                let headers = frame.len() - payload;
                for head in [headers, headers + 1, 256, 1000, 3000] {
                    if head < frame.len() {
                        let outcome = worlds.send_with_head(&frame, head);
                        assert_eq!((outcome.reason, outcome.backend), (Reason::Ring, Some(backend)), "{head} bytes");
                    }
                }
            }
        }
    });
}

/// The host knows no head. In the kernel options that cannot be read may be a join's: nothing is guessed.
#[test]
fn case_81_a_head_without_all_headers_is_dropped() {
    Kernel::alone(|kernel, flow| {
        for frame in [flow.join(ISN, TOKEN), flow.data(ISN)].map(|segment| segment.payload(5000).frame()) {
            let headers = frame.len() - 5000;
            let tcp = ETHERNET + if flow.vip.is_ipv4() { 20 } else { 40 };
            for head in tcp..headers {
                let outcome = kernel.send_with_head(&frame, head);
                assert_eq!((outcome.reason, outcome.verdict), (Reason::MalformedTcp, Verdict::Drop), "{head} bytes");
            }
        }
    });
}

#[test]
fn case_81_what_a_packet_of_several_buffers_teaches_is_learned() {
    in_both_worlds(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        let frame = flow.first_data(ISN, SERVER_KEY).payload(9000).frame();
        let outcome = worlds.send_with_head(&frame, frame.len() - 9000);
        assert_eq!((outcome.reason, outcome.backend), (Reason::Learned, Some(flow.owner())));
        assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
    });
}

#[test]
fn case_81_a_join_with_data_in_several_buffers_is_reset_like_any() {
    let setup = Setup::farm_with(Ways::LEARN, UnknownJoin::RESET);
    in_both_worlds_of(&setup, |worlds, flow| {
        let join = [&SYN_OPTIONS[..], &crate::worlds::mptcp::join_syn(TOKEN)].concat();
        let frame = flow.syn(ISN).options(&join).payload(6000).frame();
        let outcome = worlds.send_with_head(&frame, frame.len() - 6000);
        assert_eq!((outcome.reason, outcome.verdict), (Reason::JoinUnknownReset, Verdict::Transmit));
    });
}
