//! How a join is counted: by what the data path knows of its connection, and no more than that.

use super::stateless::{BEARERS, farm, token};
use crate::worlds::{
    Worlds,
    client::ISN,
    in_both_worlds_of,
    mptcp::TOKEN,
    packet::{Flow, Segment},
    setup::{B1, B2, WEB},
};
use lb_common::{
    ids::{BackendId, Token},
    tables::{Holder, TokenEntry, TokenKey, UnknownJoin, Ways},
};
use lb_user::joins;

/// The word of the metrics for how the connection was known of which this packet is.
#[track_caller]
fn way_of(worlds: &mut Worlds, segment: &Segment, backend: BackendId) -> &'static str {
    let outcome = worlds.send(&segment.frame());
    assert_eq!(outcome.backend, Some(backend), "{segment:?}");
    joins::of(outcome.reason).expect("of a join").way
}

/// The words for a join to this backend whose slot is another's, and for the ACK of it.
#[track_caller]
fn ways_of(worlds: &mut Worlds, flow: Flow, token: u32, backend: BackendId) -> [&'static str; 2] {
    let subflow = flow.at_second_address().owned_by(B2);
    let join = way_of(worlds, &subflow.join(ISN, token), backend);
    [join, way_of(worlds, &subflow.join_ack(ISN), backend)]
}

#[test]
fn a_token_that_was_learned_and_one_that_was_reported_count_alike() {
    in_both_worlds_of(&farm(Ways::LEARN, UnknownJoin::DROP), |worlds, flow| {
        worlds.connect_at(flow, B1);
        assert_eq!(ways_of(worlds, flow, TOKEN, B1), ["table", "any"]);
    });
    in_both_worlds_of(&farm(Ways::REPORT, UnknownJoin::DROP), |worlds, flow| {
        let key = TokenKey::new(WEB, Token::from_wire(TOKEN.to_be_bytes()));
        let holder = Holder { backend: B1, state: Holder::OPEN, ..Holder::default() };
        worlds.change(|world| world.write_token(key, TokenEntry::held_by(holder)));
        assert_eq!(ways_of(worlds, flow, TOKEN, B1), ["table", "any"]);
    });
}

#[test]
fn a_token_that_names_its_backend_counts_as_such_and_the_entry_of_its_join_as_any() {
    in_both_worlds_of(&farm(Ways::TOKEN, UnknownJoin::DROP), |worlds, flow| {
        let (id, backend) = BEARERS[0];
        assert_eq!(ways_of(worlds, flow, token(1, id, 0), backend), ["token", "any"]);
    });
}
