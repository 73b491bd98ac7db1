//! Checks of the health checks of a pool: what is asked, and which addresses and ports of the pool's VIPs.

use super::super::either::Port;
use super::super::health::{Check, Health, HttpRequest, Trust};
use super::super::words::{CheckKind, Word as _, host_address};
use super::super::{Prefix, Problem, file};
use super::{Findings, balancer::limit};
use lb_common::limits::{HEALTH_FALL, HEALTH_INTERVAL_MS, HEALTH_JITTER_PERCENT, HEALTH_RISE, HEALTH_TIMEOUT_MS};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use toml::Spanned;

const STATUS_DEFAULT: u16 = 200;

/// The health checks of a pool: the outer `None` is a problem, the inner one is absence.
#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn health(
    pool: &file::Pool,
    vips: &[Spanned<file::Vip>],
    findings: &mut Findings<'_>,
) -> Option<Option<Health>> {
    let Some(at) = &pool.health else { return Some(None) };
    let written = at.get_ref();
    let kind = findings.parse(&written.check, CheckKind::parse);
    let targets = targets(at, pool, vips, findings);
    let mut number = |written: Option<&_>, range| limit(written, range, findings);
    let interval_ms = number(written.interval_ms.as_ref(), HEALTH_INTERVAL_MS);
    let timeout_ms = number(written.timeout_ms.as_ref(), HEALTH_TIMEOUT_MS);
    let jitter_percent = number(written.jitter_percent.as_ref(), HEALTH_JITTER_PERCENT);
    let rise = number(written.rise.as_ref(), HEALTH_RISE);
    let fall = number(written.fall.as_ref(), HEALTH_FALL);
    let check = kind.and_then(|kind| check(kind, written, findings));
    Some(Some(Health {
        check: check?,
        targets: targets?,
        interval: Duration::from_millis(interval_ms?.into()),
        timeout: Duration::from_millis(timeout_ms?.into()),
        jitter_percent: jitter_percent?,
        rise: rise?,
        fall: fall?,
        fail_open: written.fail_open,
    }))
}

fn check(kind: CheckKind, written: &file::Health, findings: &mut Findings<'_>) -> Option<Check> {
    refuse_what_is_not_asked(kind, written, findings);
    match kind {
        CheckKind::Tcp => Some(Check::Tcp),
        CheckKind::Mptcp => Some(Check::Mptcp),
        CheckKind::Http => Some(Check::Http(request(written, findings)?)),
        CheckKind::Https => {
            let request = request(written, findings);
            let trust = match &written.ca_file {
                None => Some(Trust::Any),
                Some(path) => Trust::load(path.get_ref())
                    .map_err(|error| findings.problem(path.span(), Problem::Trust(error)))
                    .ok(),
            };
            Some(Check::Https(request?, trust?))
        }
    }
}

fn refuse_what_is_not_asked(kind: CheckKind, written: &file::Health, findings: &mut Findings<'_>) {
    let of_http = [
        ("host", written.host.as_ref().map(Spanned::span)),
        ("path", written.path.as_ref().map(Spanned::span)),
        ("status", written.status.as_ref().map(Spanned::span)),
        ("body", written.body.as_ref().map(Spanned::span)),
    ];
    if matches!(kind, CheckKind::Tcp | CheckKind::Mptcp) {
        for (field, span) in of_http {
            let Some(span) = span else { continue };
            findings.problem(span, Problem::NotOfCheck { field, kinds: "http and https" });
        }
    }
    if let (false, Some(at)) = (kind == CheckKind::Https, &written.ca_file) {
        findings.problem(at.span(), Problem::NotOfCheck { field: "ca_file", kinds: "https" });
    }
}

fn request(written: &file::Health, findings: &mut Findings<'_>) -> Option<HttpRequest> {
    let host = findings.parse_optional(written.host.as_ref(), host_name);
    let path = findings.parse_optional(written.path.as_ref(), path);
    let statuses = statuses(written.status.as_ref(), findings);
    Some(HttpRequest {
        host: host?,
        path: path?.unwrap_or_else(|| "/".to_owned()),
        statuses: statuses?,
        body: written.body.as_ref().map(|body| body.get_ref().clone()),
    })
}

fn host_name(text: &str) -> Result<String, Problem> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    if text.is_empty() || text.len() > 255 || !text.chars().all(allowed) {
        return Err(Problem::CheckHost(text.to_owned()));
    }
    Ok(text.to_owned())
}

fn path(text: &str) -> Result<String, Problem> {
    if !text.starts_with('/') || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(Problem::CheckPath(text.to_owned()));
    }
    Ok(text.to_owned())
}

fn statuses(written: Option<&Spanned<Vec<Spanned<i64>>>>, findings: &mut Findings<'_>) -> Option<Vec<u16>> {
    let Some(written) = written else { return Some(vec![STATUS_DEFAULT]) };
    if written.get_ref().is_empty() {
        findings.problem(written.span(), Problem::NoStatus);
        return None;
    }
    let status = |written| findings.in_range(written, 100, 599).and_then(|status| u16::try_from(status).ok());
    written.get_ref().iter().map(status).collect()
}

/// Where the checks connect to: what is written, else of each family the first VIP of the pool that leaves no choice.
fn targets(
    at: &Spanned<file::Health>,
    pool: &file::Pool,
    vips: &[Spanned<file::Vip>],
    findings: &mut Findings<'_>,
) -> Option<Vec<SocketAddr>> {
    let written = at.get_ref();
    let own: Vec<(Prefix, &file::Vip)> = { vips.iter().map(Spanned::get_ref) }
        .filter(|vip| vip.pool.get_ref() == pool.name.get_ref())
        .filter_map(|vip| Some((vip.address.get_ref().parse().ok()?, vip)))
        .collect();
    let port = match &written.port {
        Some(port) => Some(findings.port(*port.get_ref(), port.span())?),
        None => None,
    };
    let addresses = if let Some(address) = &written.address {
        let parsed = findings.parse(address, host_address)?;
        if !own.iter().any(|(prefix, _)| prefix.contains(parsed)) {
            findings.problem(address.span(), Problem::CheckElsewhere(parsed));
            return None;
        }
        vec![parsed]
    } else {
        one_of_each_family(&own, port.is_some())
    };
    let Some(&first) = addresses.first() else {
        findings.problem(at.span(), Problem::NoCheckAddress);
        return None;
    };
    let target = |&address| Some(SocketAddr::new(address, port.or_else(|| only_port(&own, address))?));
    let targets: Vec<_> = addresses.iter().filter_map(target).collect();
    if targets.is_empty() {
        findings.problem(at.span(), Problem::NoCheckPort(first));
        return None;
    }
    Some(targets)
}

/// Of each family the first VIP that is one address, that of the first VIP first; one with one TCP port is preferred where
/// the port is not written.
fn one_of_each_family(own: &[(Prefix, &file::Vip)], has_port: bool) -> Vec<IpAddr> {
    let mut hosts: Vec<_> = own.iter().filter(|(prefix, _)| prefix.is_host()).collect();
    // Those that suit come first, in their order.
    hosts.sort_by_key(|(_, vip)| !has_port && tcp_port(vip).is_none());
    let mut addresses: Vec<IpAddr> = Vec::new();
    for (prefix, _) in hosts {
        let address = prefix.address();
        if addresses.iter().all(|other| other.is_ipv4() != address.is_ipv4()) {
            addresses.push(address);
        }
    }
    addresses
}

fn only_port(own: &[(Prefix, &file::Vip)], address: IpAddr) -> Option<u16> {
    own.iter().filter(|(prefix, _)| prefix.contains(address)).find_map(|(_, vip)| tcp_port(vip))
}

fn tcp_port(vip: &file::Vip) -> Option<u16> {
    match vip.port.get_ref() {
        Port::Number(port) if vip.protocol.get_ref() == "tcp" => u16::try_from(*port).ok().filter(|&port| port > 0),
        _ => None,
    }
}
