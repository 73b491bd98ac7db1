//! The questions of a balancer: its interfaces, its pools, the ways to its backends, and whether a tunnel fits them.

use super::{DoctorError, Finding, Links, Report, links::Link, machine, offload, pools};
use crate::{
    config::{Backend, BackendState, Config, Forward, InterfaceName, Pool, XdpMode},
    privilege,
    resolve::{NextHop, Reach, ResolveError, Resolver, Target},
};
use futures_util::future::join_all;
use lb_common::{
    encap::{OUTER_GUE4, OUTER_GUE6, OUTER_V4, OUTER_V6},
    wire::ethernet,
};
use std::{collections::BTreeSet, path::Path};

/// Looks at this machine as the balancer of a configuration, and at the one behind the admin socket if it runs. Clients'
/// packets are up to `client_mtu` bytes long.
///
/// # Errors
/// The kernel does not tell of its interfaces.
pub async fn examine_balancer(
    config: &Config,
    file: &Path,
    socket: &Path,
    client_mtu: u32,
) -> Result<Report, DoctorError> {
    let links = Links::read().await?;
    let mut findings = machine::findings(machine::Programs::Balancer).await;
    for interface in &config.balancer.interfaces {
        let link = links.by_name(interface.as_str());
        findings.push(machine::of_interface(interface.as_str(), link));
        if let Some(link) = link {
            findings.push(occupant(link, config.balancer.xdp_mode, file));
            findings.extend(offload::findings(link, machine::Programs::Balancer).await);
        }
    }
    findings.push(own_vips(config, &links));
    findings.extend(sources(config, &links));
    findings.extend(pools::findings(config, file, socket).await);
    if privilege::missing().is_empty() {
        findings.extend(ways(config, &links, client_mtu).await);
    }
    Ok(Report::new("balancer", findings))
}

/// Who sits on the interface.
fn occupant(link: Link<'_>, configured: XdpMode, file: &Path) -> Finding {
    let name = link.name();
    let Some(xdp) = link.xdp() else {
        return Finding::good("xdp", format!("{name} is free for Weir's program"));
    };
    if !xdp.is_balancer() {
        return foreign(name, &xdp.who());
    }
    let (who, mode) = (xdp.who(), xdp.mode);
    let what = format!("{who} is on {name}, {mode}");
    match (mode, configured) {
        ("generic", XdpMode::Native) => {
            Finding::warning("xdp", format!("{what}, though {} says native", file.display())).advise("restart weir")
        }
        ("generic", XdpMode::Generic) => Finding::warning("xdp", format!("{what}: slower than in the driver")).advise(
            format!("if the driver takes XDP, set xdp_mode = \"native\" in {} and restart weir", file.display()),
        ),
        _ => Finding::good("xdp", what),
    }
}

/// Another program than Weir's.
pub(super) fn foreign(interface: &str, who: &str) -> Finding {
    Finding::fault("xdp", format!("another program is on {interface}: {who}; an interface takes one"))
        .mend(format!("ip link set dev {interface} xdp off"))
        .advise(
            "if it stays, a process holds it by a link: `bpftool link list` and `bpftool prog list` name it; stop that",
        )
}

/// A VIP that the balancer itself has would be answered by its host whenever Weir is not running.
fn own_vips(config: &Config, links: &Links) -> Finding {
    for vip in &config.vips {
        let address = vip.address.prefix.address();
        if let Some(link) = links.holder_of(address) {
            let name = link.name();
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Finding::warning(
                "vip",
                format!("VIP {address} is an address of {name}: this host answers for it while Weir does not run"),
            )
            .mend(format!("ip address del {address}/{bits} dev {name}"));
        }
    }
    Finding::good("vip", "no VIP is an address of this host")
}

/// Prefixes that flows are spread over and that machines have addresses in: nobody takes a packet in that has his own address
/// as its source, or a network's broadcast address (RFC 1812, 5.3.7), so that some flows arrive nowhere.
fn sources(config: &Config, links: &Links) -> Option<Finding> {
    let balancer = &config.balancer;
    let prefixes = [("source_v4", balancer.source_v4), ("source_v6", balancer.source_v6)];
    let spread = prefixes.into_iter().filter_map(|(field, prefix)| Some((field, prefix?)));
    let mut shared = spread.filter(|(_, prefix)| prefix.host_bits() > 0).filter_map(|(field, prefix)| {
        let mut own = links.iter().flat_map(|link| link.addresses().map(move |(address, _)| (link.name(), address)));
        let (name, address) = own.find(|&(_, address)| prefix.contains(address))?;
        Some(Finding::warning(
            "source",
            format!(
                "{field} = \"{prefix}\" holds {address} of {name}: routers and backends drop the tunnels that happen to come \
                 from an address of theirs or a broadcast address"
            ),
        )
        .advise(format!("give {field} a prefix that no machine has an address in, and the agents' `balancers` with it")))
    });
    shared.next()
}

/// A backend, and how packets get there.
struct Way<'c> {
    backend: &'c str,
    forward: Forward,
    hop: Result<NextHop, ResolveError>,
}

async fn ways(config: &Config, links: &Links, client_mtu: u32) -> Vec<Finding> {
    let resolver = match Resolver::connect() {
        Ok(resolver) => resolver,
        Err(error) => return vec![Finding::fault("neighbour", error.to_string())],
    };
    let serving = config.pools.iter().flat_map(|pool| {
        pool.backends.iter().filter(|backend| backend.state != BackendState::Down).map(move |backend| (pool, backend))
    });
    let ways = join_all(serving.map(|(pool, backend)| way(&resolver, pool, backend))).await;

    let mut findings: Vec<Finding> = ways.iter().filter_map(|way| way.hop.as_ref().err()).map(unreached).collect();
    let reached = ways.iter().filter(|way| way.hop.is_ok()).count();
    if findings.is_empty() {
        findings.push(Finding::good("neighbour", format!("{reached} of {reached} backends are reached")));
    }
    findings.extend(tunnels_that_do_not_fit(&ways, links, client_mtu));
    findings.extend(unattended(config, &ways));
    findings
}

async fn way<'c>(resolver: &Resolver, pool: &Pool, backend: &'c Backend) -> Way<'c> {
    let reach = if pool.forward == Forward::L2 { Reach::OnLink } else { Reach::Routed };
    let target = Target { backend: backend.name.to_string(), address: backend.address, reach };
    Way { backend: backend.name.as_str(), forward: pool.forward, hop: resolver.next_hop(&target).await }
}

/// A backend without a way to it; the error says what to do, and this what to look at.
fn unreached(error: &ResolveError) -> Finding {
    let command = match error {
        ResolveError::NoAnswer { neighbour, interface, .. } => format!("ip neigh show to {neighbour} dev {interface}"),
        ResolveError::NoRoute { address, .. }
        | ResolveError::ThisMachine { address, .. }
        | ResolveError::NoSource { address, .. }
        | ResolveError::BehindGateway { address, .. } => format!("ip route get {address}"),
        _ => "ip link".to_owned(),
    };
    Finding::fault("neighbour", error.to_string()).mend(command)
}

/// What a tunnel adds to a packet.
pub(super) const fn tunnel_len(forward: Forward, outer_is_v4: bool) -> u32 {
    let outer = match (forward, outer_is_v4) {
        (Forward::Ipip, true) => OUTER_V4,
        (Forward::Ipip, false) => OUTER_V6,
        (Forward::Gue, true) => OUTER_GUE4,
        (Forward::Gue, false) => OUTER_GUE6,
        (Forward::L2, _) => ethernet::HEADER_LEN,
    };
    #[expect(clippy::cast_possible_truncation, reason = "tens of bytes")]
    let len = (outer - ethernet::HEADER_LEN) as u32;
    len
}

fn tunnels_that_do_not_fit(ways: &[Way<'_>], links: &Links, client_mtu: u32) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    let mut fitting = 0;
    for way in ways {
        let Ok(hop) = &way.hop else { continue };
        let needed = client_mtu + tunnel_len(way.forward, hop.source.is_ipv4());
        if u32::from(hop.mtu) >= needed {
            fitting += 1;
            continue;
        }
        let interface = &hop.interface_name;
        if !seen.insert((interface.clone(), needed, hop.mtu)) {
            continue;
        }
        let what = format!(
            "a client's packet of {client_mtu} bytes is {needed} with the tunnel to {}, and the way there takes {}: such clients are told \"too big\"",
            way.backend, hop.mtu
        );
        let link_mtu = links.by_name(interface).map_or(u32::MAX, Link::mtu);
        let finding = Finding::warning("mtu", what);
        findings.push(if link_mtu < needed {
            finding
                .mend(format!("ip link set dev {interface} mtu {needed}"))
                .advise("and the same on every link up to the backend")
        } else {
            finding
                .mend(format!("ip route show dev {interface}"))
                .advise(format!("a route there has an MTU of its own: give it `mtu {needed}` by `ip route change`"))
        });
    }
    if findings.is_empty() && fitting > 0 {
        findings.push(Finding::good("mtu", format!("a packet of {client_mtu} bytes fits every tunnel")));
    }
    findings
}

/// Some drivers send what XDP redirects to them only where a program is attached.
fn unattended(config: &Config, ways: &[Way<'_>]) -> Vec<Finding> {
    let attended: BTreeSet<&str> = config.balancer.interfaces.iter().map(InterfaceName::as_str).collect();
    let hops = ways.iter().filter_map(|way| way.hop.as_ref().ok());
    let used: BTreeSet<&str> = hops.map(|hop| hop.interface_name.as_str()).collect();
    let unattended = used.difference(&attended);
    let finding = |interface| {
        Finding::warning(
            "outgoing",
            format!("packets leave by {interface}, which has no program of Weir's: some drivers then send nothing"),
        )
        .advise(format!("if no packet arrives at the backends, add {interface:?} to `interface` and restart weir"))
    };
    unattended.map(finding).collect()
}
