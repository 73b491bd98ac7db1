//! A join endpoint names its backend in every packet, and nothing is remembered of it.

use crate::{
    icmp,
    worlds::{
        Worlds,
        client::ISN,
        in_both_worlds_of,
        mptcp::TOKEN,
        setup::{B1, B2, B3, Setup, Vip, WEB, vip_address},
    },
};
use lb_common::{
    ids::BackendId,
    reason::Reason,
    tables::{UnknownJoin, Ways},
    wire::ip::Family,
};

/// The port for joins of a backend.
fn join_port(backend: BackendId) -> u16 {
    4500 + backend.0
}

/// The farm, each backend with a port of its own.
fn farm(ways: Ways) -> Setup {
    let mut setup = Setup::farm_with(ways, UnknownJoin::DROP);
    for family in [Family::V4, Family::V6] {
        let endpoint = |backend| Vip::endpoint(vip_address(family), join_port(backend), WEB, backend);
        setup.vips.extend([B1, B2, B3].map(endpoint));
    }
    setup
}

fn remembers_nothing(worlds: &Worlds) {
    let state = worlds.state();
    assert!(state.joined.is_empty() && state.moved.is_empty() && state.pinned.is_empty());
    assert_eq!(state.recent_count(), (0, 0));
}

#[test]
fn every_packet_of_a_subflow_goes_to_the_endpoints_backend_whoever_owns_the_slot() {
    in_both_worlds_of(&farm(Ways::ENDPOINT), |worlds, flow| {
        for backend in [B1, B2, B3] {
            for owner in [B1, B2, B3] {
                let subflow = flow.to_port(join_port(backend)).owned_by(owner);
                worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinEndpoint, backend);
                worlds.sends(&subflow.join_ack(ISN), Reason::Endpoint, backend);
                worlds.sends(&subflow.data(ISN), Reason::Endpoint, backend);
                worlds.sends(&subflow.ack(ISN + 5000).fin(), Reason::Endpoint, backend);
                worlds.sends(&subflow.ack(ISN + 5000).rst(), Reason::Endpoint, backend);
                worlds.sends(&subflow.plain_syn(ISN), Reason::Endpoint, backend);
                worlds.sends(&subflow.capable_syn(ISN), Reason::Endpoint, backend);
            }
        }
        remembers_nothing(worlds);
    });
}

#[test]
fn the_destination_decides_before_a_learned_token() {
    in_both_worlds_of(&farm(Ways::LEARN.and(Ways::ENDPOINT)), |worlds, flow| {
        worlds.connect_at(flow, B1);
        let subflow = flow.at_second_address();
        worlds.sends(&subflow.to_port(join_port(B2)).join(ISN, TOKEN), Reason::JoinEndpoint, B2);
        worlds.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, B1);
    });
}

#[test]
fn a_join_elsewhere_is_unknown_where_there_are_only_endpoints() {
    in_both_worlds_of(&farm(Ways::ENDPOINT), |worlds, flow| {
        worlds.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        worlds.refuses(&flow.at_second_address().join(ISN, TOKEN), Reason::JoinUnknown);
        remembers_nothing(worlds);
    });
}

#[test]
fn an_error_about_a_subflow_goes_to_the_endpoints_backend() {
    in_both_worlds_of(&farm(Ways::ENDPOINT), |worlds, flow| {
        for backend in [B1, B2, B3] {
            for owner in [B1, B2, B3] {
                let subflow = flow.to_port(join_port(backend)).owned_by(owner);
                for error in icmp::errors_about(subflow) {
                    worlds.gets(&error, Reason::IcmpError, backend);
                }
            }
        }
    });
}
