//! Whatever stands in a TCP header is read as a stock Linux server reads it, and forwarded as it is.

use crate::worlds::{
    Verdict, Worlds,
    client::ISN,
    in_both_worlds,
    mptcp::{CLIENT_KEY, DSS, SERVER_KEY, TIMESTAMPS, TOKEN, V1, capable_ack, join_syn},
    packet::{ETHERNET, Flow},
    setup::{B1, B2},
};
use lb_common::reason::Reason;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use std::cell::RefCell;

/// Sends a SYN with these options on a flow that the ring gives to B2. An `MP_JOIN` among them names a connection at B1:
/// the backend tells whether it was seen.
#[track_caller]
fn sees_join(worlds: &mut Worlds, flow: Flow, options: &[u8]) -> bool {
    let outcome = worlds.send(&flow.owned_by(B2).syn(ISN).options(options).frame());
    match (outcome.reason, outcome.backend) {
        (Reason::JoinToken, Some(B1)) => true,
        (Reason::RingNew, Some(B2)) => false,
        other => panic!("{other:?} for {options:?}"),
    }
}

/// Asserts for every options field whether the join behind or within it is seen.
#[track_caller]
fn all_see_join(expected: bool, fields: &[Vec<u8>]) {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        for options in fields {
            assert_eq!(sees_join(worlds, flow, options), expected, "{options:?}");
        }
    });
}

fn before_join(options: &[u8]) -> Vec<u8> {
    [options, &join_syn(TOKEN)].concat()
}

#[test]
fn case_62_an_mptcp_option_of_length_0_or_1_ends_the_walk() {
    all_see_join(false, &[[30, 0], [30, 1]].map(|bad| before_join(&bad)));
}

#[test]
fn case_64_a_length_beyond_the_header_ends_the_walk() {
    let cut_off = [&[1; 36][..], &[30, 12, 0x10, 2]].concat();
    all_see_join(false, &[before_join(&[254, 39]), before_join(&[30, 255]), before_join(&[1, 1, 2, 15]), cut_off]);
    all_see_join(true, &[before_join(&[254, 28, 0, 0].repeat(7))]);
}

#[test]
fn case_65_the_end_of_options_hides_what_follows() {
    all_see_join(
        false,
        &[before_join(&[0]), before_join(&[1, 1, 1, 0]), before_join(&[&TIMESTAMPS[..], &[0]].concat())],
    );
}

#[test]
fn case_66_nops_and_odd_places_make_no_difference() {
    let nops = (0..=28).map(|nops| before_join(&vec![1; nops]));
    let first = (0..=3).map(|nops| [&join_syn(TOKEN)[..], &vec![1; nops], &TIMESTAMPS].concat());
    let middle = (0..=3).map(|nops| [&[2, 4, 5, 0xb4][..], &vec![1; nops], &join_syn(TOKEN), &TIMESTAMPS].concat());
    let last = (0..=3).map(|nops| before_join(&[&TIMESTAMPS[..], &vec![1; nops]].concat()));
    all_see_join(true, &nops.chain(first).chain(middle).chain(last).collect::<Vec<_>>());
}

#[test]
fn case_67_keys_in_the_second_mptcp_option_are_found() {
    let add_addr = [30, 16, 0x30, 2, 203, 0, 113, 9, 1, 2, 3, 4, 5, 6, 7, 8];
    let echo = [30, 8, 0x31, 2, 203, 0, 113, 9];
    let keys = capable_ack(V1, CLIENT_KEY, SERVER_KEY);
    let none = [[&DSS[..], &add_addr].concat(), [&echo[..], &DSS].concat()];
    let keyed = [[&DSS[..], &keys].concat(), [&add_addr[..], &keys].concat(), [&keys[..], &echo, &DSS].concat()];
    for keyed in &keyed {
        in_both_worlds(|worlds, flow| {
            worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
            for without_keys in &none {
                worlds.sends(&flow.ack(ISN + 1).options(without_keys), Reason::Ring, flow.owner());
            }
            worlds.sends(&flow.ack(ISN + 1).options(keyed), Reason::Learned, flow.owner());
            assert_eq!(worlds.state().holders(TOKEN), [flow.owner()]);
        });
    }
    all_see_join(true, &[before_join(&DSS), before_join(&add_addr), before_join(&[echo, DSS].concat())]);
}

#[test]
fn case_69_an_impossible_data_offset_is_dropped() {
    in_both_worlds(|worlds, flow| {
        let frame = flow.data(ISN).frame();
        let beyond = |words: &u8| usize::from(*words) * 4 > frame.len() - tcp_at(flow);
        let short = flow.ack(ISN).frame();
        for words in (0..5).chain((6..16).filter(|words| usize::from(*words) * 4 > short.len() - tcp_at(flow))) {
            let mut bad = short.clone();
            bad[tcp_at(flow) + 12] = words << 4;
            let outcome = worlds.send(&bad);
            assert_eq!((outcome.reason, outcome.verdict), (Reason::MalformedTcp, Verdict::Drop), "{words} words");
        }
        assert!(!(0..16).any(|words| beyond(&words)), "this one has payload enough");
        for words in 5..16 {
            let mut odd = frame.clone();
            odd[tcp_at(flow) + 12] = words << 4;
            assert_eq!(worlds.send(&odd).reason, Reason::Ring, "{words} words");
        }
    });
}

#[test]
fn case_69_a_data_offset_of_15_is_read_in_full() {
    let full = before_join(&[1; 28]);
    assert_eq!(full.len(), 40);
    all_see_join(true, &[full]);
}

fn tcp_at(flow: Flow) -> usize {
    ETHERNET + if flow.vip.is_ipv4() { 20 } else { 40 }
}

#[test]
fn case_71_unknown_kinds_are_skipped() {
    let fast_open = [&[34, 18][..], &[7; 16]].concat();
    let md5 = [&[19, 18][..], &[7; 16]].concat();
    let authentication = [&[29, 16][..], &[7; 14]].concat();
    let experiments = [vec![253, 4, 0, 0], vec![254, 2], vec![34, 2], vec![255, 20], vec![2, 2]];
    let experiments = experiments.map(|mut option| {
        option.resize(usize::from(option[1]), 9);
        option
    });
    let all = [fast_open, md5, authentication].into_iter().chain(experiments);
    all_see_join(true, &all.map(|option| before_join(&option)).collect::<Vec<_>>());
}

#[test]
fn case_72_unknown_subtypes_are_ignored() {
    let options = (9..=15_u8).map(|subtype| before_join(&[30, 4, subtype << 4, 1]));
    all_see_join(true, &options.collect::<Vec<_>>());
    let alone = (9..=15_u8).map(|subtype| [&[30, 12, subtype << 4, 2][..], &TOKEN.to_be_bytes(), &[9; 4]].concat());
    all_see_join(false, &alone.collect::<Vec<_>>());
}

/// Bytes that look like options more often than chance has it.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let one = prop_oneof![
        4 => Just(vec![1]),
        1 => Just(vec![0]),
        2 => Just(TIMESTAMPS.to_vec()),
        3 => Just(join_syn(TOKEN).to_vec()),
        2 => Just(capable_ack(V1, CLIENT_KEY, SERVER_KEY)),
        2 => (0..16_u8, any::<u8>(), 0..24_u8).prop_map(|(high, low, len)| {
            let mut option = vec![30, len, high << 4 | low & 1, low];
            option.resize(usize::from(len).max(2), low);
            option
        }),
        1 => vec(any::<u8>(), 1..8),
    ];
    vec(one, 0..8).prop_map(|options| {
        let mut field = options.concat();
        field.truncate(40);
        field
    })
}

/// Beyond the cases: whatever the options are, the walker in the kernel and the one on the host find the same in them.
#[test]
fn any_options_are_read_alike_in_both_worlds() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let worlds = RefCell::new(worlds);
        let mut runner =
            TestRunner::new(Config { failure_persistence: None, max_shrink_iters: 200, ..Config::with_cases(256) });
        let result = runner.run(&(options(), any::<u16>(), 0..3_usize), |(options, port, payload)| {
            let flow = flow.at_port(port);
            let mut worlds = worlds.borrow_mut();
            worlds.send(&flow.syn(ISN).options(&options).frame());
            worlds.send(&flow.ack(ISN + 1).options(&options).payload(payload).frame());
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
    });
}
