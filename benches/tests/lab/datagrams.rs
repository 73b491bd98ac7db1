//! UDP through Weir between kernel sockets: flows keep their backend while the pool changes, and datagrams in pieces
//! arrive whole. Needs root and the `weir` command.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use weir_lab::{
    Client, Lab, LabError,
    addresses::{SERVICE_PORT, VIP},
    datagrams::{UdpEcho, UdpFlow},
    traffic::{Connection, Mix},
    wait,
    weir::{Join, PoolBackend, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_secs(30);
const UDP_TRANSITION_S: u32 = 3;
const SHORT: usize = 100;

fn services() -> [SocketAddr; 2] {
    VIP.both().map(|address| (address, SERVICE_PORT).into())
}

fn lab_of(backends: u8) -> (Lab, Vec<UdpEcho>) {
    let lab = Lab::builder().backends(backends.try_into().expect("a few")).build().expect("a lab");
    let serve = |backend: &weir_lab::Backend| UdpEcho::start(&backend.namespace, &backend.name, &services());
    let servers = lab.backends.iter().map(serve).collect::<Result<_, LabError>>().expect("UDP services");
    (lab, servers)
}

fn config(lab: &Lab, backends: &[usize]) -> WeirConfig {
    let backend = |&index: &usize| PoolBackend { backend: &lab.backends[index], weight: 100, state: "up" };
    WeirConfig::for_lab(lab, Join::Learn)
        .with_transition(600, 0)
        .with_udp(UDP_TRANSITION_S)
        .with_backends(backends.iter().map(backend).collect())
}

/// Flows of both families, and the backend that each is at.
struct Flows(Vec<(UdpFlow, String)>);

impl Flows {
    fn open(client: &Client, count: usize) -> Self {
        let open = |service: SocketAddr| {
            let mut flow = UdpFlow::new(client, service).expect("a socket");
            let backend = flow.exchange(SHORT).expect("an echo");
            (flow, backend)
        };
        Self(services().into_iter().cycle().take(count).map(open).collect())
    }

    fn backends(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(_, backend)| backend.as_str()).collect()
    }

    /// Sends on every flow; each must be where it was.
    fn check(&mut self, when: &str) {
        for (flow, backend) in &mut self.0 {
            assert_eq!(&flow.exchange(SHORT).expect("an echo"), backend, "{when}");
        }
    }
}

/// The backends that new flows come to, until one comes to `awaited`.
fn await_new_flow_at(lab: &Lab, awaited: &str) {
    wait::until("a new flow comes to the backend", LIMIT, || {
        Ok(Flows::open(&lab.client, 8).backends().contains(awaited).then_some(()))
    })
    .expect("it has its share when the flows that were open have had their time");
}

fn packets(weir: &Weir, reason: &str) -> f64 {
    let samples = weir.metrics().expect("a metrics page");
    samples
        .iter()
        .filter(|sample| sample.name == "weir_packets_total" && sample.label("reason") == Some(reason))
        .map(|sample| sample.value)
        .sum()
}

#[test]
fn a_flow_in_use_stays_at_its_backend_while_others_come_and_go() {
    let (lab, _servers) = lab_of(4);
    let mut weir = Weir::start(&lab, &config(&lab, &[0, 1, 2])).expect("weir runs");
    let mut flows = Flows::open(&lab.client, 128);
    assert_eq!(flows.backends(), BTreeSet::from(["b1", "b2", "b3"]));
    flows.check("nothing has changed");
    assert!(packets(&weir, "datagram") < 1.0, "at rest nothing is remembered");

    weir.reload(&config(&lab, &[0, 1, 2, 3])).expect("a reload");
    flows.check("b4 has just come");
    assert!(packets(&weir, "ring_previous") > 1.0, "some flows are in slots that b4 has taken");
    await_new_flow_at(&lab, "b4");
    flows.check("b4 takes new flows");
    assert!(packets(&weir, "datagram") > 1.0, "they are remembered");

    weir.reload(&config(&lab, &[1, 2, 3])).expect("a reload");
    flows.check("b1 is leaving");
    wait::until("b1 gets no new flow", LIMIT, || {
        Ok((!Flows::open(&lab.client, 32).backends().contains("b1")).then_some(()))
    })
    .expect("the flows that were open have had their time");
    flows.check("b1 has left");
}

#[test]
fn a_datagram_in_pieces_arrives_whole() {
    let (lab, _servers) = lab_of(3);
    let weir = Weir::start(&lab, &config(&lab, &[0, 1, 2])).expect("weir runs");
    let mut flows = Flows::open(&lab.client, 48);
    assert_eq!(flows.backends().len(), 3, "the pieces may go astray");
    for (flow, backend) in &mut flows.0 {
        for length in [1473, 4000, 9000] {
            let echoed = flow.exchange(length);
            let echoed = echoed.unwrap_or_else(|error| panic!("{length} bytes to {}: {error}", flow.service()));
            assert_eq!(&echoed, backend, "{length} bytes");
        }
    }
    let pieces = 1.0 + 2.0 + 6.0;
    assert!(packets(&weir, "fragment_later") >= 48.0 * pieces, "{}", packets(&weir, "fragment_later"));
}

#[test]
fn with_affinity_to_the_source_all_flows_of_a_client_are_at_one_backend() {
    let (lab, _servers) = lab_of(3);
    let mut weir = Weir::start(&lab, &config(&lab, &[0, 1, 2]).with_affinity("source")).expect("weir runs");
    let mut by_tcp = Connection::open(&lab.client, Mix::V4).expect("a connection");
    for family in 0..2 {
        let flows = (0..24).map(|_| UdpFlow::new(&lab.client, services()[family]).expect("a socket"));
        let backends: BTreeSet<_> = flows.map(|mut flow| flow.exchange(SHORT).expect("an echo")).collect();
        assert_eq!(backends.len(), 1, "{backends:?}");
        if family == 0 {
            assert!(backends.contains(&by_tcp.backend), "TCP and UDP alike");
        }
    }
    by_tcp.exchange().expect("it works");
    weir.reload(&config(&lab, &[0, 1, 2]).with_affinity("flow")).expect("a reload");
    assert_eq!(Flows::open(&lab.client, 48).backends().len(), 3);
}

/// A packet of QUIC with a short header, whose connection id names a server with rotation bits 0.
fn quic_packet(backend: u8) -> Vec<u8> {
    let (short_header, rotation, nonce) = (0x40, 0, [0x5a; 8]);
    [&[short_header, rotation, 0x0a, backend][..], &nonce, &[0; 40]].concat()
}

#[test]
fn a_connection_id_names_its_server_wherever_the_client_is() {
    let (lab, _servers) = lab_of(3);
    let mut weir = Weir::start(&lab, &config(&lab, &[0, 1, 2])).expect("weir runs");
    let at = |backend: u8| -> BTreeSet<String> {
        let flows = (0..24).map(|index| UdpFlow::new(&lab.client, services()[index % 2]).expect("a socket"));
        flows.map(|mut flow| flow.exchange_bytes(&quic_packet(backend)).expect("an echo")).collect()
    };
    assert_eq!(at(2).len(), 3, "nobody looks at the id yet");

    weir.reload(&config(&lab, &[0, 1, 2]).with_quic_server_ids()).expect("a reload");
    for backend in 1..=3 {
        assert_eq!(at(backend), BTreeSet::from([format!("b{backend}")]));
    }
    assert!(at(4).len() > 1, "an id of nobody");

    let b2_is_down = [(0, "up"), (1, "down"), (2, "up")].map(|(index, state)| PoolBackend {
        backend: &lab.backends[index],
        weight: 100,
        state,
    });
    let down = config(&lab, &[0, 1, 2]).with_backends(b2_is_down.to_vec()).with_quic_server_ids();
    weir.reload(&down).expect("a reload");
    assert_eq!(at(2), BTreeSet::from(["b1", "b3"].map(str::to_owned)));
    assert_eq!(at(3), BTreeSet::from(["b3".to_owned()]));

    weir.reload(&config(&lab, &[0, 1]).with_quic_server_ids()).expect("a reload");
    assert_eq!(at(3), BTreeSet::from(["b3".to_owned()]), "it is leaving, and may have connections");
    assert_eq!(at(2), BTreeSet::from(["b2".to_owned()]));
}
