//! Frames of a client's connection with bytes changed, cut off or added: whatever they say now, the kernel and the host
//! decide alike, and what is sent is what came.

use crate::worlds::{
    client::ISN,
    in_both_worlds,
    mptcp::{SERVER_KEY, TOKEN},
    packet::{ETHERNET, with_ipv4_options, with_ipv6_extensions},
    setup::B1,
};
use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use std::cell::RefCell;

/// How a frame is mangled.
#[derive(Clone, Debug)]
enum Change {
    /// A byte of its first hundred has another value.
    Set(Index, u8),
    /// A bit of its first hundred bytes is the other.
    Flip(Index, u8),
    /// It ends early.
    Cut(Index),
    /// Bytes follow.
    Pad(usize),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = prop_oneof![
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        6 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (0..64_usize).prop_map(Change::Pad),
    ];
    vec(change, 1..4)
}

fn mangle(mut frame: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes {
        let place = |at: &Index| at.index(frame.len().min(100));
        match change {
            Change::Set(at, byte) => {
                let at = place(at);
                frame[at] = *byte;
            }
            Change::Flip(at, bit) => {
                let at = place(at);
                frame[at] ^= 1 << bit;
            }
            Change::Cut(at) => frame.truncate(ETHERNET + at.index(frame.len() - ETHERNET + 1)),
            Change::Pad(len) => frame.resize(frame.len() + len, 0xee),
        }
    }
    frame
}

#[test]
fn mangled_frames_are_decided_alike_in_both_worlds() {
    in_both_worlds(|worlds, flow| {
        worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address();
        let mut frames = [
            flow.capable_syn(ISN),
            flow.third_ack(ISN, SERVER_KEY),
            flow.first_data(ISN, SERVER_KEY),
            flow.data(ISN),
            flow.ack(ISN + 500).fin(),
            subflow.join(ISN, TOKEN),
            subflow.join_ack(ISN),
        ]
        .map(|segment| segment.frame())
        .to_vec();
        let behind = if flow.vip.is_ipv4() {
            with_ipv4_options(&frames[5], 12)
        } else {
            with_ipv6_extensions(&frames[5], 0, &[60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0])
        };
        frames.push(behind);

        let worlds = RefCell::new(worlds);
        let mut runner =
            TestRunner::new(Config { failure_persistence: None, max_shrink_iters: 200, ..Config::with_cases(1500) });
        let result = runner.run(&(any::<Index>(), changes()), |(frame, changes)| {
            let frame = mangle(frame.get(&frames).clone(), &changes);
            worlds.borrow_mut().send(&frame);
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
    });
}
