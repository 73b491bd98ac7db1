//! What does not fit the path to a backend, tunnel included: the client is told the longest packet that does, as often as
//! the limit has it.

use crate::{
    floods::{apart, flood},
    worlds::{
        Outcome, Verdict, World,
        client::ISN,
        in_both_worlds_of,
        packet::{Flow, with_tags},
        setup::{B1, B2, B3, ELSEWHERE, Path, Setup},
    },
};
use etherparse::{Icmpv4Type, Icmpv6Type, SlicedPacket, TransportSlice, icmpv4::DestUnreachableHeader};
use lb_common::reason::Reason;

const MTU: u16 = 1500;

/// The farm with paths of 1,500 bytes.
fn narrow() -> Setup {
    let mut setup = Setup::farm();
    for backend in &mut setup.backends {
        backend.mtu = MTU;
    }
    setup
}

/// A packet of this length, from its IP header on.
fn of_len(flow: Flow, len: usize) -> Vec<u8> {
    flow.ack(ISN + 1).payload(len - if flow.vip.is_ipv4() { 40 } else { 60 }).frame()
}

/// The length that an answer tells.
fn told(answer: &Outcome) -> usize {
    assert_eq!(answer.verdict, Verdict::Transmit);
    let packet = SlicedPacket::from_ethernet(&answer.bytes).expect("a packet");
    match packet.transport.expect("ICMP") {
        TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
            Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded { next_hop_mtu }) => {
                next_hop_mtu.into()
            }
            other => panic!("{other:?}"),
        },
        TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
            Icmpv6Type::PacketTooBig { mtu } => mtu as usize,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_client_is_told_what_the_path_takes_without_the_tunnel() {
    in_both_worlds_of(&narrow(), |worlds, flow| {
        for (backend, room) in [(B1, 1500 - 20), (B2, 1500 - 40), (B3, 1500)] {
            let flow = flow.owned_by(backend);
            worlds.gets(&of_len(flow, room), Reason::Ring, backend);
            for len in [room + 1, 9000] {
                let answer = worlds.gets(&of_len(flow, len), Reason::TooBig, None);
                assert_eq!(told(&answer), room);
                let tagged = worlds.gets(&with_tags(&of_len(flow, len), &[0x88a8, 0x8100]), Reason::TooBig, None);
                assert_eq!(told(&tagged), room);
            }
        }
    });
}

/// RFC 8200, 5: no link of IPv6 takes less than 1,280 bytes, and no client would believe it.
#[test]
fn an_ipv6_client_is_told_1280_bytes_at_least() {
    let mut setup = narrow();
    for backend in &mut setup.backends {
        (backend.path, backend.interface, backend.mtu) = (Path::InGue6, ELSEWHERE, 1300);
    }
    in_both_worlds_of(&setup, |worlds, flow| {
        let answer = worlds.gets(&of_len(flow, 1290), Reason::TooBig, None);
        assert_eq!(told(&answer), if flow.vip.is_ipv4() { 1300 - 52 } else { 1280 });
    });
}

#[test]
fn without_a_budget_nobody_is_told() {
    let mut setup = narrow();
    setup.limits.icmp_errors_per_cpu = 0;
    in_both_worlds_of(&setup, |worlds, flow| {
        let outcome = worlds.gets(&of_len(flow, 9000), Reason::TooBigQuiet, None);
        assert_eq!(outcome.verdict, Verdict::Drop);
        worlds.gets(&of_len(flow, 1000), Reason::Ring, flow.owner());
    });
}

#[test]
fn no_more_are_told_than_the_limit_has() {
    const LIMIT: u32 = 3;
    let mut setup = narrow();
    setup.limits.icmp_errors_per_cpu = LIMIT;
    apart(&setup, |world: &mut dyn World, flow| {
        let counts = flood(world, (0..500).map(|port| of_len(flow.at_port(port), 9000)));
        let told = counts.of(Reason::TooBig);
        assert!((LIMIT..=LIMIT * counts.spans * counts.cpus).contains(&told), "{told} were told: {counts:?}");
        assert_eq!(told + counts.of(Reason::TooBigQuiet), 500);
    });
}
