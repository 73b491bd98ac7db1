//! Datagrams in pieces: all go where the first went. Of TCP only a pool that says so takes any.

use crate::worlds::{
    Verdict,
    client::ISN,
    frames::{UDP, datagram, pieces, quic_short},
    in_both_worlds_of,
    oracle::{flow_hash, hash},
    packet::with_tags,
    setup::Setup,
    wide::{HASHING, LEARNING, owner, quic_id},
};
use lb_common::{ids::BackendId, reason::Reason};

#[test]
fn all_pieces_of_a_datagram_reach_one_backend() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for (flow, number) in (20_000..20_020).map(|port| flow.at_port(port).to_port(5000)).zip(70_000..) {
            let backend = owner(LEARNING, hash(flow, UDP));
            let pieces = pieces(&datagram(flow, &[7; 3000]), number, 1000);
            let [first, later @ ..] = &pieces[..] else { panic!("pieces") };
            assert_eq!(later.len(), 3);
            worlds.gets(first, Reason::Ring, backend);
            for piece in later.iter().rev() {
                worlds.gets(piece, Reason::FragmentLater, backend);
                worlds.gets(&with_tags(piece, &[0x8100]), Reason::FragmentLater, backend);
            }
        }
    });
}

#[test]
fn a_piece_before_the_first_is_dropped() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let flow = flow.to_port(5000);
        let pieces = pieces(&datagram(flow, &[7; 1000]), 5, 512);
        let outcome = worlds.gets(&pieces[1], Reason::FragmentUnknown, None);
        assert_eq!(outcome.verdict, Verdict::Drop);
        worlds.gets(&pieces[0], Reason::Ring, owner(LEARNING, hash(flow, UDP)));
        worlds.gets(&pieces[1], Reason::FragmentLater, owner(LEARNING, hash(flow, UDP)));
    });
}

#[test]
fn datagrams_with_one_number_are_told_apart() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let flow = flow.to_port(5000);
        let first = pieces(&datagram(flow, &[7; 1000]), 5, 512);
        worlds.gets(&first[0], Reason::Ring, owner(LEARNING, hash(flow, UDP)));
        let stranger = pieces(&datagram(flow.at_second_address(), &[7; 1000]), 5, 512);
        worlds.gets(&stranger[1], Reason::FragmentUnknown, None);
        let another = pieces(&datagram(flow, &[7; 1000]), 6, 512);
        worlds.gets(&another[1], Reason::FragmentUnknown, None);
        let of_tcp = pieces(&flow.data(ISN).payload(1000).frame(), 5, 512);
        worlds.gets(&of_tcp[1], Reason::FragmentUnknown, None);
    });
}

#[test]
fn pieces_follow_the_server_that_the_first_one_names() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for backend in 1..=7 {
            let id = [&[0x0b][..], &quic_id(backend), &[0; 3]].concat();
            let payload = [quic_short(&id), vec![7; 1000]].concat();
            let pieces = pieces(&datagram(flow.to_port(443), &payload), backend.into(), 512);
            worlds.gets(&pieces[0], Reason::QuicServer, BackendId(backend));
            worlds.gets(&pieces[1], Reason::FragmentLater, BackendId(backend));
        }
    });
}

#[test]
fn what_goes_nowhere_takes_its_pieces_along() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let pieces = pieces(&datagram(flow.to_port(6000), &[7; 1000]), 5, 512);
        assert_eq!(worlds.gets(&pieces[0], Reason::NoService, None).verdict, Verdict::Pass);
        assert_eq!(worlds.gets(&pieces[1], Reason::FragmentUnknown, None).verdict, Verdict::Drop);
    });
}

#[test]
fn tcp_in_pieces_is_dropped_and_told_apart() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let pieces = pieces(&flow.data(ISN).payload(1000).frame(), 5, 512);
        let first = worlds.gets(&pieces[0], Reason::TcpFragment, None);
        let later = worlds.gets(&pieces[1], Reason::FragmentUnknown, None);
        assert_eq!([first.verdict, later.verdict], [Verdict::Drop; 2]);
    });
}

#[test]
fn tcp_in_pieces_is_taken_where_the_pool_says_so() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        for flow in (20_000..20_010).map(|port| flow.at_port(port).to_port(443)) {
            let backend = owner(HASHING, flow_hash(flow));
            let pieces = pieces(&flow.data(ISN).payload(1000).frame(), flow.client.port().into(), 512);
            worlds.gets(&pieces[0], Reason::Ring, backend);
            worlds.gets(&pieces[1], Reason::FragmentLater, backend);
            worlds.gets(&pieces[2], Reason::FragmentLater, backend);
        }
    });
}

/// RFC 1858, 3: a first piece that hides a part of the header is an attack.
#[test]
fn a_first_piece_without_the_whole_header_is_dropped() {
    in_both_worlds_of(&Setup::wide(), |worlds, flow| {
        let tiny = pieces(&flow.to_port(443).data(ISN).payload(1000).frame(), 5, 8);
        assert_eq!(worlds.gets(&tiny[0], Reason::MalformedTcp, None).verdict, Verdict::Drop);
        worlds.gets(&tiny[1], Reason::FragmentUnknown, None);
    });
}
