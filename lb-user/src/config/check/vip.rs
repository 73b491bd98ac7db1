//! Checks of the VIPs: each address, protocol and port once, and a pool behind each.

use super::super::file::{self, File};
use super::super::words::{Word as _, host_address};
use super::super::{Oddity, PoolIndex, Problem, Protocol, Vip};
use super::{Findings, pool::Names};
use lb_common::limits::{SERVICES_PER_ADDRESS_MAX, VIPS_MAX};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use toml::Spanned;

type Places = HashMap<(SocketAddr, Protocol), Range<usize>>;

pub(super) fn vips(written: &File, findings: &mut Findings<'_>) -> Option<Vec<Vip>> {
    if written.vip.is_empty() {
        findings.oddity(0..0, Oddity::NoVip);
    }
    findings.count(written.vip.iter().map(Spanned::span), "VIPs", VIPS_MAX);
    ports_per_address(written, findings);

    let mut names = Names::new("VIP");
    let mut places = Places::new();
    let pools = pool_names(written);
    let vips: Vec<_> =
        written.vip.iter().map(|written| vip(written, &pools, &mut names, &mut places, findings)).collect();
    vips.into_iter().collect()
}

fn vip<'w>(
    written: &'w Spanned<file::Vip>,
    pools: &HashMap<&str, PoolIndex>,
    names: &mut Names<'w>,
    places: &mut Places,
    findings: &mut Findings<'_>,
) -> Option<Vip> {
    let at = written.span();
    let written = written.get_ref();
    let name = match &written.name {
        None => Some(None),
        Some(name) => names.take(name, findings).map(Some),
    };
    let address = findings.parse(&written.address, host_address);
    let protocol = findings.parse(&written.protocol, Protocol::parse);
    let port = findings.in_range(&written.port, 1, u16::MAX.into());
    let pool = pool(&written.pool, pools, findings);

    let (address, protocol) = (address?, protocol?);
    let port = u16::try_from(port?).ok()?;
    let place = SocketAddr::new(address, port);
    let shown = format!("{place}/{protocol}");
    if let Some(first) = places.get(&(place, protocol)) {
        let line = findings.line(first);
        findings.problem(at, Problem::VipTwice { vip: shown, line });
        return None;
    }
    places.insert((place, protocol), at);
    Some(Vip { name: name?.map_or(shown, |name| name.to_string()), address, protocol, port, pool: pool? })
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

/// The data path searches an address's ports in a bounded number of steps.
fn ports_per_address(written: &File, findings: &mut Findings<'_>) {
    let mut spans: HashMap<IpAddr, Vec<Range<usize>>> = HashMap::new();
    for vip in &written.vip {
        if let Ok(address) = vip.get_ref().address.get_ref().parse() {
            spans.entry(address).or_default().push(vip.span());
        }
    }
    for spans in spans.into_values() {
        findings.count(spans.into_iter(), "VIPs with this address", SERVICES_PER_ADDRESS_MAX);
    }
}
