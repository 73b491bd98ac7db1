//! VIPs: exact addresses, prefixes, one port, ranges and any; what several of one pool share.

use crate::worlds::{
    Verdict, Worlds,
    client::ISN,
    frames::{datagram, packet},
    in_both_worlds_of,
    mptcp::{SERVER_KEY, TOKEN},
    oracle::flow_hash,
    packet::Flow,
    setup::Setup,
    wide::{HASHING, LEARNING, open_address, owner, prefix_addresses},
};
use lb_common::{ids::VipId, reason::Reason, wire::ip::Family};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// VIPs of the wide farm for each IP version.
const VIPS: u16 = 14;

const fn family(flow: Flow) -> Family {
    if flow.vip.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// The VIP with this place in the list of its IP version's.
const fn vip(flow: Flow, place: u16) -> VipId {
    VipId(if flow.vip.is_ipv4() { place } else { VIPS + place })
}

fn vip_of(worlds: &mut Worlds, frame: &[u8]) -> VipId {
    worlds.send(frame).vip
}

fn v4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, host, host, host, host))
}

/// `192.0.2.128/25` and `192.0.2.240/28` within; `2001:db8:0:8000::/52` and `2001:db8:0:8f00::/56` within.
#[test]
fn the_longest_prefix_has_its_addresses_from_the_first_to_the_last() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let (wide, narrow, none) = match family(flow) {
            Family::V4 => (vec![v4(128), v4(200), v4(239)], vec![v4(240), v4(255)], vec![v4(127), v4(9)]),
            Family::V6 => (
                vec![v6(0x8000, 0), v6(0x8eff, 0xffff)],
                vec![v6(0x8f00, 0), v6(0x8fff, 0xffff)],
                vec![v6(0x7fff, 0xffff), v6(0x9000, 0)],
            ),
        };
        for (addresses, tcp, udp) in [(wide, 10, 11), (narrow, 12, 13)] {
            for flow in addresses.into_iter().map(|address| flow.to_address(address)) {
                assert_eq!(vip_of(worlds, &flow.plain_syn(ISN).frame()), vip(flow, tcp), "{flow:?}");
                assert_eq!(vip_of(worlds, &datagram(flow, b"x")), vip(flow, udp), "{flow:?}");
            }
        }
        for flow in none.into_iter().map(|address| flow.to_address(address)) {
            let outcome = worlds.gets(&flow.plain_syn(ISN).frame(), Reason::NotVip, None);
            assert_eq!((outcome.verdict, outcome.vip), (Verdict::Pass, VipId::NONE), "{flow:?}");
        }
    });
}

#[test]
fn each_prefix_has_the_ring_of_its_pool() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for (address, pool) in prefix_addresses(family(flow)).into_iter().zip([LEARNING, HASHING]) {
            for port in [1, 80, u16::MAX] {
                let flow = flow.to_address(address).to_port(port);
                let backend = owner(pool, flow_hash(flow));
                worlds.gets(&flow.plain_syn(ISN).frame(), Reason::RingNew, backend);
                worlds.gets(&flow.data(ISN).frame(), Reason::Ring, backend);
            }
        }
    });
}

#[test]
fn a_range_of_ports_has_its_ends() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for (port, place) in [(5000, 7), (5500, 7), (5999, 7), (443, 5), (53, 6)] {
            assert_eq!(vip_of(worlds, &datagram(flow.to_port(port), b"x")), vip(flow, place), "UDP {port}");
        }
        for (port, place) in [(8000, 1), (8001, 1), (443, 2), (25, 3), (110, 4)] {
            assert_eq!(vip_of(worlds, &flow.to_port(port).plain_syn(ISN).frame()), vip(flow, place), "TCP {port}");
        }
        for port in [0, 52, 54, 442, 4999, 6000, u16::MAX] {
            worlds.gets(&datagram(flow.to_port(port), b"x"), Reason::NoService, None);
        }
        for port in [0, 24, 26, 7999, 8002, u16::MAX] {
            worlds.gets(&flow.to_port(port).plain_syn(ISN).frame(), Reason::NoService, None);
        }
    });
}

#[test]
fn any_port_is_every_port() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let flow = flow.to_address(open_address(family(flow)));
        for port in [0, 1, 80, 8000, 32_768, u16::MAX] {
            assert_eq!(vip_of(worlds, &flow.to_port(port).plain_syn(ISN).frame()), vip(flow, 8), "TCP {port}");
            assert_eq!(vip_of(worlds, &datagram(flow.to_port(port), b"x")), vip(flow, 9), "UDP {port}");
        }
    });
}

#[test]
fn a_protocol_without_ports_is_the_hosts() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for address in [flow.vip.ip(), open_address(family(flow))] {
            // GRE, ESP, SCTP.
            for protocol in [47, 50, 132] {
                let frame = packet(flow.client.ip(), address, protocol, &[0; 40]);
                assert_eq!(worlds.gets(&frame, Reason::NoService, None).verdict, Verdict::Pass, "{protocol}");
            }
        }
    });
}

#[test]
fn the_vips_of_a_pool_share_tokens_across_address_port_and_family() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        worlds.gets(&flow.capable_syn(ISN).frame(), Reason::RingNew, owner(LEARNING, flow_hash(flow)));
        let home =
            worlds.gets(&flow.third_ack(ISN, SERVER_KEY).frame(), Reason::Learned, owner(LEARNING, flow_hash(flow)));
        for family in [Family::V4, Family::V6] {
            let subflow = Flow::new(family).at_second_address();
            let [wide, _] = prefix_addresses(family);
            for subflow in [subflow, subflow.to_port(8001), subflow.to_address(wide).to_port(77)] {
                worlds.gets(&subflow.join(ISN, TOKEN).frame(), Reason::JoinToken, home.backend);
                assert_eq!(worlds.send(&subflow.join_ack(ISN).frame()).backend, home.backend);
                assert_eq!(worlds.send(&subflow.data(ISN).frame()).backend, home.backend);
            }
        }
    });
}

#[test]
fn pools_share_no_tokens() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        worlds.gets(&flow.capable_syn(ISN).frame(), Reason::RingNew, owner(LEARNING, flow_hash(flow)));
        worlds.gets(&flow.third_ack(ISN, SERVER_KEY).frame(), Reason::Learned, owner(LEARNING, flow_hash(flow)));
        let [hashing, resetting] = [443, 25].map(|port| flow.at_second_address().to_port(port));
        let by_ring = owner(HASHING, flow_hash(hashing));
        worlds.gets(&hashing.join(ISN, TOKEN).frame(), Reason::JoinUnknownHashed, by_ring);
        let outcome = worlds.gets(&resetting.join(ISN, TOKEN).frame(), Reason::JoinUnknownReset, None);
        assert_eq!(outcome.verdict, Verdict::Transmit);
    });
}
