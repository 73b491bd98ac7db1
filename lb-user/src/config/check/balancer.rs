//! Checks of what the balancer itself is: `[balancer]`, `[metrics]`, `[admin]` and `[limits]`.

use super::super::either::{Interfaces, Words};
use super::super::words::{Word as _, listen_address, source};
use super::super::{
    Admin, Balancer, ClusterKey, Family, InterfaceName, Limits, Metrics, OnStop, Problem, XdpMode, file,
};
use super::Findings;
use lb_common::{
    encap::GUE_PORT,
    limits::{
        DATAGRAM_FLOWS, EMBRYONIC_FLOWS, ENTRIES_PER_NETWORK, FRAGMENTED_DATAGRAMS, ICMP_ERRORS_PER_CPU, JOINED_FLOWS,
        JOINS_PER_TOKEN, Limit, MOVED_FLOWS, PENDING_HANDSHAKES, PINNED_FLOWS, PROBE_MARK, TOKENS, TRANSITION_S,
    },
    probe,
};
use std::{path::PathBuf, time::Duration};
use toml::Spanned;

pub(super) fn balancer(written: &file::Balancer, findings: &mut Findings<'_>) -> Option<Balancer> {
    let interfaces = interfaces(&written.interface, findings);
    let xdp_mode = findings.parse_optional(written.xdp_mode.as_ref(), XdpMode::parse);
    let source_v4 = findings.parse_optional(written.source_v4.as_ref(), |text| source(text, Family::V4));
    let source_v6 = findings.parse_optional(written.source_v6.as_ref(), |text| source(text, Family::V6));
    let gue_port = match &written.gue_port {
        None => Some(GUE_PORT),
        Some(port) => findings.port(*port.get_ref(), port.span()),
    };
    let transition_s = limit(written.transition_s.as_ref(), TRANSITION_S, findings);
    let cluster_key = match &written.cluster_key_file {
        None => Some(None),
        Some(path) => ClusterKey::load(path.get_ref())
            .map_err(|error| findings.problem(path.span(), Problem::ClusterKey(error)))
            .map(Some)
            .ok(),
    };
    let pins = pins(written.pins.as_ref(), Balancer::PINS, findings);
    let on_stop = findings.parse_optional(written.on_stop.as_ref(), OnStop::parse);
    let probe_mark = probe_mark(written.probe_mark.as_ref(), findings);
    Some(Balancer {
        interfaces: interfaces?,
        xdp_mode: xdp_mode?.unwrap_or_default(),
        source_v4: source_v4?,
        source_v6: source_v6?,
        gue_port: gue_port?,
        transition: Duration::from_secs(transition_s?.into()),
        cluster_key: cluster_key?,
        pins: pins?,
        on_stop: on_stop?.unwrap_or_default(),
        probe_mark: probe_mark?,
    })
}

pub(super) fn pins(written: Option<&Spanned<PathBuf>>, default: &str, findings: &mut Findings<'_>) -> Option<PathBuf> {
    let Some(written) = written else { return Some(default.into()) };
    let path = written.get_ref();
    if path.is_absolute() && path.parent().is_some() {
        return Some(path.clone());
    }
    findings.problem(written.span(), Problem::Pins(path.clone()));
    None
}

fn probe_mark(written: Option<&Spanned<i64>>, findings: &mut Findings<'_>) -> Option<u32> {
    let Some(written) = written else { return Some(PROBE_MARK) };
    let mark = u32::try_from(*written.get_ref()).ok().filter(|&mark| mark != 0 && mark & probe::ID_MASK == 0);
    if mark.is_none() {
        findings.problem(written.span(), Problem::ProbeMark(*written.get_ref()));
    }
    mark
}

pub(super) fn interfaces(
    written: &Spanned<Words<Interfaces>>,
    findings: &mut Findings<'_>,
) -> Option<Vec<InterfaceName>> {
    let list = match written.get_ref() {
        Words::One(name) => return findings.parse_at(name, written.span(), str::parse).map(|name| vec![name]),
        Words::List(list, _) => list,
    };
    if list.is_empty() {
        findings.problem(written.span(), Problem::NoInterface);
    }
    let mut names: Vec<InterfaceName> = Vec::new();
    for written in list {
        let Some(name) = findings.parse(written, str::parse) else { continue };
        if names.contains(&name) {
            findings.problem(written.span(), Problem::InterfaceTwice(name.to_string()));
        }
        names.push(name);
    }
    Some(names)
}

#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn metrics(written: Option<&file::Metrics>, findings: &mut Findings<'_>) -> Option<Option<Metrics>> {
    let Some(written) = written else {
        return Some(None);
    };
    let listen = findings.parse(&written.listen, listen_address)?;
    Some(Some(Metrics { listen }))
}

pub(super) fn admin(written: &file::Admin, findings: &mut Findings<'_>) -> Option<Admin> {
    let group = findings.parse_optional(written.group.as_ref(), str::parse)?;
    Some(Admin { group })
}

pub(super) fn limits(written: &file::Limits, findings: &mut Findings<'_>) -> Option<Limits> {
    let mut limit = |written: &Option<_>, range| limit(written.as_ref(), range, findings);
    let tokens = limit(&written.tokens, TOKENS);
    let joined_flows = limit(&written.joined_flows, JOINED_FLOWS);
    let pending_handshakes = limit(&written.pending_handshakes, PENDING_HANDSHAKES);
    let embryonic_flows = limit(&written.embryonic_flows, EMBRYONIC_FLOWS);
    let moved_flows = limit(&written.moved_flows, MOVED_FLOWS);
    let pinned_flows = limit(&written.pinned_flows, PINNED_FLOWS);
    let datagram_flows = limit(&written.datagram_flows, DATAGRAM_FLOWS);
    let fragmented_datagrams = limit(&written.fragmented_datagrams, FRAGMENTED_DATAGRAMS);
    let entries_per_network = limit(&written.entries_per_network, ENTRIES_PER_NETWORK);
    let joins_per_token = limit(&written.joins_per_token, JOINS_PER_TOKEN);
    let icmp_errors_per_cpu = limit(&written.icmp_errors_per_cpu, ICMP_ERRORS_PER_CPU);
    Some(Limits {
        tokens: tokens?,
        joined_flows: joined_flows?,
        pending_handshakes: pending_handshakes?,
        embryonic_flows: embryonic_flows?,
        moved_flows: moved_flows?,
        pinned_flows: pinned_flows?,
        datagram_flows: datagram_flows?,
        fragmented_datagrams: fragmented_datagrams?,
        entries_per_network: entries_per_network?,
        joins_per_token: joins_per_token?,
        icmp_errors_per_cpu: icmp_errors_per_cpu?,
    })
}

pub(super) fn limit(written: Option<&Spanned<i64>>, range: Limit, findings: &mut Findings<'_>) -> Option<u32> {
    let Some(written) = written else {
        return Some(range.default);
    };
    let entries = findings.in_range(written, range.min.into(), range.max.into())?;
    u32::try_from(entries).ok()
}
