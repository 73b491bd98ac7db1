//! A token that names the backend needs no table: no connection was seen to begin, and nothing of it is remembered. Tokens
//! are found here by another implementation of the hash.

use crate::worlds::{
    Worlds,
    client::ISN,
    in_both_worlds_of,
    mptcp::{self, Key, SERVER_KEY, TOKEN, V1},
    packet::Flow,
    setup::{B1, B2, B3, Setup, WEB, ring_of},
};
use lb_common::{
    hash::SipKey,
    ids::BackendId,
    reason::Reason,
    stateless::{Bearer, Codec, Epoch, IdBits, TokenId},
    tables::{self, Slot, UnknownJoin, Ways},
};
use siphasher::sip::SipHasher13;

/// Room for 64 backends.
const BITS: u32 = 6;
/// The epochs that have a key.
const LIVE: [u8; 3] = [1, 2, 3];
/// The ids of backends.
pub(super) const BEARERS: [(TokenId, BackendId); 3] = [(TokenId(0), B1), (TokenId(33), B2), (TokenId(63), B3)];
const GONE: TokenId = TokenId(5);
const NOBODY: TokenId = TokenId(6);

const fn key(epoch: u8) -> [u8; 16] {
    [0x40 | epoch; 16]
}

/// A token of an epoch that reads as an id; each `nth` is another one.
pub(super) fn token(epoch: u8, TokenId(id): TokenId, nth: usize) -> u32 {
    let hasher = SipHasher13::new_with_key(&key(epoch));
    let tokens = (0_u32..).map(|number| u32::from(epoch) << 30 | number.wrapping_mul(0x9e37_79b1) >> 2);
    let named = |token: &u32| hasher.hash(&token.to_be_bytes()) % (1 << BITS) == u64::from(id);
    tokens.filter(named).nth(nth).expect("one in 64")
}

/// A server's key with such a token.
fn key_of(epoch: u8, TokenId(id): TokenId) -> Key {
    let hasher = SipHasher13::new_with_key(&key(epoch));
    let is_named = |key: &Key| {
        let token = mptcp::token(V1, *key);
        token >> 30 == u32::from(epoch) && hasher.hash(&token.to_be_bytes()) % (1 << BITS) == u64::from(id)
    };
    (0..1_u64 << 16).map(u64::to_be_bytes).find(is_named).expect("one in 256")
}

fn codec() -> Codec {
    let bits = IdBits::for_backends(1 << BITS).expect("six bits");
    LIVE.into_iter().fold(Codec::new(bits), |codec, number| {
        codec.with(Epoch::new(number).expect("below 4"), SipKey::from_bytes(key(number)))
    })
}

pub(super) fn farm(ways: Ways, unknown_join: UnknownJoin) -> Setup {
    let mut setup = Setup::farm_with(ways, unknown_join);
    setup.codecs = vec![(WEB, codec())];
    setup.bearers = BEARERS.map(|(id, backend)| (WEB, id, Bearer::of(backend))).to_vec();
    setup.bearers.push((WEB, GONE, Bearer::GONE));
    setup
}

fn in_the_farm(test: impl Fn(&mut Worlds, Flow)) {
    in_both_worlds_of(&farm(Ways::TOKEN, UnknownJoin::DROP), test);
}

#[test]
fn a_join_goes_to_the_backend_that_its_token_names_whoever_owns_the_slot() {
    in_the_farm(|worlds, flow| {
        let mut ports = (2000..).step_by(64);
        for epoch in LIVE {
            for (nth, (id, backend)) in BEARERS.into_iter().enumerate() {
                for owner in [B1, B2, B3] {
                    let port = ports.next().expect("few flows");
                    let subflow = flow.at_second_address().at_port(port).owned_by(owner);
                    worlds.sends(&subflow.join(ISN, token(epoch, id, nth)), Reason::JoinStateless, backend);
                    let by_ring = owner == backend;
                    let confirmed = if by_ring { Reason::Ring } else { Reason::Joined };
                    worlds.sends(&subflow.join_ack(ISN), confirmed, backend);
                    worlds.sends(&subflow.data(ISN), if by_ring { Reason::Ring } else { Reason::Flow }, backend);
                }
            }
        }
        assert!(worlds.state().tokens.is_empty());
    });
}

#[test]
fn a_connection_teaches_nothing() {
    in_the_farm(|worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.sends(&flow.third_ack(ISN, SERVER_KEY), Reason::Ring, flow.owner());
        let state = worlds.state();
        assert!(state.tokens.is_empty());
        assert_eq!(state.recent_count(), (0, 0));
    });
}

/// A SYN came twice, before and after its slot changed hands, so two backends have answered it.
#[test]
fn case_86_a_handshake_ends_at_the_backend_whose_answer_the_client_took() {
    in_the_farm(|worlds, flow| {
        let moving: Vec<_> = ring_of(&[B2]).iter().map(|slot| Slot::in_transition(slot.owner(), B1)).collect();
        for (port, (id, named)) in (2000..).zip(BEARERS) {
            // Whoever never had the slot cannot have answered; the key is a kernel's own.
            let taken = if named == B3 { B2 } else { named };
            worlds.change(|world| world.write_ring(WEB, &ring_of(&[B1])));
            let flow = flow.at_port(port);
            worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, B1);
            worlds.change(|world| world.write_ring(WEB, &moving));
            worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, B2);
            worlds.sends(&flow.third_ack(ISN, key_of(1, id)), Reason::Moved, taken);
            // The slot's former owner needs no entry.
            let known = if taken == B1 { Reason::RingPrevious } else { Reason::Flow };
            worlds.sends(&flow.data(ISN), known, taken);
        }
        let other = flow.at_port(3000);
        worlds.sends(&other.capable_syn(ISN), Reason::RingNew, B2);
        worlds.sends(&other.third_ack(ISN, key_of(1, NOBODY)), Reason::Moved, B2);
        let other = flow.at_port(3001);
        worlds.sends(&other.capable_syn(ISN), Reason::RingNew, B2);
        worlds.change(|world| world.write_backend(B1, tables::Backend::GONE));
        worlds.sends(&other.third_ack(ISN, key_of(1, BEARERS[0].0)), Reason::Moved, B2);
    });
}

#[test]
fn an_id_of_nobody_and_an_epoch_without_a_key_are_unknown() {
    for (policy, refused) in [(UnknownJoin::DROP, Reason::JoinUnknown), (UnknownJoin::RESET, Reason::JoinUnknownReset)]
    {
        in_both_worlds_of(&farm(Ways::TOKEN, policy), |worlds, flow| {
            let subflow = flow.at_second_address();
            worlds.refuses(&subflow.join(ISN, token(1, NOBODY, 0)), refused);
            worlds.refuses(&subflow.join(ISN, token(0, BEARERS[0].0, 0)), refused);
        });
    }
    in_both_worlds_of(&farm(Ways::TOKEN, UnknownJoin::HASH), |worlds, flow| {
        let subflow = flow.at_second_address();
        worlds.sends(&subflow.join(ISN, token(1, NOBODY, 0)), Reason::JoinUnknownHashed, subflow.owner());
    });
}

#[test]
fn a_join_of_a_backend_that_is_gone_is_dropped_whatever_the_policy() {
    for policy in [UnknownJoin::DROP, UnknownJoin::HASH, UnknownJoin::RESET] {
        in_both_worlds_of(&farm(Ways::TOKEN, policy), |worlds, flow| {
            let subflow = flow.at_second_address();
            worlds.refuses(&subflow.join(ISN, token(1, GONE, 0)), Reason::JoinStatelessGone);
            worlds.change(|world| world.write_backend(B2, tables::Backend::GONE));
            worlds.refuses(&subflow.join(ISN, token(2, BEARERS[1].0, 0)), Reason::JoinStatelessGone);
            assert_eq!(worlds.state().recent_count(), (0, 0), "nothing waits for an ACK");
        });
    }
}

#[test]
fn what_is_known_of_a_connection_goes_before_what_its_token_would_say() {
    in_both_worlds_of(&farm(Ways::LEARN.and(Ways::TOKEN), UnknownJoin::DROP), |worlds, flow| {
        // An ordinary server's token, whose epoch is 0 and has no key.
        worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address().owned_by(B2);
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
        worlds.sends(&subflow.at_port(4000).join(ISN, token(3, BEARERS[2].0, 0)), Reason::JoinStateless, B3);
    });
}

#[test]
fn tokens_that_are_known_are_looked_at_only_where_there_may_be_any() {
    let known = |worlds: &mut Worlds| {
        let holder = tables::Holder { backend: B1, state: tables::Holder::OPEN, ..tables::Holder::default() };
        let minted = token(3, BEARERS[2].0, 0);
        let key = tables::TokenKey::new(WEB, lb_common::ids::Token::from_wire(minted.to_be_bytes()));
        worlds.change(|world| world.write_token(key, tables::TokenEntry::held_by(holder)));
        minted
    };
    in_the_farm(|worlds, flow| {
        let token = known(worlds);
        worlds.sends(&flow.at_second_address().join(ISN, token), Reason::JoinStateless, B3);
    });
    for also in [Ways::KNOWN, Ways::REPORT, Ways::LEARN] {
        in_both_worlds_of(&farm(Ways::TOKEN.and(also), UnknownJoin::DROP), |worlds, flow| {
            let token = known(worlds);
            worlds.sends(&flow.at_second_address().join(ISN, token), Reason::JoinToken, B1);
        });
    }
}

#[test]
fn other_pools_do_not_ask_the_token() {
    for ways in [Ways::LEARN, Ways::REPORT] {
        in_both_worlds_of(&farm(ways, UnknownJoin::DROP), |worlds, flow| {
            worlds.refuses(&flow.at_second_address().join(ISN, token(1, BEARERS[0].0, 0)), Reason::JoinUnknown);
        });
    }
}
