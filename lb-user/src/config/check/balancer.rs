//! Checks of what the balancer itself is: `[balancer]`, `[metrics]` and `[limits]`.

use super::super::words::{Word as _, host_address_v4, host_address_v6, listen_address};
use super::super::{Balancer, ClusterKey, Limits, Metrics, Problem, XdpMode, file};
use super::Findings;
use lb_common::limits::{
    EMBRYONIC_FLOWS, JOINED_FLOWS, Limit, MOVED_FLOWS, PENDING_HANDSHAKES, PINNED_FLOWS, TOKENS, TRANSITION_S,
};
use std::time::Duration;
use toml::Spanned;

pub(super) fn balancer(written: &file::Balancer, findings: &mut Findings<'_>) -> Option<Balancer> {
    let interface = findings.parse(&written.interface, str::parse);
    let xdp_mode = findings.parse_optional(written.xdp_mode.as_ref(), XdpMode::parse);
    let source_v4 = findings.parse_optional(written.source_v4.as_ref(), host_address_v4);
    let source_v6 = findings.parse_optional(written.source_v6.as_ref(), host_address_v6);
    let transition_s = limit(written.transition_s.as_ref(), TRANSITION_S, findings);
    let cluster_key = match &written.cluster_key_file {
        None => Some(None),
        Some(path) => ClusterKey::load(path.get_ref())
            .map_err(|error| findings.problem(path.span(), Problem::ClusterKey(error)))
            .map(Some)
            .ok(),
    };
    Some(Balancer {
        interface: interface?,
        xdp_mode: xdp_mode?.unwrap_or_default(),
        source_v4: source_v4?,
        source_v6: source_v6?,
        transition: Duration::from_secs(transition_s?.into()),
        cluster_key: cluster_key?,
    })
}

#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn metrics(written: Option<&file::Metrics>, findings: &mut Findings<'_>) -> Option<Option<Metrics>> {
    let Some(written) = written else {
        return Some(None);
    };
    let listen = findings.parse(&written.listen, listen_address)?;
    Some(Some(Metrics { listen }))
}

pub(super) fn limits(written: &file::Limits, findings: &mut Findings<'_>) -> Option<Limits> {
    let mut limit = |written: &Option<_>, range| limit(written.as_ref(), range, findings);
    let tokens = limit(&written.tokens, TOKENS);
    let joined_flows = limit(&written.joined_flows, JOINED_FLOWS);
    let pending_handshakes = limit(&written.pending_handshakes, PENDING_HANDSHAKES);
    let embryonic_flows = limit(&written.embryonic_flows, EMBRYONIC_FLOWS);
    let moved_flows = limit(&written.moved_flows, MOVED_FLOWS);
    let pinned_flows = limit(&written.pinned_flows, PINNED_FLOWS);
    Some(Limits {
        tokens: tokens?,
        joined_flows: joined_flows?,
        pending_handshakes: pending_handshakes?,
        embryonic_flows: embryonic_flows?,
        moved_flows: moved_flows?,
        pinned_flows: pinned_flows?,
    })
}

pub(super) fn limit(written: Option<&Spanned<i64>>, range: Limit, findings: &mut Findings<'_>) -> Option<u32> {
    let Some(written) = written else {
        return Some(range.default);
    };
    let entries = findings.in_range(written, range.min.into(), range.max.into())?;
    u32::try_from(entries).ok()
}
