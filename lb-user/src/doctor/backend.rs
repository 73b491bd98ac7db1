//! The questions of a backend: does it take tunnels off, does it have the VIPs, does it answer to clients and to nobody
//! else's questions for a VIP, and does it speak MPTCP.

use super::{
    DoctorError, Finding, Links, Report,
    balancer::{foreign, tunnel_len},
    endpoint::{self, JoinEndpoint},
    links::Link,
    machine::{self, Programs},
    mint, offload, sysctl,
};
use crate::{
    bpf::DECAP_PROGRAM,
    config::{AgentConfig, Forward},
};
use rtnetlink::packet_route::link::InfoKind;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    sync::Arc,
};

/// What is to be known of a backend.
#[derive(Clone, Debug)]
pub struct BackendQuestions {
    /// The interface that packets come in by; where it is not said, the one with Weir's program or the only one.
    pub interface: Option<String>,
    /// The VIPs; where they are not said, the single addresses on `lo`.
    pub vips: Vec<IpAddr>,
    /// How the balancers send.
    pub forward: Forward,
    /// How long clients' packets are, in bytes.
    pub client_mtu: u32,
    /// Where clients are to join this backend, if the pool has join endpoints.
    pub join_endpoints: Vec<JoinEndpoint>,
    /// The configuration of its agent, if it is told.
    pub agent: Option<Arc<AgentConfig>>,
}

/// Looks at this machine as a backend.
///
/// # Errors
/// The kernel does not tell of its interfaces.
pub async fn examine_backend(questions: &BackendQuestions) -> Result<Report, DoctorError> {
    let BackendQuestions { forward, client_mtu, .. } = *questions;
    let links = Links::read().await?;
    let programs = if forward == Forward::L2 { Programs::None } else { Programs::Decapsulator };
    let mut findings = machine::findings(programs).await;
    findings.push(mptcp());
    findings.extend(endpoint::findings(&questions.join_endpoints));
    findings.extend(questions.agent.iter().flat_map(|agent| mint::findings(agent)));
    let vips = match questions.vips.as_slice() {
        [] => addresses_of_lo(&links),
        vips => vips.to_vec(),
    };
    findings.extend(vips_here(&vips, &links));

    let interface = questions.interface.clone().or_else(|| incoming(&links));
    let Some(interface) = interface else {
        let fault = Finding::fault("interface", "this machine has several interfaces: by which do packets come in?");
        findings.push(fault.advise("name it: `weir doctor --backend --interface NAME`"));
        return Ok(Report::new("backend", findings));
    };
    let link = links.by_name(&interface);
    findings.push(machine::of_interface(&interface, link));
    if let Some(link) = link {
        if forward != Forward::L2 {
            findings.push(decapsulation(link, &links));
            findings.extend(room(link, forward, client_mtu));
        }
        findings.extend(offload::findings(link, programs).await);
        findings.extend(ways_back(&vips, link, &links));
        findings.extend(arp(&vips, link, forward));
    }
    Ok(Report::new("backend", findings))
}

fn mptcp() -> Finding {
    match sysctl::read("net.mptcp.enabled").as_deref() {
        Some("0") => Finding::warning("mptcp", "MPTCP is switched off: every connection is plain TCP")
            .mend("sysctl -w net.mptcp.enabled=1"),
        Some(_) => Finding::good("mptcp", "the kernel speaks MPTCP"),
        None => Finding::warning("mptcp", "this kernel has no MPTCP: every connection is plain TCP")
            .advise("use a kernel with CONFIG_MPTCP"),
    }
}

/// The addresses of `lo` that stand alone.
fn addresses_of_lo(links: &Links) -> Vec<IpAddr> {
    let Some(lo) = links.by_name("lo") else { return Vec::new() };
    let alone = lo.addresses().filter(|&(address, len)| !address.is_loopback() && len == bits(address));
    alone.map(|(address, _)| address).collect()
}

const fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn vips_here(vips: &[IpAddr], links: &Links) -> Vec<Finding> {
    if vips.is_empty() {
        return vec![
            Finding::fault("vip", "no VIP is on lo: this host drops what is for one")
                .advise("`ip address add VIP/32 dev lo` for each; name those that should be there with --vip"),
        ];
    }
    let finding = |&vip| match links.holder_of(vip).map(Link::name) {
        Some("lo") => Finding::good("vip", format!("{vip} is on lo")),
        Some(other) => Finding::warning("vip", format!("{vip} is on {other}, where others on the link find it by ARP"))
            .mend(format!(
                "ip address del {vip}/{bits} dev {other}; ip address add {vip}/{bits} dev lo",
                bits = bits(vip)
            )),
        None => Finding::fault("vip", format!("{vip} is no address of this host, which drops what is for it"))
            .mend(format!("ip address add {vip}/{} dev lo", bits(vip))),
    };
    vips.iter().map(finding).collect()
}

/// The interface with Weir's program, or the only one that could have it.
fn incoming(links: &Links) -> Option<String> {
    let ethernet = || links.iter().filter(|link| link.is_ethernet() && link.is_up().0);
    let decapsulating =
        ethernet().find(|link| link.xdp().is_some_and(|xdp| xdp.name.as_deref() == Some(DECAP_PROGRAM)));
    let only = || {
        let mut all = ethernet();
        all.next().filter(|_| all.next().is_none())
    };
    decapsulating.or_else(only).map(|link| link.name().to_owned())
}

/// Who takes the tunnels off.
fn decapsulation(link: Link<'_>, links: &Links) -> Finding {
    let name = link.name();
    if let Some(xdp) = link.xdp() {
        return match xdp.mode {
            _ if !xdp.may_be(DECAP_PROGRAM) => foreign(name, &xdp.who()),
            "generic" => {
                Finding::warning("xdp", format!("{} is on {name}, generic: slower than in the driver", xdp.who()))
                    .advise("if the driver takes XDP, run `weir decap` without --xdp-mode generic")
            }
            mode => Finding::good("xdp", format!("{} is on {name}, {mode}", xdp.who())),
        };
    }
    let kernels_own = |link: &Link<'_>| {
        matches!(link.kind(), Some(InfoKind::IpIp | InfoKind::Ip6Tnl | InfoKind::SitTun)) && link.is_up().0
    };
    if let Some(tunnel) = links.iter().find(kernels_own) {
        return Finding::good("xdp", format!("{} of the kernel takes tunnels off", tunnel.name()));
    }
    Finding::fault("xdp", format!("nobody takes the balancers' tunnels off on {name}"))
        .mend(format!("weir decap --interface {name} --from BALANCER"))
        .advise("with each balancer's source_v4 and source_v6; `weir-agent.service` does it at every start")
}

/// Whether a packet with its tunnel can come in.
fn room(link: Link<'_>, forward: Forward, client_mtu: u32) -> Option<Finding> {
    let (least, most) = (client_mtu + tunnel_len(forward, true), client_mtu + tunnel_len(forward, false));
    let (name, mtu) = (link.name(), link.mtu());
    (mtu < least).then(|| {
        let what = format!(
            "{name} takes {mtu} bytes, and a client's packet of {client_mtu} is {least} or {most} with its tunnel"
        );
        Finding::warning("mtu", what)
            .mend(format!("ip link set dev {name} mtu {most}"))
            .advise("and the same on every link from the balancer; answers may go on by routes of a smaller MTU")
    })
}

/// Whether answers get to clients, and whether the kernel minds by which way.
fn ways_back(vips: &[IpAddr], link: Link<'_>, links: &Links) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut leaves_here = true;
    for (family, is_used) in [("IPv4", vips.iter().any(IpAddr::is_ipv4)), ("IPv6", vips.iter().any(IpAddr::is_ipv6))] {
        if !is_used {
            continue;
        }
        let Some(source) = source_towards_clients(family == "IPv4") else {
            let fault = Finding::fault("answers", format!("no {family} route to clients: answers go nowhere"));
            findings.push(fault.mend(if family == "IPv4" {
                "ip route add default via GATEWAY"
            } else {
                "ip -6 route add default via GATEWAY"
            }));
            continue;
        };
        let by = links.holder_of(source).map_or("?", Link::name);
        leaves_here &= family != "IPv4" || by == link.name();
        findings.push(Finding::good("answers", format!("{family} answers leave by {by}")));
    }
    findings.push(reverse_path(link.name(), leaves_here));
    findings
}

/// The source that the kernel would choose for a packet to a stranger: connecting a datagram socket sends nothing.
fn source_towards_clients(v4: bool) -> Option<IpAddr> {
    let (any, stranger): (IpAddr, IpAddr) = if v4 {
        (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(198, 51, 100, 1).into())
    } else {
        (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0xc1, 0, 0, 0, 0, 1).into())
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((stranger, 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn reverse_path(interface: &str, leaves_here: bool) -> Finding {
    const STRICT: u32 = 1;
    if sysctl::highest(interface, "rp_filter") != STRICT {
        return Finding::good("rp_filter", format!("{interface} takes packets of any source that has a route"));
    }
    let what =
        format!("the strict reverse-path filter of {interface} drops clients whose way back is another interface");
    let finding = if leaves_here {
        Finding::warning("rp_filter", what)
    } else {
        Finding::fault("rp_filter", format!("{what}, and it is"))
    };
    finding.mend(format!("sysctl -w {}=2", sysctl::of_interface("ipv4", interface, "rp_filter")))
}

/// Whether this host claims a VIP that is the balancer's to claim.
fn arp(vips: &[IpAddr], link: Link<'_>, forward: Forward) -> Option<Finding> {
    if !vips.iter().any(IpAddr::is_ipv4) {
        return None;
    }
    let name = link.name();
    let settings = [("arp_ignore", 1), ("arp_announce", 2)];
    let low: Vec<String> = settings
        .iter()
        .filter(|&&(setting, least)| sysctl::highest(name, setting) < least)
        .map(|(setting, least)| format!("{}={least}", sysctl::of_interface("ipv4", name, setting)))
        .collect();
    if low.is_empty() {
        return Some(Finding::good("arp", format!("{name} does not answer or ask in a VIP's name")));
    }
    let what = format!("on {name} this host answers ARP for a VIP on lo: neighbours may send to it past the balancer");
    // Behind a router that knows no VIP on this link nobody asks.
    let finding = if forward == Forward::L2 { Finding::fault("arp", what) } else { Finding::warning("arp", what) };
    Some(finding.mend(format!("sysctl -w {}", low.join(" "))))
}
