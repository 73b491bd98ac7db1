//! Checks of the configuration of an agent.

use super::super::agent::{AgentConfig, AgentToken, AgentVip, Mss};
use super::super::file;
use super::super::words::{Word as _, host_prefix};
use super::super::{Name, Prefix, Problem, TokenSecret, XdpMode};
use super::Findings;
use super::balancer::{interfaces, limit, metrics, pins};
use super::bus;
use super::token;
use super::vip::ports;
use lb_common::{
    encap::GUE_PORT,
    limits::{BALANCERS_MAX, CLAMP_RANGES_MAX, EVENT_BUFFER_BYTES, VIPS_MAX},
};
use std::{collections::HashMap, ops::Range};
use toml::Spanned;

pub(super) fn agent(written: &file::AgentFile, findings: &mut Findings<'_>) -> Option<AgentConfig> {
    let file::Agent { backend, interface, .. } = &written.agent;
    let backend = bus::own_name(backend.as_ref(), interface.span(), findings);
    let interfaces = interfaces(interface, findings);
    let xdp_mode = findings.parse_optional(written.agent.xdp_mode.as_ref(), XdpMode::parse);
    let balancers = balancers(&written.agent.balancers, findings);
    let gue_port = match &written.agent.gue_port {
        None => Some(GUE_PORT),
        Some(port) => findings.in_range(port, 0, u16::MAX.into()).and_then(|port| u16::try_from(port).ok()),
    };
    let mss = mss(&written.agent, findings);
    let pins = pins(written.agent.pins.as_ref(), AgentConfig::PINS, findings);
    let event_buffer = limit(written.agent.event_buffer_bytes.as_ref(), EVENT_BUFFER_BYTES, findings);
    let bus = bus::bus(written.bus.as_ref(), findings);
    let metrics = metrics(written.metrics.as_ref(), findings);
    let vips = vips(&written.vip, findings);
    let token = minted(written, vips.as_deref(), findings);
    Some(AgentConfig {
        backend: backend?,
        interfaces: interfaces?,
        xdp_mode: xdp_mode?.unwrap_or_default(),
        balancers: balancers?,
        gue_port: gue_port?,
        mss: mss?,
        pins: pins?,
        event_buffer: event_buffer?,
        bus: bus?,
        metrics: metrics?,
        token: token?,
        vips: vips?,
    })
}

fn balancers(written: &Spanned<Vec<Spanned<String>>>, findings: &mut Findings<'_>) -> Option<Vec<Prefix>> {
    let list = written.get_ref();
    if list.is_empty() {
        findings.problem(written.span(), Problem::NoBalancer);
    }
    findings.count(list.iter().map(Spanned::span), "balancers", BALANCERS_MAX);
    list.iter().map(|balancer| findings.parse(balancer, host_prefix)).collect::<Vec<_>>().into_iter().collect()
}

fn mss(written: &file::Agent, findings: &mut Findings<'_>) -> Option<Mss> {
    let Some(most) = &written.mss_max else {
        return Some(if written.mss_clamp { Mss::Fitting } else { Mss::Kept });
    };
    let number = findings.in_range(most, AgentConfig::MSS_MIN.into(), u16::MAX.into())?;
    if !written.mss_clamp {
        findings.problem(most.span(), Problem::NoClamp);
        return None;
    }
    u16::try_from(number).ok().map(Mss::AtMost)
}

#[expect(clippy::option_option, reason = "absent and wrong are different")]
fn minted(
    written: &file::AgentFile,
    vips: Option<&[AgentVip]>,
    findings: &mut Findings<'_>,
) -> Option<Option<AgentToken>> {
    let Some(at) = &written.token else { return Some(None) };
    let file::AgentToken { pool, secret, id, max_backends, connections, keys } = at.get_ref();
    let bits = token::bits(max_backends.as_ref(), connections.as_ref(), at.span(), findings);
    let id = token::in_range(id, max_backends.as_ref(), findings);
    let keys = token::keys(keys.as_ref(), bits, findings);
    let pool = minted_pool(pool.as_ref(), vips, at.span(), findings);
    if let Err(error) = TokenSecret::load(secret.get_ref()) {
        findings.problem(secret.span(), error.into());
        return None;
    }
    Some(Some(AgentToken { pool: pool?, secret: secret.get_ref().clone(), id: id?, bits: bits?, keys: keys? }))
}

/// The pool whose VIPs are minted for. Where a VIP is wrong, which pools there are is not known.
fn minted_pool(
    written: Option<&Spanned<String>>,
    vips: Option<&[AgentVip]>,
    at: Range<usize>,
    findings: &mut Findings<'_>,
) -> Option<Name> {
    let (pool, at) = match (written, vips) {
        (Some(written), _) => (findings.parse(written, str::parse)?, written.span()),
        (None, Some([first, others @ ..])) if others.iter().all(|vip| vip.pool == first.pool) => {
            (first.pool.clone(), at)
        }
        (None, Some([_, ..])) => {
            findings.problem(at, Problem::WhichPool);
            return None;
        }
        (None, _) => return None,
    };
    let mut theirs = vips?.iter().filter(|vip| vip.pool == pool).peekable();
    if theirs.peek().is_none() {
        findings.problem(at, Problem::NoVipOfPool(pool));
        return None;
    }
    if !theirs.any(|vip| vip.prefix.is_host()) {
        findings.problem(at, Problem::NothingMinted(pool));
        return None;
    }
    Some(pool)
}

fn vips(written: &[Spanned<file::AgentVip>], findings: &mut Findings<'_>) -> Option<Vec<AgentVip>> {
    if written.is_empty() {
        findings.problem(0..0, Problem::NoAgentVip);
    }
    findings.count(written.iter().map(Spanned::span), "VIPs", VIPS_MAX);
    let mut by_prefix: HashMap<Prefix, Vec<_>> = HashMap::new();
    let mut vips = Vec::new();
    for vip in written {
        let file::AgentVip { address, port, pool } = vip.get_ref();
        let prefix = findings.parse(address, host_prefix);
        let ports = ports(port, findings);
        let pool = findings.parse(pool, str::parse);
        if let Some(prefix) = prefix {
            by_prefix.entry(prefix).or_default().push(vip.span());
        }
        vips.push(prefix.zip(ports).zip(pool).map(|((prefix, ports), pool)| AgentVip { prefix, ports, pool }));
    }
    for spans in by_prefix.into_values() {
        let most = u32::try_from(CLAMP_RANGES_MAX).unwrap_or(u32::MAX);
        findings.count(spans.into_iter(), "VIPs with this address", most);
    }
    vips.into_iter().collect()
}
