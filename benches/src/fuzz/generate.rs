//! Makes sequences: conversations that interrupt each other, frames that were damaged, and a controller that changes the
//! tables in between. All of it follows from the seed.

use crate::random::Random;

use super::{
    sequence::{Change, Sequence, Step},
    talk::{Talker, conversation},
    worlds::{
        packet::{ETHERNET, with_ipv4_options, with_ipv6_extensions, with_tags, with_traffic_class},
        wide::BACKENDS,
    },
};
use std::collections::VecDeque;

/// The pools of the wide farm.
const POOLS: u16 = 6;

/// The sequence of a number in the run of a seed.
pub(super) fn sequence(seed: u64, number: u64) -> Sequence {
    let random = &mut Random::of(seed, number);
    let mut talkers: Vec<Talker> = (0..=random.below(3)).map(|_| Talker::any(random)).collect();
    if random.chance(30) {
        talkers.push(talkers[0]);
    }
    let mut said: Vec<VecDeque<Vec<u8>>> = talkers.iter().map(|&talker| conversation(random, talker).into()).collect();
    let (damage, changes) = (random.one_of(&[0, 5, 15, 40]), random.one_of(&[0, 3, 12]));
    let mut steps = Vec::new();
    while !said.is_empty() {
        let speaker = random.below(said.len());
        match said[speaker].pop_front() {
            Some(frame) => {
                let frame = if random.chance(damage) { damaged(random, frame) } else { frame };
                steps.push(Step::Frame(frame));
            }
            None => drop(said.remove(speaker)),
        }
        if random.chance(changes) {
            let talker = random.one_of(&talkers);
            steps.push(Step::Change(change(random, talker)));
        }
    }
    Sequence { steps }
}

fn change(random: &mut Random, talker: Talker) -> Change {
    let backend = |random: &mut Random| 1 + random.u16() % BACKENDS.end();
    match random.below(10) {
        0 => Change::Gone(backend(random)),
        1 => Change::Back(backend(random)),
        2 => Change::ForgetTokens,
        3 => Change::ForgetFlows,
        4 => Change::Age(random.one_of(&[1, 50, 112, 113, 500])),
        5 | 6 => Change::Key {
            second: random.chance(70),
            under_way: random.chance(80),
            pins: random.chance(40),
            keeps: random.chance(40),
        },
        _ => Change::Slot {
            pool: random.u16() % POOLS,
            slot: talker.slot(),
            owner: backend(random),
            previous: if random.chance(60) { backend(random) } else { 0 },
            pins: random.chance(40),
            keeps: random.chance(40),
        },
    }
}

/// The frame as nobody should send it, or as few do.
fn damaged(random: &mut Random, frame: Vec<u8>) -> Vec<u8> {
    let frame = if random.chance(50) { unusual(random, frame) } else { frame };
    if random.chance(60) { broken(random, frame) } else { frame }
}

/// Still right, but with more around it.
fn unusual(random: &mut Random, frame: Vec<u8>) -> Vec<u8> {
    let is_v4 = frame[ETHERNET] >> 4 == 4;
    match random.below(5) {
        0 => {
            let tags = [0x8100, 0x88a8, 0x8100];
            with_tags(&frame, &tags[..=random.below(3)])
        }
        1 => with_traffic_class(&frame, random.byte()),
        _ if is_v4 => {
            let len = 4 * (1 + random.below(10));
            if frame[ETHERNET] == 0x45 { with_ipv4_options(&frame, len) } else { frame }
        }
        _ => {
            let next = frame[ETHERNET + 6];
            let kinds: Vec<u8> = (0..=random.below(7)).map(|_| random.one_of(&[0, 43, 60, 60, 44, 51, 135])).collect();
            with_ipv6_extensions(&frame, kinds[0], &extensions(random, &kinds, next))
        }
    }
}

fn extensions(random: &mut Random, kinds: &[u8], last: u8) -> Vec<u8> {
    let next = kinds.iter().skip(1).chain([&last]);
    let mut bytes = Vec::new();
    for (&kind, &next) in kinds.iter().zip(next) {
        match kind {
            44 => bytes.extend([next, 0, 0, 0, 0, 0, 0, 7]),
            51 => bytes.extend([next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2]),
            _ if random.chance(20) => bytes.extend([&[next, 1, 1, 12][..], &[0; 12]].concat()),
            _ => bytes.extend([next, 0, 1, 4, 0, 0, 0, 0]),
        }
    }
    bytes
}

fn broken(random: &mut Random, mut frame: Vec<u8>) -> Vec<u8> {
    for _ in 0..=random.below(3) {
        let at = 12 + random.below(frame.len().clamp(13, 110) - 12);
        let at = at.min(frame.len() - 1);
        match random.below(12) {
            0..=4 => frame[at] ^= 1 << random.below(8),
            5..=7 => frame[at] = random.one_of(&[0, 1, 4, 5, 0x1e, 0x7f, 0x80, 0xff]),
            8 => frame[at] = random.byte(),
            9 => frame.truncate(ETHERNET + random.below(frame.len() - ETHERNET + 1)),
            10 => frame.resize(frame.len() + random.below(64), 0xee),
            // The length fields of IPv4 and IPv6, the data offset of TCP, the length of UDP.
            _ => {
                let at = random.one_of(&[17, 19, 34 + 12, 54 + 12, 34 + 5, 54 + 5]).min(frame.len() - 1);
                frame[at] = frame[at].wrapping_add(random.byte() % 9).wrapping_sub(4);
            }
        }
    }
    frame
}
