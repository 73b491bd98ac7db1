//! Checks of the VIPs: each port of an address and protocol once, and a pool behind each.

use super::super::either::Port;
use super::super::file::{self, File};
use super::super::words::{Word as _, host_prefix};
use super::super::{Oddity, PoolIndex, Ports, Prefix, Problem, Protocol, Vip, VipAddress};
use super::{Findings, pool::Names};
use lb_common::limits::{PREFIXES_MAX, VIPS_MAX};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use toml::Spanned;

/// The ports of each address and protocol that are taken so far.
type Taken = HashMap<(Prefix, Protocol), Vec<(Ports, Range<usize>)>>;

pub(super) fn vips(written: &File, findings: &mut Findings<'_>) -> Option<Vec<Vip>> {
    if written.vip.is_empty() {
        findings.oddity(0..0, Oddity::NoVip);
    }
    findings.count(written.vip.iter().map(Spanned::span), "VIPs", VIPS_MAX);
    count_prefixes(written, findings);

    let mut names = Names::new("VIP");
    let mut taken = Taken::new();
    let pools = pool_names(written);
    let vips: Vec<_> =
        written.vip.iter().map(|written| vip(written, &pools, &mut names, &mut taken, findings)).collect();
    vips.into_iter().collect()
}

fn vip<'w>(
    written: &'w Spanned<file::Vip>,
    pools: &HashMap<&str, PoolIndex>,
    names: &mut Names<'w>,
    taken: &mut Taken,
    findings: &mut Findings<'_>,
) -> Option<Vip> {
    let at = written.span();
    let written = written.get_ref();
    let name = match &written.name {
        None => Some(None),
        Some(name) => names.take(name, findings).map(Some),
    };
    let prefix = findings.parse(&written.address, host_prefix);
    let protocol = findings.parse(&written.protocol, Protocol::parse);
    let ports = ports(&written.port, findings);
    let pool = pool(&written.pool, pools, findings);

    let address = VipAddress { prefix: prefix?, protocol: protocol?, ports: ports? };
    take(address, at, taken, findings)?;
    Some(Vip { name: name?.map_or_else(|| address.to_string(), |name| name.to_string()), address, pool: pool? })
}

pub(super) fn ports(written: &Spanned<Port>, findings: &mut Findings<'_>) -> Option<Ports> {
    match written.get_ref() {
        Port::Number(port) => findings.port(*port, written.span()).map(Ports::from),
        Port::Word(word) => findings.parse_at(word, written.span(), str::parse),
    }
}

/// Notes the ports of a VIP, unless another has one of them.
fn take(address: VipAddress, at: Range<usize>, taken: &mut Taken, findings: &mut Findings<'_>) -> Option<()> {
    let others = taken.entry((address.prefix, address.protocol)).or_default();
    let Some((ports, first)) = others.iter().find(|(ports, _)| ports.overlap(address.ports)) else {
        others.push((address.ports, at));
        return Some(());
    };
    let (vip, line) = (address.to_string(), findings.line(first));
    let problem = if *ports == address.ports {
        Problem::VipTwice { vip, line }
    } else {
        let other = VipAddress { ports: *ports, ..address };
        Problem::VipsOverlap { vip, other: other.to_string(), line }
    };
    findings.problem(at, problem);
    None
}

fn pool(written: &Spanned<String>, pools: &HashMap<&str, PoolIndex>, findings: &mut Findings<'_>) -> Option<PoolIndex> {
    let name = written.get_ref();
    let pool = pools.get(name.as_str()).copied();
    if pool.is_none() {
        let problem = Problem::UnknownPool { name: name.clone(), known: known_pools(pools) };
        findings.problem(written.span(), problem);
    }
    pool
}

fn pool_names(written: &File) -> HashMap<&str, PoolIndex> {
    let names = written.pool.iter().map(|pool| pool.get_ref().name.get_ref());
    names.enumerate().map(|(index, name)| (name.as_str(), PoolIndex(index))).collect()
}

fn known_pools(pools: &HashMap<&str, PoolIndex>) -> String {
    const SHOWN: usize = 8;
    if pools.is_empty() {
        return "there is no [[pool]]; add one".to_owned();
    }
    let mut names: Vec<_> = pools.keys().map(|name| format!("{name:?}")).collect();
    names.sort();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    names.truncate(SHOWN);
    format!("choose {}{more}", names.join(" or "))
}

/// The data path searches the prefixes in a bounded number of steps.
fn count_prefixes(written: &File, findings: &mut Findings<'_>) {
    let mut seen = HashSet::new();
    let prefixes = written.vip.iter().filter(|vip| {
        let prefix = vip.get_ref().address.get_ref().parse::<Prefix>();
        prefix.is_ok_and(|prefix| !prefix.is_host() && seen.insert(prefix))
    });
    let spans: Vec<_> = prefixes.map(Spanned::span).collect();
    findings.count(spans.into_iter(), "prefixes", PREFIXES_MAX);
}
