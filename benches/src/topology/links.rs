//! Lays the lab's links: veth pairs, addresses, routes and MPTCP endpoints, as `ip` commands in
//! batches. Everything is inside the lab's namespaces from the moment it is made.

use crate::{
    LabError,
    addresses::{self, BALANCER, CLIENT_MTU, CORE_MTU, DualAddress, Path, VIP},
    command,
    namespace::Namespace,
};

use super::INTERFACE;

/// The router's interface towards the balancer.
pub(crate) const BALANCER_SIDE: &str = "weir";

const PATH_TWO_TABLE: u8 = 2;

/// Asymmetric routes (answers bypass the balancer) fail a reverse-path check, and an address that
/// waits for duplicate detection cannot be used yet.
const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
    // A link that goes down and comes up again is what it was.
    ("ipv6/conf/all/keep_addr_on_down", "1"),
    ("mptcp/enabled", "1"),
];

const FORWARDING: &[(&str, &str)] =
    &[("ipv4/ip_forward", "1"), ("ipv4/conf/all/send_redirects", "0"), ("ipv6/conf/all/forwarding", "1")];

/// The client's links, by their names at the router.
const CLIENT_SIDES: [&str; 2] = ["path1", "path2"];

/// A veth pair between the router and one end; or two of them, with a line between.
struct Link<'a> {
    end: &'a Namespace,
    /// The interface's name at the end.
    interface: &'static str,
    /// The interface's name at the router.
    router_side: String,
    address: DualAddress,
    mtu: u16,
    line: Option<&'a Namespace>,
}

/// Makes the namespaces and everything in them.
pub(super) fn lay(
    client: &Namespace,
    router: &Namespace,
    balancer: &Namespace,
    backends: &[(u8, Namespace)],
    line: Option<&Namespace>,
    core_mtu: u16,
) -> Result<(), LabError> {
    let ends = || [client, balancer].into_iter().chain(backends.iter().map(|(_, end)| end));
    make_namespaces(ends().chain([router]).chain(line))?;
    router.write_settings(FORWARDING)?;
    if let Some(line) = line {
        line.write_settings(&[("ipv6/conf/default/disable_ipv6", "1")])?;
    }

    let links = plan(client, balancer, backends, line, core_mtu);
    make_links(router, &links)?;
    router.ip_batch(&vip_routes(BALANCER))?;

    set_up_client(client)?;
    balancer.ip_batch(&default_routes(BALANCER, INTERFACE, core_mtu))?;
    for (number, backend) in backends {
        backend.ip_batch(&backend_commands(addresses::backend(*number)))?;
    }
    Ok(())
}

/// Routes to the VIPs by way of `next_hop`, replacing any others.
pub(crate) fn vip_routes(next_hop: DualAddress) -> String {
    format!("route replace {}/32 via {}\nroute replace {}/128 via {}\n", VIP.v4, next_hop.v4, VIP.v6, next_hop.v6)
}

fn plan<'a>(
    client: &'a Namespace,
    balancer: &'a Namespace,
    backends: &'a [(u8, Namespace)],
    line: Option<&'a Namespace>,
    core_mtu: u16,
) -> Vec<Link<'a>> {
    let path = |path: Path, interface, router_side: &str| Link {
        end: client,
        interface,
        router_side: router_side.to_owned(),
        address: path.client(),
        mtu: CLIENT_MTU,
        line,
    };
    let core =
        |end, router_side, address| Link { end, interface: INTERFACE, router_side, address, mtu: core_mtu, line: None };
    let mut links = vec![
        path(Path::One, "eth0", CLIENT_SIDES[0]),
        path(Path::Two, "eth1", CLIENT_SIDES[1]),
        core(balancer, BALANCER_SIDE.to_owned(), BALANCER),
    ];
    let backends = backends.iter();
    links.extend(backends.map(|(number, end)| core(end, format!("b{number}"), addresses::backend(*number))));
    links
}

/// Makes one more machine at the router, whose name there is `router_side`.
pub(crate) fn lay_further(
    router: &Namespace,
    end: &Namespace,
    router_side: &str,
    address: DualAddress,
) -> Result<(), LabError> {
    make_namespaces([end].into_iter())?;
    let router_side = router_side.to_owned();
    make_links(router, &[Link { end, interface: INTERFACE, router_side, address, mtu: CORE_MTU, line: None }])?;
    end.ip_batch(&default_routes(address, INTERFACE, CORE_MTU))
}

/// The two ends of each line.
pub(super) fn line_ends() -> [[String; 2]; 2] {
    CLIENT_SIDES.map(|side| [format!("in-{side}"), format!("out-{side}")])
}

fn make_namespaces<'a>(namespaces: impl Iterator<Item = &'a Namespace> + Clone) -> Result<(), LabError> {
    let commands: Vec<String> =
        namespaces.clone().map(|namespace| format!("netns add {}\n", namespace.name())).collect();
    command::output("ip", &["-batch", "-"], &commands.concat())?;
    for namespace in namespaces {
        namespace.write_settings(EVERYWHERE)?;
        namespace.ip_batch(
            "link set lo up\n\
             mptcp limits set subflow 8 add_addr_accepted 8\n",
        )?;
    }
    Ok(())
}

/// Makes links and gives both ends their addresses.
fn make_links(router: &Namespace, links: &[Link<'_>]) -> Result<(), LabError> {
    let commands: Vec<String> = links.iter().map(|link| link.creation_commands(router)).collect();
    command::output("ip", &["-batch", "-"], &commands.concat())?;
    for link in links {
        use_whole_packets(link.end, link.interface)?;
        use_whole_packets(router, &link.router_side)?;
        link.end.ip_batch(&link.end_commands())?;
        let Some(line) = link.line else { continue };
        for side in ["in", "out"] {
            let side = format!("{side}-{}", link.router_side);
            use_whole_packets(line, &side)?;
            line.ip_batch(&format!("link set {side} up\n"))?;
        }
    }
    router.ip_batch(&links.iter().map(Link::router_commands).collect::<String>())
}

/// Every packet as it would be on a wire: its own checksum, no larger than the MTU. A veth otherwise
/// hands over partial checksums and 64 kB segments, which XDP would see.
fn use_whole_packets(namespace: &Namespace, interface: &str) -> Result<(), LabError> {
    let offloads = ["-K", interface, "tx", "off", "tso", "off", "gso", "off", "gro", "off"];
    namespace.output("ethtool", &offloads)?;
    Ok(())
}

impl Link<'_> {
    fn creation_commands(&self, router: &Namespace) -> String {
        let Self { end, interface, router_side, mtu, .. } = self;
        let pair = |(one, one_name): (&Namespace, &str), (other, other_name): (&Namespace, &str)| {
            format!(
                "link add {one_name} mtu {mtu} netns {} type veth peer name {other_name} mtu {mtu} netns {}\n",
                one.name(),
                other.name(),
            )
        };
        let Some(line) = self.line else { return pair((end, interface), (router, router_side)) };
        let into = pair((end, interface), (line, &format!("in-{router_side}")));
        into + &pair((line, &format!("out-{router_side}")), (router, router_side))
    }

    fn end_commands(&self) -> String {
        interface_commands(self.interface, self.address)
    }

    fn router_commands(&self) -> String {
        interface_commands(&self.router_side, self.address.router())
    }
}

fn interface_commands(interface: &str, address: DualAddress) -> String {
    format!(
        "address add {}/24 dev {interface}\n\
         address add {}/64 dev {interface} nodad\n\
         link set {interface} up\n",
        address.v4, address.v6
    )
}

fn default_routes(address: DualAddress, interface: &str, mtu: u16) -> String {
    let routes =
        address.router().both().map(|router| format!("route add default via {router} dev {interface} mtu {mtu}\n"));
    routes.concat()
}

/// Path one is the default; what is sent from path two's addresses leaves by path two, and MPTCP
/// joins from there.
fn set_up_client(client: &Namespace) -> Result<(), LabError> {
    client.ip_batch(&default_routes(Path::One.client(), "eth0", CLIENT_MTU))?;
    let second = Path::Two.client();
    for (own, router) in second.both().into_iter().zip(second.router().both()) {
        client.ip_batch(&format!(
            "route add default via {router} dev eth1 table {PATH_TWO_TABLE}\n\
             mptcp endpoint add {own} dev eth1 subflow\n"
        ))?;
        // Unlike the others, `ip rule` does not tell the family from the address.
        let family = if own.is_ipv4() { "-4" } else { "-6" };
        let (own, table) = (own.to_string(), PATH_TWO_TABLE.to_string());
        client.output("ip", &[family, "rule", "add", "from", &own, "table", &table])?;
    }
    Ok(())
}

/// Answers go to the client, whose paths are narrower than the core. The VIPs are on `lo`, so that answers carry them and nobody asks for them by ARP. Announcing the
/// IPv6 VIP lets a client join over IPv6 what it opened over IPv4.
fn backend_commands(address: DualAddress) -> String {
    format!(
        "address add {}/32 dev lo\naddress add {v6}/128 dev lo nodad\n{}\
         mptcp endpoint add {v6} dev lo signal\n",
        VIP.v4,
        default_routes(address, INTERFACE, CLIENT_MTU),
        v6 = VIP.v6,
    )
}
