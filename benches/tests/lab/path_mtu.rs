//! Paths that are narrower than the client's packets: the client's kernel learns the path MTU from Weir, and a backend's
//! from the errors that Weir brings it. Judged by what `ss`, `ip route get` and `nstat` say. Needs root and the `weir`
//! command.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use weir_lab::{
    Backend, Lab,
    addresses::{CLIENT_MTU, Family, Path, VIP},
    namespace::Namespace,
    oracle::{Counters, JoinTally, path_mtus},
    traffic::{Connection, Mix},
    wait,
    weir::{Join, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_secs(20);
const MEGABYTE: usize = 1 << 20;
/// The router's end of the client's second path, for answers.
const NARROW_MTU: u16 = 1400;

/// Bytes of an IP header, in front of each packet to a backend: the lab tunnels to every other one over IPv6.
const fn tunnel_len(backend: &Backend) -> u16 {
    if backend.number.is_multiple_of(2) { 40 } else { 20 }
}

fn open(lab: &Lab, mix: Mix) -> Connection {
    let before = JoinTally::read(lab).expect("counters");
    let connection = Connection::open(&lab.client, mix).expect("a connection");
    let tally = JoinTally::settled_since(&before, lab, mix.joins(), LIMIT).expect("counters");
    assert_eq!((tally.established(), tally.misrouted()), (mix.joins(), 0));
    connection
}

fn backend<'l>(lab: &'l Lab, connection: &Connection) -> &'l Backend {
    lab.backends.iter().find(|backend| backend.name == connection.backend).expect("a backend of the lab")
}

/// The client's path MTU of the subflow that begins on a path, if there is one.
fn client_mtu(lab: &Lab, path: Path, family: Family) -> Option<u16> {
    let sockets = path_mtus(&lab.client.namespace).expect("ss");
    let own: IpAddr = if family == Family::V4 { path.client().v4.into() } else { path.client().v6.into() };
    let (_, mtu) = sockets.into_iter().find(|((local, _), _)| local.ip() == own)?;
    Some(mtu)
}

/// Transfers until `holds`, for the kernel chooses the subflow of each byte.
fn transfer_until(connection: &mut Connection, what: &str, mut holds: impl FnMut() -> bool) {
    wait::until(what, LIMIT, || {
        connection.transfer(MEGABYTE).unwrap_or_else(|error| panic!("{what}: a megabyte and back: {error}"));
        Ok(holds().then_some(()))
    })
    .expect("each megabyte arrives");
}

#[test]
fn the_client_learns_how_long_a_packet_may_be() {
    let lab = Lab::builder().core_mtu(CLIENT_MTU).backends(2.try_into().expect("two")).build().expect("a lab");
    let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    for mix in [Mix::V4, Mix::V6] {
        let family = mix.family();
        let mut connection = open(&lab, mix);
        let path_mtu = CLIENT_MTU - tunnel_len(backend(&lab, &connection));
        for path in Path::ALL {
            assert_eq!(client_mtu(&lab, path, family), Some(CLIENT_MTU), "nobody has told it yet");
        }
        transfer_until(&mut connection, "both subflows learn the path MTU", || {
            Path::ALL.into_iter().all(|path| client_mtu(&lab, path, family) == Some(path_mtu))
        });
        let vip = VIP.service(family).ip().to_string();
        let route = lab.client.namespace.output("ip", &["route", "get", &vip]).expect("ip");
        assert!(route.contains(&format!("mtu {path_mtu}")), "{route}");
    }
    let told: f64 = weir
        .metrics()
        .expect("a metrics page")
        .iter()
        .filter(|sample| sample.name == "weir_packets_total" && sample.label("reason") == Some("too_big"))
        .map(|sample| sample.value)
        .sum();
    assert!(told >= 4.0, "each path of each family was told: {told}");
}

/// ICMP errors about too long packets that a kernel has taken in, of a family.
fn errors(namespace: &Namespace, family: Family) -> u64 {
    let counters = Counters::read(namespace).expect("nstat");
    match family {
        Family::V4 => counters.value("IcmpInDestUnreachs"),
        Family::V6 => counters.value("Icmp6InPktTooBigs"),
    }
}

/// A backend's path MTU to the client's second path.
fn backend_mtu(backend: &Backend, family: Family) -> u16 {
    let client: IpAddr = if family == Family::V4 { Path::Two.client().v4.into() } else { Path::Two.client().v6.into() };
    let sockets = path_mtus(&backend.namespace).expect("ss");
    let mtus = sockets.into_iter().filter(|((_, peer), _): &((SocketAddr, SocketAddr), u16)| peer.ip() == client);
    mtus.map(|(_, mtu)| mtu).min().unwrap_or(CLIENT_MTU)
}

#[test]
fn an_error_about_a_joined_subflow_reaches_its_backend() {
    let lab = Lab::builder().build().expect("a lab");
    let narrow = ["link", "set", "path2", "mtu", &NARROW_MTU.to_string()];
    lab.router.namespace.output("ip", &narrow).expect("the router takes it");
    let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");

    for mix in [Mix::V4, Mix::V6] {
        let family = mix.family();
        let mut told = Vec::new();
        // Each backend's kernel keeps what it has learned, so that it causes an error only once.
        while told.len() < lab.backends.len() {
            let before: Vec<u64> = lab.backends.iter().map(|backend| errors(&backend.namespace, family)).collect();
            let mut connection = open(&lab, mix);
            let owner = backend(&lab, &connection);
            transfer_until(&mut connection, "the backend learns the path MTU", || {
                backend_mtu(owner, family) == NARROW_MTU
            });
            for (backend, before) in lab.backends.iter().zip(before) {
                let is_first = backend.number == owner.number && !told.contains(&owner.number);
                let errors = errors(&backend.namespace, family);
                assert_eq!(errors > before, is_first, "{} of {}: {}", backend.name, owner.name, weir.log());
            }
            if !told.contains(&owner.number) {
                told.push(owner.number);
            }
        }
    }
}
