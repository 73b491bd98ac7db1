//! ICMP: an error goes to the backend of the flow that it quotes, however little it quotes; an echo request for a VIP is
//! answered; everything else is the host's.

use crate::worlds::{
    Verdict,
    client::ISN,
    frames::{ICMP, ICMPV6, datagram, icmp, packet, pieces},
    in_both_worlds, in_both_worlds_of, oracle,
    packet::{ETHERNET, Flow, with_ipv4_options, with_ipv6_extensions, with_tags},
    setup::{B1, B2, B3, Setup, WEB, ring_of},
    wide::{LEARNING, owner},
};
use lb_common::{reason::Reason, tables::Slot};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A router on the way to the client.
const fn router(flow: Flow) -> IpAddr {
    if flow.vip.is_ipv4() {
        IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99))
    } else {
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 1))
    }
}

/// The types of errors (RFC 792; RFC 4443, 3).
const fn errors(flow: Flow) -> &'static [u8] {
    if flow.vip.is_ipv4() { &[3, 11, 12] } else { &[1, 2, 3, 4] }
}

const fn ip_len(flow: Flow) -> usize {
    if flow.vip.is_ipv4() { 20 } else { 40 }
}

/// What a server sent to the client of a flow.
fn answer_of(flow: Flow) -> Vec<u8> {
    flow.back().data(ISN).frame()
}

/// An error about a frame, of which it quotes so many bytes behind the link's header.
fn error(flow: Flow, kind: u8, frame: &[u8], len: usize) -> Vec<u8> {
    let quoted = &frame[ETHERNET..];
    icmp(router(flow), flow.vip.ip(), kind, 1, [0, 0, 5, 0x78], &quoted[..len.min(quoted.len())])
}

/// An error of each type about what a server sent to the client of a flow.
pub(crate) fn errors_about(flow: Flow) -> Vec<Vec<u8>> {
    errors(flow).iter().map(|&kind| error(flow, kind, &answer_of(flow), 100)).collect()
}

#[test]
fn an_error_goes_to_the_backend_of_the_flow_that_it_quotes() {
    in_both_worlds(|worlds, flow| {
        for backend in [B1, B2, B3] {
            let flow = flow.owned_by(backend);
            for &kind in errors(flow) {
                worlds.gets(&error(flow, kind, &answer_of(flow), 1280), Reason::IcmpError, backend);
            }
            let tagged = with_tags(&error(flow, errors(flow)[0], &answer_of(flow), 100), &[0x88a8, 0x8100]);
            worlds.gets(&tagged, Reason::IcmpError, backend);
        }
        assert_eq!(worlds.state().recent_count(), (0, 0));
    });
}

/// RFC 792 has an error quote the IP header and 8 bytes; the ports are the first four of them.
#[test]
fn eight_bytes_behind_the_quoted_header_are_enough() {
    in_both_worlds(|worlds, flow| {
        for flow in [B1, B2, B3].map(|backend| flow.owned_by(backend)) {
            for len in [4, 8, 20] {
                let cut = error(flow, errors(flow)[0], &answer_of(flow), ip_len(flow) + len);
                worlds.gets(&cut, Reason::IcmpError, flow.owner());
            }
            for len in [0, 1, ip_len(flow) - 1, ip_len(flow), ip_len(flow) + 3] {
                worlds.gets(&error(flow, errors(flow)[0], &answer_of(flow), len), Reason::MalformedIcmp, None);
            }
        }
    });
}

#[test]
fn what_stands_between_the_quoted_headers_is_walked() {
    in_both_worlds(|worlds, flow| {
        let answer = answer_of(flow);
        let quoted = if flow.vip.is_ipv4() {
            with_ipv4_options(&answer, 40)
        } else {
            with_ipv6_extensions(&answer, 60, &[6, 0, 1, 4, 0, 0, 0, 0])
        };
        worlds.gets(&error(flow, errors(flow)[0], &quoted, 100), Reason::IcmpError, flow.owner());
    });
}

#[test]
fn an_error_about_a_joined_subflow_goes_where_the_subflow_lives() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B2);
        worlds.join(subflow, B1);
        for &kind in errors(flow) {
            let cut = error(subflow, kind, &answer_of(subflow), ip_len(flow) + 8);
            worlds.gets(&cut, Reason::IcmpError, B1);
        }
    });
}

#[test]
fn in_a_transition_an_error_follows_its_connection() {
    in_both_worlds(|worlds, flow| {
        let moving: Vec<_> = ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect();
        worlds.change(|world| world.write_ring(WEB, &moving));
        let [old, new] = [20_000, 20_001].map(|port| flow.at_port(port));
        worlds.sends(&new.plain_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&new.ack(ISN + 1), Reason::Moved, B2);
        worlds.gets(&error(old, errors(flow)[0], &answer_of(old), 100), Reason::IcmpError, B1);
        worlds.gets(&error(new, errors(flow)[0], &answer_of(new), 100), Reason::IcmpError, B2);
    });
}

#[test]
fn an_error_about_a_datagram_follows_it() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for flow in (20_000..20_010).map(|port| flow.at_port(port).to_port(5000)) {
            let cut = error(flow, errors(flow)[0], &datagram(flow.back(), b"answer"), ip_len(flow) + 8);
            worlds.gets(&cut, Reason::IcmpError, owner(LEARNING, oracle::hash(flow, 17)));
        }
    });
}

#[test]
fn an_error_about_what_no_vip_has_sent_is_dropped() {
    in_both_worlds(|worlds, flow| {
        let kind = errors(flow)[0];
        let later = pieces(&answer_of(flow), 7, 64).pop().expect("more than one piece");
        let other_port = flow.to_port(22);
        for (name, quoted) in [
            ("by the client", flow.data(ISN).frame()),
            ("by another address", answer_of(flow.to_address(flow.client.ip()))),
            ("from a port of no VIP", answer_of(other_port)),
            ("without ports", later),
        ] {
            println!("sent {name}:");
            let outcome = worlds.gets(&error(flow, kind, &quoted, 100), Reason::IcmpUnrelated, None);
            assert_eq!(outcome.verdict, Verdict::Drop);
        }
    });
}

/// That each reply is one which RFC 792 and RFC 4443 know, with a right checksum, is judged of every packet.
#[test]
fn an_echo_request_for_a_vip_is_answered() {
    in_both_worlds(|worlds, flow| {
        let request = if flow.vip.is_ipv4() { 8 } else { 128 };
        for len in [0, 1, 56, 57, 1400] {
            let frame = icmp(flow.client.ip(), flow.vip.ip(), request, 0, [0x12, 0x34, 0, 1], &vec![0xa5; len]);
            let outcome = worlds.gets(&frame, Reason::EchoAnswered, None);
            assert_eq!(outcome.verdict, Verdict::Transmit);
            let tagged = worlds.gets(&with_tags(&frame, &[0x8100]), Reason::EchoAnswered, None);
            assert_eq!(tagged.verdict, Verdict::Transmit);
        }
    });
}

#[test]
fn an_echo_request_for_anyone_else_is_left_alone() {
    in_both_worlds(|worlds, flow| {
        let request = if flow.vip.is_ipv4() { 8 } else { 128 };
        let frame = icmp(flow.client.ip(), router(flow), request, 0, [0, 1, 0, 1], &[7; 56]);
        assert_eq!(worlds.gets(&frame, Reason::NotVip, None).verdict, Verdict::Pass);
    });
}

#[test]
fn other_messages_for_a_vip_are_the_hosts() {
    in_both_worlds(|worlds, flow| {
        // Echo replies, timestamp requests and redirects; echo replies, neighbour and router discovery.
        let kinds: &[u8] = if flow.vip.is_ipv4() { &[0, 5, 9, 13] } else { &[129, 133, 134, 135, 136, 137] };
        for &kind in kinds {
            let frame = icmp(flow.client.ip(), flow.vip.ip(), kind, 0, [0; 4], &[0; 40]);
            assert_eq!(worlds.gets(&frame, Reason::IcmpOther, None).verdict, Verdict::Pass, "type {kind}");
        }
        let protocol = if flow.vip.is_ipv4() { ICMP } else { ICMPV6 };
        for len in 0..8 {
            let cut = packet(flow.client.ip(), flow.vip.ip(), protocol, &vec![8; len]);
            worlds.gets(&cut, Reason::MalformedIcmp, None);
        }
    });
}

#[test]
fn an_echo_request_in_pieces_is_the_hosts() {
    in_both_worlds(|worlds, flow| {
        if flow.vip.is_ipv4() {
            let frame = icmp(flow.client.ip(), flow.vip.ip(), 8, 0, [0, 1, 0, 1], &[7; 200]);
            let [first, ..] = &pieces(&frame, 9, 64)[..] else { panic!("pieces") };
            assert_eq!(worlds.gets(first, Reason::IcmpOther, None).verdict, Verdict::Pass);
        }
    });
}
