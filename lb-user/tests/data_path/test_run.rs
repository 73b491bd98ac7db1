//! Frame by frame: one line a case, over every kind of path, and one byte below and above what each check is about.

use crate::worlds::{
    Verdict::{self, Drop, Pass, Redirect, Transmit},
    Worlds,
    client::ISN,
    in_both_worlds, in_both_worlds_of,
    mptcp::TOKEN,
    over,
    packet::{ETHERNET, Flow, with_ipv6_extensions, with_tags},
    setup::{B1, B2, B3, PORTS, Setup, WEB, ring_of},
};
use etherparse::PacketBuilder;
use lb_common::{
    ids::{BackendId, VipId},
    reason::Reason,
    tables::{self, UnknownJoin, Ways},
    wire::ip::Family,
};

/// A name, a frame, and what must become of it.
type Case = (&'static str, Vec<u8>, Verdict, Reason, Option<BackendId>);

/// Sends the frames of a table through both worlds.
fn run(worlds: &mut Worlds, cases: impl IntoIterator<Item = Case>) {
    for (name, frame, verdict, reason, backend) in cases {
        println!("{name}:");
        let outcome = worlds.send(&frame);
        assert_eq!((outcome.verdict, outcome.reason, outcome.backend), (verdict, reason, backend), "{name}");
    }
}

/// Bytes of the IP header that the packet builder writes.
fn ip_len(flow: Flow) -> usize {
    if flow.vip.is_ipv4() { 20 } else { 40 }
}

/// The frame with one byte set.
fn with(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

/// The frame's first bytes.
fn cut(frame: &[u8], len: usize) -> Vec<u8> {
    frame[..len].to_vec()
}

/// A frame cut to `segment` bytes behind its IP header, which says so too.
fn with_segment_of(flow: Flow, frame: &[u8], segment: usize) -> Vec<u8> {
    let mut frame = cut(frame, ETHERNET + ip_len(flow) + segment);
    let (at, len) = if flow.vip.is_ipv4() { (ETHERNET + 2, 20 + segment) } else { (ETHERNET + 4, segment) };
    frame[at..at + 2].copy_from_slice(&u16::try_from(len).expect("a short frame").to_be_bytes());
    frame
}

fn udp(flow: Flow) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let (client, vip) = (flow.client, flow.vip);
    let packet = match (client.ip(), vip.ip()) {
        (std::net::IpAddr::V4(client), std::net::IpAddr::V4(vip)) => link.ipv4(client.octets(), vip.octets(), 9),
        (std::net::IpAddr::V6(client), std::net::IpAddr::V6(vip)) => link.ipv6(client.octets(), vip.octets(), 9),
        _ => panic!("{flow:?} is of two families"),
    };
    let mut frame = Vec::new();
    packet.udp(client.port(), vip.port()).write(&mut frame, b"query").expect("a vector takes all");
    frame
}

fn elsewhere(flow: Flow) -> Flow {
    let mut flow = flow;
    std::mem::swap(&mut flow.client, &mut flow.vip);
    flow
}

#[test]
fn frames_that_are_for_no_vip_pass() {
    in_both_worlds(|worlds, flow| {
        let (syn, ip) = (flow.plain_syn(ISN).frame(), ip_len(flow));
        let (below, above) = (flow.to_port(PORTS.start() - 1), flow.to_port(PORTS.end() + 1));
        let far = elsewhere(flow).data(ISN).frame();
        let cases = [
            ("another ethertype", with(syn.clone(), 13, 0x06), Pass, Reason::NotIp, None),
            ("an Ethernet header alone", cut(&syn, ETHERNET), Pass, Reason::Truncated, None),
            ("a byte of IP", cut(&syn, ETHERNET + 1), Pass, Reason::Truncated, None),
            ("a byte below the IP header", cut(&syn, ETHERNET + ip - 1), Pass, Reason::Truncated, None),
            ("another address", far.clone(), Pass, Reason::NotVip, None),
            ("another address alone", cut(&far, ETHERNET + ip), Pass, Reason::NotVip, None),
            ("another address, of no version", with(far.clone(), ETHERNET, 0), Pass, Reason::NotVip, None),
            ("another address, tagged", with_tags(&far, &[0x8100]), Pass, Reason::NotVip, None),
            ("a tag that is cut short", cut(&with_tags(&syn, &[0x8100]), 17), Pass, Reason::Truncated, None),
            ("a port below the VIP's", below.plain_syn(ISN).frame(), Pass, Reason::NoService, None),
            ("a port above the VIP's", above.plain_syn(ISN).frame(), Pass, Reason::NoService, None),
            ("UDP", udp(flow), Pass, Reason::NoService, None),
        ];
        run(worlds, cases);
    });
}

#[test]
fn frames_that_contradict_themselves_are_dropped() {
    in_both_worlds(|worlds, flow| {
        let (syn, ip) = (flow.plain_syn(ISN).frame(), ip_len(flow));
        let tcp = ETHERNET + ip;
        let cases = [
            ("of no IP version", with(syn.clone(), ETHERNET, 0x55), Drop, Reason::MalformedIp, None),
            ("an IP header alone", cut(&syn, tcp), Drop, Reason::MalformedIp, None),
            ("a byte less than IP says", cut(&syn, syn.len() - 1), Drop, Reason::MalformedIp, None),
            ("no segment", with_segment_of(flow, &syn, 0), Drop, Reason::MalformedTcp, None),
            ("a byte below the TCP header", with_segment_of(flow, &syn, 19), Drop, Reason::MalformedTcp, None),
            ("a TCP header without its options", with_segment_of(flow, &syn, 20), Drop, Reason::MalformedTcp, None),
            ("a byte below the TCP options", with_segment_of(flow, &syn, 39), Drop, Reason::MalformedTcp, None),
            ("a data offset of 4", with(syn.clone(), tcp + 12, 0x40), Drop, Reason::MalformedTcp, None),
            ("a data offset beyond the packet", with(syn, tcp + 12, 0xb0), Drop, Reason::MalformedTcp, None),
        ];
        run(worlds, cases);
    });
}

#[test]
fn ipv4_headers_out_of_form_are_dropped() {
    over(Family::V4, &Setup::farm(), |worlds, flow| {
        let syn = flow.plain_syn(ISN).frame();
        let fragment = |high, low| with(with(syn.clone(), ETHERNET + 6, high), ETHERNET + 7, low);
        let cases = [
            ("a header of 4 words", with(syn.clone(), ETHERNET, 0x44), Drop, Reason::MalformedIp, None),
            ("a length below the header's", with(syn.clone(), ETHERNET + 3, 19), Drop, Reason::MalformedIp, None),
            ("a header that takes it all", with(syn.clone(), ETHERNET, 0x4f), Drop, Reason::MalformedTcp, None),
            ("a first fragment", fragment(0x20, 0), Drop, Reason::TcpFragment, None),
            ("a later fragment", fragment(0x20, 1), Drop, Reason::FragmentUnknown, None),
            ("a last fragment", fragment(0, 185), Drop, Reason::FragmentUnknown, None),
            ("not to be fragmented", fragment(0x40, 0), expected(flow).0, Reason::RingNew, Some(flow.owner())),
        ];
        run(worlds, cases);
    });
}

#[test]
fn ipv6_extension_headers_that_are_cut_short_are_dropped() {
    over(Family::V6, &Setup::farm(), |worlds, flow| {
        let syn = flow.plain_syn(ISN).frame();
        let one = with_ipv6_extensions(&syn, 60, &[6, 0, 1, 4, 0, 0, 0, 0]);
        let alone = |len: usize| with_segment_of(flow, &one, len);
        let seven = with_ipv6_extensions(&syn, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(7));
        let nothing = with_ipv6_extensions(&syn, 60, &[59, 0, 1, 4, 0, 0, 0, 0]);
        let cases = [
            ("one", one.clone(), expected(flow).0, Reason::RingNew, Some(flow.owner())),
            ("nothing where one should be", alone(0), Drop, Reason::MalformedIp, None),
            ("a byte below its first word", alone(3), Drop, Reason::MalformedIp, None),
            ("a byte below all of it", alone(7), Drop, Reason::MalformedIp, None),
            ("one and no segment", alone(8), Drop, Reason::MalformedTcp, None),
            ("seven", seven, Drop, Reason::ExtensionsTooDeep, None),
            ("no next header", nothing, Pass, Reason::NoService, None),
        ];
        run(worlds, cases);
    });
}

/// Every length that a frame can be cut to.
#[test]
fn a_truncated_frame_goes_nowhere() {
    in_both_worlds(|worlds, flow| {
        let frame = flow.capable_syn(ISN).payload(3).frame();
        let ip = ETHERNET + ip_len(flow);
        for len in ETHERNET..frame.len() {
            let outcome = worlds.send(&frame[..len]);
            let expected = if len < ip { (Pass, Reason::Truncated) } else { (Drop, Reason::MalformedIp) };
            assert_eq!((outcome.verdict, outcome.reason), expected, "{len} bytes");
        }
        assert_eq!(worlds.send(&frame).reason, Reason::RingNew);
    });
}

/// How the farm's ring sends a flow: B2 alone is behind another interface.
fn expected(flow: Flow) -> (Verdict, Option<BackendId>) {
    let backend = flow.owner();
    (if backend == B2 { Redirect } else { Transmit }, Some(backend))
}

#[test]
fn every_kind_of_path_takes_both_ip_versions() {
    in_both_worlds(|worlds, flow| {
        let [in_v4, in_v6, l2] = [B1, B2, B3].map(|backend| flow.owned_by(backend));
        let syn = |flow: Flow| flow.capable_syn(ISN).frame();
        let data = |flow: Flow| flow.data(ISN).frame();
        let mut both = in_v4.syn(ISN);
        both.tcp.rst = true;
        let cases = [
            ("a SYN in IPv4", syn(in_v4), Transmit, Reason::RingNew, Some(B1)),
            ("a SYN in IPv6", syn(in_v6), Redirect, Reason::RingNew, Some(B2)),
            ("a SYN by MAC address", syn(l2), Transmit, Reason::RingNew, Some(B3)),
            ("data in IPv4", data(in_v4), Transmit, Reason::Ring, Some(B1)),
            ("data in IPv6", data(in_v6), Redirect, Reason::Ring, Some(B2)),
            ("data by MAC address", data(l2), Transmit, Reason::Ring, Some(B3)),
            ("SYN and RST", both.frame(), Transmit, Reason::Ring, Some(B1)),
            ("the VIP's last port", syn(in_v4.to_port(*PORTS.end()).owned_by(B2)), Redirect, Reason::RingNew, Some(B2)),
        ];
        run(worlds, cases);
    });
}

#[test]
fn a_packet_and_its_vip_are_counted_once_with_its_bytes() {
    in_both_worlds(|worlds, flow| {
        let vip = if flow.vip.is_ipv4() { VipId(1) } else { VipId(2) };
        let sent = worlds.send(&flow.data(ISN).frame());
        let bytes = |frame: Vec<u8>| frame.len() as u64;
        assert_eq!((sent.vip, sent.counted_bytes), (vip, bytes(flow.data(ISN).frame())));
        let unsent = worlds.send(&flow.join(ISN, TOKEN).frame());
        assert_eq!((unsent.vip, unsent.counted_bytes), (vip, bytes(flow.join(ISN, TOKEN).frame())));
        let passed = worlds.send(&elsewhere(flow).data(ISN).frame());
        assert_eq!((passed.vip, passed.counted_bytes), (VipId(0), bytes(elsewhere(flow).data(ISN).frame())));
    });
}

#[test]
fn what_is_too_big_for_the_path_is_answered() {
    let mut setup = Setup::farm();
    for backend in &mut setup.backends {
        backend.mtu = 1500;
    }
    in_both_worlds_of(&setup, |worlds, flow| {
        for backend in &setup.backends {
            let flow = flow.owned_by(backend.id);
            let tunnel = backend.path.tunnel_len();
            let room = 1500 - tunnel - ip_len(flow) - 20;
            let packet = |payload| flow.ack(ISN + 1).payload(payload).frame();
            let (verdict, backend) = expected(flow);
            let cases = [
                ("the longest", packet(room), verdict, Reason::Ring, backend),
                ("a byte more", packet(room + 1), Transmit, Reason::TooBig, None),
                ("far more", packet(9000), Transmit, Reason::TooBig, None),
            ];
            run(worlds, cases);
        }
    });
}

#[test]
fn without_a_backend_a_packet_is_dropped() {
    let mut setup = Setup::farm();
    setup.pools[0].ring = ring_of(&[BackendId::NONE]);
    in_both_worlds_of(&setup, |worlds, flow| {
        let cases = [
            ("a SYN for an empty pool", flow.plain_syn(ISN).frame(), Drop, Reason::NoBackend, None),
            ("data for an empty pool", flow.data(ISN).frame(), Drop, Reason::NoBackend, None),
            ("keys for an empty pool", flow.third_ack(ISN, [7; 8]).frame(), Drop, Reason::NoBackend, None),
        ];
        run(worlds, cases);
        assert!(worlds.state().tokens.is_empty());
    });
}

#[test]
fn a_backend_that_is_gone_gets_nothing() {
    in_both_worlds(|worlds, flow| {
        let (gone, stays) = (flow.owned_by(B1), flow.owned_by(B2));
        worlds.change(|world| world.write_backend(B1, tables::Backend::GONE));
        let cases = [
            ("a SYN", gone.plain_syn(ISN).frame(), Drop, Reason::BackendGone, None),
            ("data", gone.data(ISN).frame(), Drop, Reason::BackendGone, None),
            ("another's SYN", stays.plain_syn(ISN).frame(), Redirect, Reason::RingNew, Some(B2)),
        ];
        run(worlds, cases);
        worlds.change(|world| world.write_ring(WEB, &ring_of(&[BackendId(15)])));
        let outcome = worlds.send(&stays.plain_syn(ISN).frame());
        assert_eq!((outcome.verdict, outcome.reason), (Drop, Reason::BackendGone), "an id of no backend");
    });
}

/// That the reset is one which a TCP stack takes is judged of every packet that is answered.
#[test]
fn an_unknown_join_is_answered_by_a_reset() {
    in_both_worlds_of(&Setup::farm_with(Ways::LEARN, UnknownJoin::RESET), |worlds, flow| {
        let reset = |frame| ("an unknown join", frame, Transmit, Reason::JoinUnknownReset, None);
        let join = |isn| flow.join(isn, TOKEN);
        let cases = [
            reset(join(ISN).frame()),
            reset(join(u32::MAX).frame()),
            reset(join(u32::MAX).payload(2).frame()),
            reset(join(0).hops(1).payload(1300).frame()),
            ("another SYN", flow.plain_syn(ISN).frame(), expected(flow).0, Reason::RingNew, Some(flow.owner())),
        ];
        run(worlds, cases);
        let behind = if flow.vip.is_ipv4() {
            crate::worlds::packet::with_ipv4_options(&join(ISN).frame(), 40)
        } else {
            with_ipv6_extensions(&join(ISN).frame(), 60, &[0, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0])
        };
        run(worlds, [reset(behind)]);
    });
}
