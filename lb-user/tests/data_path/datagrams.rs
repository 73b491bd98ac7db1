//! UDP and QUIC: a datagram opens nothing and leaves no trace, but where its slot is in transition; a connection id that
//! names a server goes to it from wherever the client is.

use crate::worlds::{
    Memory, Worlds,
    frames::{UDP, datagram, packet, quic_long, quic_short},
    in_both_worlds_of,
    oracle::{hash, source_hash},
    packet::Flow,
    setup::{Setup, vip_address},
    wide::{AFFINE, LEARNING, QUIC, QUIC_ID_LEN, open_address, owner, quic_id},
};
use lb_common::{
    ids::BackendId,
    reason::Reason,
    tables::{self, Slot},
    wire::ip::Family,
};

/// The kinds of QUIC's long header in version 1 (RFC 9000, 17.2).
const INITIAL: u8 = 0;
const HANDSHAKE: u8 = 2;
/// What a client makes up for its first packets: its first three bits are no server's rotation.
const MADE_UP: [u8; 8] = [0x5f, 1, 2, 3, 4, 5, 6, 7];

/// The connection id that a server gave out: rotation, its id, and what only it understands.
fn connection_id(rotation: u8, backend: u16) -> Vec<u8> {
    [&[rotation << 5 | 0x0b][..], &quic_id(backend), &[0xa5; 3]].concat()
}

fn by_flow(flow: Flow) -> BackendId {
    owner(QUIC, hash(flow, UDP)).expect("this ring has no gaps")
}

#[test]
fn a_datagram_goes_by_the_ring_and_leaves_no_trace() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let before = worlds.state();
        for flow in (20_000..20_040).map(|port| flow.at_port(port).to_port(5000)) {
            for len in [0, 1, 512, 1400] {
                worlds.gets(&datagram(flow, &vec![7; len]), Reason::Ring, owner(LEARNING, hash(flow, UDP)));
            }
        }
        assert_eq!(worlds.state(), before);
    });
}

/// RFC 768: the length counts the header, and there is no more of it than of the packet.
#[test]
fn a_datagram_that_contradicts_itself_is_dropped() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let flow = flow.to_port(5000);
        let of_len = |len: u16, content: usize| {
            let ports = [flow.client.port(), flow.vip.port(), len, 0].map(u16::to_be_bytes).concat();
            packet(flow.client.ip(), flow.vip.ip(), UDP, &[&ports[..], &vec![7; content]].concat())
        };
        for (len, content) in [(7, 4), (0, 4), (13, 4), (u16::MAX, 4), (9, 0)] {
            worlds.gets(&of_len(len, content), Reason::MalformedUdp, None);
        }
        worlds.gets(&of_len(12, 4), Reason::Ring, owner(LEARNING, hash(flow, UDP)));
        worlds.gets(&of_len(8, 4), Reason::Ring, owner(LEARNING, hash(flow, UDP)));
        let cut = packet(flow.client.ip(), flow.vip.ip(), UDP, &[0; 7]);
        worlds.gets(&cut, Reason::MalformedUdp, None);
    });
}

#[test]
fn a_connection_id_names_its_server_in_both_headers() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let flow = flow.to_port(443);
        for (rotation, backend) in [0, 1].into_iter().flat_map(|rotation| (1..=7).map(move |id| (rotation, id))) {
            let id = connection_id(rotation, backend);
            for payload in [quic_short(&id), quic_long(HANDSHAKE, 1, &id), quic_long(INITIAL, 1, &id)] {
                worlds.gets(&datagram(flow, &payload), Reason::QuicServer, BackendId(backend));
            }
        }
    });
}

#[test]
fn a_client_that_migrates_stays_with_its_server() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let flow = flow.to_port(443);
        let backend = by_flow(flow);
        worlds.gets(&datagram(flow, &quic_long(INITIAL, 1, &MADE_UP)), Reason::Ring, backend);
        let id = connection_id(0, backend.0);
        worlds.gets(&datagram(flow, &quic_long(HANDSHAKE, 1, &id)), Reason::QuicServer, backend);
        let other = if flow.vip.is_ipv4() { Family::V6 } else { Family::V4 };
        let elsewhere = [flow.at_port(1024), flow.at_second_address(), Flow::new(other).to_port(443)];
        assert!(elsewhere.iter().any(|&flow| by_flow(flow) != backend), "the ring has these at the same backend");
        for flow in elsewhere {
            worlds.gets(&datagram(flow, &quic_short(&id)), Reason::QuicServer, backend);
        }
    });
}

#[test]
fn an_id_that_names_no_server_goes_by_the_flow() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let flow = flow.to_port(443);
        worlds.change(|world| world.write_backend(BackendId(3), tables::Backend::GONE));
        let flow = (40_000..).map(|port| flow.at_port(port)).find(|&flow| by_flow(flow) != BackendId(3));
        let flow = flow.expect("most flows are another's");
        let long = |len: usize| quic_long(HANDSHAKE, 1, &connection_id(0, 1)[..len]);
        let cases = [
            ("no server's", quic_short(&connection_id(0, 500))),
            ("of a rotation without servers", quic_short(&connection_id(2, 1))),
            ("not to be routed", quic_short(&connection_id(7, 1))),
            ("of a server that is gone", quic_short(&connection_id(0, 3))),
            ("as long as a server's id", long(usize::from(QUIC_ID_LEN))),
            ("none", long(0)),
            ("cut short", quic_short(&connection_id(0, 1))[..7].to_vec()),
            ("no datagram of QUIC's", Vec::new()),
        ];
        for (name, payload) in cases {
            println!("{name}:");
            worlds.gets(&datagram(flow, &payload), Reason::Ring, by_flow(flow));
        }
        worlds.gets(&datagram(flow, &long(1 + usize::from(QUIC_ID_LEN))), Reason::QuicServer, BackendId(1));
    });
}

/// Writes the QUIC pool's ring anew: all slots go from one backend to another.
fn move_slots(worlds: &mut Worlds, state: impl Fn(Slot) -> Slot) {
    let moving = Slot::in_transition(BackendId(2), BackendId(1));
    let ring = vec![state(moving); tables::RING_SLOTS as usize];
    worlds.change(|world| world.write_ring(QUIC, &ring));
}

#[test]
fn in_a_transition_a_flow_stays_and_an_initial_begins_at_the_new_owner() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let [old, new, late] = [20_000, 20_001, 20_002].map(|port| flow.at_port(port).to_port(443));
        let data = |flow| datagram(flow, &quic_short(&MADE_UP));
        let initial = |flow| datagram(flow, &quic_long(INITIAL, 1, &MADE_UP));
        move_slots(worlds, Slot::keeping_datagrams);
        worlds.gets(&data(old), Reason::RingPrevious, BackendId(1));
        worlds.gets(&data(old), Reason::Datagram, BackendId(1));
        worlds.gets(&initial(new), Reason::Ring, BackendId(2));
        worlds.gets(&data(new), Reason::Datagram, BackendId(2));
        move_slots(worlds, Slot::moving_datagrams);
        worlds.gets(&data(old), Reason::Datagram, BackendId(1));
        worlds.gets(&data(late), Reason::Ring, BackendId(2));
        worlds.change(|world| world.write_backend(BackendId(1), tables::Backend::GONE));
        worlds.gets(&data(old), Reason::Ring, BackendId(2));
        assert!(worlds.state().moved.is_empty() && worlds.state().pinned.is_empty(), "datagrams have no entries");
        assert!(worlds.recent(Memory::Pending, hash(old, UDP)).is_none());
    });
}

#[test]
fn with_affinity_all_of_a_source_goes_to_one_backend() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let open = open_address(if flow.vip.is_ipv4() { Family::V4 } else { Family::V6 });
        for source in [flow, flow.at_second_address()] {
            let backend = owner(AFFINE, source_hash(source.client.ip())).expect("this ring has no gaps");
            for source in (20_000..20_010).map(|port| source.at_port(port)) {
                worlds.gets(&datagram(source.to_port(53), b"query"), Reason::Ring, backend);
                let segment = source.to_address(open).to_port(source.client.port());
                worlds.sends(&segment.plain_syn(1), Reason::RingNew, backend);
                worlds.sends(&segment.ack(2), Reason::Ring, backend);
            }
        }
    });
}

#[test]
fn without_affinity_a_source_is_spread() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        assert_eq!(flow.vip.ip(), vip_address(if flow.vip.is_ipv4() { Family::V4 } else { Family::V6 }));
        let sent = (20_000..20_100).map(|port| worlds.send(&datagram(flow.at_port(port).to_port(5999), b"x")).backend);
        let backends: std::collections::BTreeSet<_> = sent.flatten().collect();
        assert_eq!(backends.len(), 5, "a hundred flows reach every backend");
    });
}
