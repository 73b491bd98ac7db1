//! Checks of the pools and their backends.

use super::super::words::{Word as _, host_address};
use super::super::{
    Affinity, Backend, BackendState, Family, Forward, Health, Join, Name, Oddity, Pool, Prefix, Problem, TcpFragments,
    UnknownJoin, Way,
};
use super::super::{
    either::{Ways, Words},
    file,
    file::File,
};
use super::{Findings, balancer::limit, endpoint, health, quic, token};
use lb_common::limits::{BACKENDS_MAX, DRAIN_TIMEOUT_S, POOLS_MAX, QUIC_SERVERS_MAX, SLOW_START_S, UDP_TRANSITION_S};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Duration;
use toml::Spanned;

/// A backend without a weight of its own has this share of the ring.
const WEIGHT_DEFAULT: u16 = 100;
const WEIGHT_MAX: u16 = 10_000;

pub(super) fn pools(written: &File, findings: &mut Findings<'_>) -> Option<Vec<Pool>> {
    let backends = written.pool.iter().flat_map(|pool| &pool.get_ref().backend);
    findings.count(written.pool.iter().map(Spanned::span), "pools", POOLS_MAX);
    findings.count(backends.map(Spanned::span), "backends", BACKENDS_MAX);

    let mut names = Names::new("pool");
    let vips = vip_addresses(written);
    let used: HashSet<_> = written.vip.iter().map(|vip| vip.get_ref().pool.get_ref()).collect();
    let pools: Vec<_> = written
        .pool
        .iter()
        .map(|pool| {
            if !used.contains(pool.get_ref().name.get_ref()) {
                findings.oddity(pool.span(), Oddity::UnusedPool);
            }
            let name = names.take(&pool.get_ref().name, findings);
            let backends = backends_of(pool, &written.balancer, &vips, findings);
            let health = health::health(pool.get_ref(), &written.vip, findings);
            self::pool(pool.get_ref(), name, backends, health, findings)
        })
        .collect();
    let pools: Vec<Pool> = pools.into_iter().collect::<Option<_>>()?;
    count_quic_servers(written, &pools, findings);
    Some(pools)
}

/// While a configuration takes the place of another, the ids of both are in their table.
fn count_quic_servers(written: &File, pools: &[Pool], findings: &mut Findings<'_>) {
    let servers = |pool: &Pool| {
        let backends = pool.backends.iter().filter(|backend| backend.quic_server_id.is_some()).count();
        backends * pool.quic_rotations.len()
    };
    let spans = written.pool.iter().zip(pools).flat_map(|(at, pool)| std::iter::repeat_n(at.span(), servers(pool)));
    findings.count(spans, "QUIC server ids (one for each backend and rotation)", QUIC_SERVERS_MAX / 2);
}

#[expect(clippy::option_option, reason = "absent and wrong are different")]
fn pool(
    written: &file::Pool,
    name: Option<Name>,
    backends: Option<Vec<Backend>>,
    health: Option<Option<Health>>,
    findings: &mut Findings<'_>,
) -> Option<Pool> {
    let join = match &written.join {
        None => Some(Join::By(vec![Way::Learn])),
        Some(written) => join(written, findings),
    };
    endpoint::fit_ways(&written.backend, join.as_ref(), findings);
    token::fit_ways(written, join.as_ref(), findings);
    let token = token::token(written, findings);
    let unknown_join = findings.parse_optional(written.unknown_join.as_ref(), UnknownJoin::parse);
    let forward = findings.parse_optional(written.forward.as_ref(), Forward::parse);
    let affinity = findings.parse_optional(written.affinity.as_ref(), Affinity::parse);
    let tcp_fragments = findings.parse_optional(written.tcp_fragments.as_ref(), TcpFragments::parse);
    let quic_rotations = quic::rotations(written.quic_rotation.as_ref(), findings);
    let mut seconds =
        |written: Option<&_>, range| limit(written, range, findings).map(u64::from).map(Duration::from_secs);
    let drain_timeout = seconds(written.drain_timeout_s.as_ref(), DRAIN_TIMEOUT_S);
    let slow_start = seconds(written.slow_start_s.as_ref(), SLOW_START_S);
    let udp_transition = seconds(written.udp_transition_s.as_ref(), UDP_TRANSITION_S);
    Some(Pool {
        name: name?,
        join: join?,
        unknown_join: unknown_join?.unwrap_or_default(),
        learn_unseen: written.learn_unseen,
        forward: forward?.unwrap_or_default(),
        affinity: affinity?.unwrap_or_default(),
        tcp_fragments: tcp_fragments?.unwrap_or_default(),
        drain_timeout: drain_timeout?,
        slow_start: slow_start?,
        udp_transition: udp_transition?,
        quic_rotations: quic_rotations?,
        token: token?,
        health: health?,
        backends: backends?,
    })
}

fn join(written: &Spanned<Words<Ways>>, findings: &mut Findings<'_>) -> Option<Join> {
    let list = match written.get_ref() {
        Words::One(word) if word == "off" => return Some(Join::Off),
        Words::One(word) => {
            let problem =
                Problem::UnknownWord { word: word.clone(), known: "\"off\" or a list such as [\"learn\"]".to_owned() };
            findings.problem(written.span(), problem);
            return None;
        }
        Words::List(list, _) => list,
    };
    if list.is_empty() {
        findings.problem(written.span(), Problem::NoWays);
    }
    let mut seen = HashSet::new();
    let mut way = |text: &str| match text {
        "off" => Err(Problem::OffInList),
        text => {
            let way = Way::parse(text)?;
            if !seen.insert(way) {
                return Err(Problem::WayTwice(text.to_owned()));
            }
            Ok(way)
        }
    };
    let mut ways = Vec::new();
    for written in list {
        match way(written.get_ref()) {
            Ok(way) => ways.push(way),
            Err(problem) => findings.problem(written.span(), problem),
        }
    }
    Some(Join::By(ways))
}

fn backends_of(
    pool: &Spanned<file::Pool>,
    balancer: &file::Balancer,
    vips: &[(Prefix, Range<usize>)],
    findings: &mut Findings<'_>,
) -> Option<Vec<Backend>> {
    let written = &pool.get_ref().backend;
    if written.is_empty() {
        findings.problem(pool.span(), Problem::NoBackend);
        return None;
    }
    let tunnelled = !matches!(&pool.get_ref().forward, Some(word) if word.get_ref() == "l2");

    let server_ids = quic::server_ids(written, findings);
    let endpoints = endpoint::endpoints(written, findings);
    let token_ids = token::ids(pool.get_ref(), findings);
    let own = server_ids.into_iter().zip(endpoints).zip(token_ids);
    let mut names = Names::new("backend of this pool");
    let mut addresses = HashMap::new();
    let mut backends = Vec::new();
    for (backend, ((server_id, endpoint), token_id)) in written.iter().map(Spanned::get_ref).zip(own) {
        let name = names.take(&backend.name, findings);
        let address = findings.parse(&backend.address, host_address);
        if let Some(address) = address {
            let reachable = if tunnelled { has_source(address, balancer) } else { Ok(()) };
            let checks = [
                reachable,
                unlike_vips(address, vips, findings),
                unlike_others(address, backend, &mut addresses, findings),
            ];
            for problem in checks.into_iter().filter_map(Result::err) {
                findings.problem(backend.address.span(), problem);
            }
        }
        let weight = weight(backend, findings);
        let state = findings.parse_optional(backend.state.as_ref(), BackendState::parse);
        backends.push((name, address, weight, state.map(Option::unwrap_or_default), (server_id, endpoint, token_id)));
    }
    if backends.iter().all(|(_, _, weight, ..)| *weight == Some(0)) {
        findings.problem(pool.span(), Problem::NoWeight);
    } else if backends.iter().all(|(_, _, weight, state, ..)| *weight == Some(0) || *state != Some(BackendState::Up)) {
        findings.oddity(pool.span(), Oddity::NoneUp);
    }
    let backend = |(name, address, weight, state, own): (_, _, _, Option<_>, (Option<_>, Option<_>, Option<_>))| {
        let (quic_server_id, endpoint, token_id) = own;
        let (join_port, join_address): (_, _) = endpoint?;
        Some(Backend {
            name: name?,
            address: address?,
            weight: weight?,
            state: state?,
            quic_server_id: quic_server_id?,
            join_port,
            join_address,
            token_id: token_id?,
        })
    };
    backends.into_iter().map(backend).collect()
}

fn weight(written: &file::Backend, findings: &mut Findings<'_>) -> Option<u16> {
    let Some(written) = &written.weight else {
        return Some(WEIGHT_DEFAULT);
    };
    let weight = findings.in_range(written, 0, WEIGHT_MAX.into())?;
    u16::try_from(weight).ok()
}

/// Where one source address is given, the operator chose the families of the tunnels.
fn has_source(address: IpAddr, balancer: &file::Balancer) -> Result<(), Problem> {
    let family = Family::of(address);
    let (own, other) = match family {
        Family::V4 => (&balancer.source_v4, &balancer.source_v6),
        Family::V6 => (&balancer.source_v6, &balancer.source_v4),
    };
    if own.is_none() && other.is_some() {
        return Err(Problem::NoSource { address, family, field: family.source_field() });
    }
    Ok(())
}

fn unlike_vips(address: IpAddr, vips: &[(Prefix, Range<usize>)], findings: &Findings<'_>) -> Result<(), Problem> {
    let Some((prefix, vip)) = vips.iter().find(|(prefix, _)| prefix.contains(address)) else { return Ok(()) };
    let (prefix, line) = (*prefix, findings.line(vip));
    if prefix.is_host() {
        Err(Problem::BackendIsVip { address, line })
    } else {
        Err(Problem::BackendInVip { address, prefix, line })
    }
}

fn unlike_others<'w>(
    address: IpAddr,
    backend: &'w file::Backend,
    seen: &mut HashMap<IpAddr, &'w file::Backend>,
    findings: &Findings<'_>,
) -> Result<(), Problem> {
    if let Some(other) = seen.get(&address) {
        return Err(Problem::BackendTwice {
            address,
            other: other.name.get_ref().clone(),
            line: findings.line(&other.address.span()),
        });
    }
    seen.insert(address, backend);
    Ok(())
}

fn vip_addresses(written: &File) -> Vec<(Prefix, Range<usize>)> {
    let addresses = written.vip.iter().map(|vip| &vip.get_ref().address);
    addresses.filter_map(|address| Some((address.get_ref().parse().ok()?, address.span()))).collect()
}

/// The names of one kind that are taken so far.
pub(super) struct Names<'w> {
    kind: &'static str,
    taken: HashMap<&'w str, Range<usize>>,
}

impl<'w> Names<'w> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self { kind, taken: HashMap::new() }
    }

    pub(super) fn take(&mut self, written: &'w Spanned<String>, findings: &mut Findings<'_>) -> Option<Name> {
        let name = findings.parse(written, str::parse)?;
        if let Some(first) = self.taken.get(written.get_ref().as_str()) {
            let problem =
                Problem::NameTaken { name: written.get_ref().clone(), kind: self.kind, line: findings.line(first) };
            findings.problem(written.span(), problem);
            return None;
        }
        self.taken.insert(written.get_ref(), written.span());
        Some(name)
    }
}
