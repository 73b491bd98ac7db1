//! A join endpoint: a port or an address that a backend has for joins alone, and tells its clients by `ADD_ADDR` (RFC 8684,
//! 3.4.1; draft-duchene-mptcp-load-balancing). The destination names the backend, in every packet: no table, no ring, and
//! all balancers agree.

use super::arrival::Arrival;
use crate::{ids::BackendId, mptcp::Options, packet::Packet, reason::Reason};

#[inline(always)]
pub(super) fn choose<P: Packet>(packet: &P, arrival: &Arrival) -> (BackendId, Reason) {
    let joins = arrival.tcp.opens() && {
        let options = Options::unpack(P::merged(packet.mptcp_options(&arrival.tcp).pack()));
        options.join.is_some() && options.capable.is_none()
    };
    (arrival.service.endpoint, if joins { Reason::JoinEndpoint } else { Reason::Endpoint })
}
