//! The configuration that the lab gives Weir, written from types so that it is always well-formed.

use std::{net::Ipv4Addr, path::PathBuf};

use serde::Serialize;

use crate::{
    Backend, Balancer, Lab, LabError,
    addresses::{DualAddress, SERVICE_PORT, VIP, join_address, join_port},
    topology::INTERFACE,
};

/// Where the balancer's metrics page is, inside its namespace.
pub(super) const METRICS_LISTEN: &str = "127.0.0.1:9107";

pub(super) const POOL: &str = "web";
const WEIGHT: u32 = 100;

/// How the pool keeps the subflows of a connection together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Not at all: joins are hashed like any SYN, as a balancer does that knows nothing of MPTCP.
    Off,
    /// From the token of each connection, learned from the client's packets.
    Learn,
    /// From the token of each connection, told by its backend's agent.
    Report,
    /// By a port (IPv4) and an address (IPv6) of each backend's own.
    Endpoint,
    /// From the token itself, which its backend's agent has chosen: see [`WeirConfig::with_token_secret`].
    Token,
}

impl Serialize for Join {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Learn => ["learn"].serialize(serializer),
            Self::Report => ["report"].serialize(serializer),
            Self::Endpoint => ["endpoint"].serialize(serializer),
            Self::Token => ["token"].serialize(serializer),
        }
    }
}

/// A backend as the pool is to have it.
#[derive(Debug, Clone, Copy)]
pub struct PoolBackend<'l> {
    /// Which.
    pub backend: &'l Backend,
    /// Its share of the ring.
    pub weight: u32,
    /// `up`, `drain` or `down`.
    pub state: &'static str,
}

/// A backend to Weir that is in truth another name of one of the lab's: as many as are wanted, and each is served.
#[derive(Debug, Clone)]
pub struct Alias {
    name: String,
    address: Ipv4Addr,
}

impl Alias {
    /// So many of them, spread over the lab's backends. What is tunnelled to them comes there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the routes.
    pub fn many(lab: &Lab, count: usize) -> Result<Vec<Self>, LabError> {
        let mut aliases = Vec::with_capacity(count);
        for (index, backend) in (0..count).zip(lab.backends.iter().cycle()) {
            let [high, low] = u16::try_from(index / lab.backends.len() + 1).unwrap_or(u16::MAX).to_be_bytes();
            let address = Ipv4Addr::new(10, 100 + backend.number, high, low);
            aliases.push(Self { name: format!("x{}", index + 1), address });
        }
        for Backend { number, address, .. } in &lab.backends {
            let (network, next_hop) = (format!("10.{}.0.0/16", 100 + number), address.v4.to_string());
            lab.router.namespace.output("ip", &["route", "replace", &network, "via", &next_hop])?;
        }
        Ok(aliases)
    }
}

/// A configuration file for `weir run`.
#[derive(Debug, Serialize)]
pub struct WeirConfig {
    balancer: BalancerTable,
    metrics: MetricsTable,
    limits: Option<LimitsTable>,
    bus: Option<Bus>,
    pool: [PoolTable; 1],
    vip: Vec<VipTable>,
}

/// A bus, as a member's configuration has it.
#[derive(Debug, Clone, Serialize)]
pub struct Bus {
    /// Where it is.
    pub servers: Vec<String>,
    /// Who shares what is on it.
    pub cluster: &'static str,
    /// This member.
    pub name: String,
}

/// What clients connect to, and the lab's pool serves.
#[derive(Debug, Clone, Copy)]
pub struct Vip<'a> {
    /// Its name to Weir.
    pub name: &'static str,
    /// An address or a prefix.
    pub address: &'a str,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// A range, or `any`.
    pub ports: &'a str,
}

impl WeirConfig {
    /// One pool of all the lab's backends behind both VIPs. Every other backend is reached by an
    /// IPv6 tunnel, so that two backends suffice to see all four family combinations.
    pub fn for_lab(lab: &Lab, join: Join) -> Self {
        Self::for_balancer(lab, &lab.balancer, join)
    }

    /// The same for another balancer in the lab's place for Weir.
    pub fn for_balancer(lab: &Lab, balancer: &Balancer, join: Join) -> Self {
        let backends = lab.backends.iter().map(|backend| PoolBackend { backend, weight: WEIGHT, state: "up" });
        let backends = backends.map(BackendTable::from);
        let backend = if join == Join::Endpoint {
            backends.map(BackendTable::with_join_endpoint).collect()
        } else {
            backends.collect()
        };
        Self {
            balancer: BalancerTable {
                interface: vec![INTERFACE],
                xdp_mode: "native",
                source_v4: balancer.address.v4.to_string(),
                source_v6: balancer.address.v6.to_string(),
                transition_s: None,
                pins: balancer.pins.clone(),
                on_stop: None,
                cluster_key_file: None,
            },
            metrics: MetricsTable { listen: METRICS_LISTEN },
            limits: None,
            bus: None,
            pool: [PoolTable {
                name: POOL,
                join,
                forward: "ipip",
                affinity: None,
                drain_timeout_s: None,
                slow_start_s: None,
                udp_transition_s: None,
                token: None,
                backend,
                health: None,
            }],
            vip: vec![vip("web4", VIP.v4.to_string(), "tcp"), vip("web6", VIP.v6.to_string(), "tcp")],
        }
    }

    /// The same as a member of a cluster that has its key in this file.
    #[must_use]
    pub fn with_cluster_key(mut self, file: PathBuf) -> Self {
        self.balancer.cluster_key_file = Some(file);
        self
    }

    /// The same with a bus by which it and the others tell each other what they know.
    #[must_use]
    pub fn with_bus(mut self, bus: Bus) -> Self {
        self.bus = Some(bus);
        self
    }

    /// The same with a transition time and a slow start, both in seconds.
    #[must_use]
    pub fn with_transition(mut self, transition_s: u32, slow_start_s: u32) -> Self {
        self.balancer.transition_s = Some(transition_s);
        let [pool] = &mut self.pool;
        pool.slow_start_s = Some(slow_start_s);
        self
    }

    /// The same with a time for which a drained backend keeps its connections, in seconds.
    #[must_use]
    pub fn with_drain_timeout(mut self, drain_timeout_s: u32) -> Self {
        let [pool] = &mut self.pool;
        pool.drain_timeout_s = Some(drain_timeout_s);
        self
    }

    /// The same with health checks, as they stand in the file below `[pool.health]`.
    ///
    /// # Panics
    ///
    /// If that is no TOML.
    #[must_use]
    pub fn with_health(mut self, fields: &str) -> Self {
        let [pool] = &mut self.pool;
        pool.health = Some(fields.parse().expect("the test writes TOML"));
        self
    }

    /// The same with the secret of tokens that name the backends, each by its number, and with room for `max_backends`.
    #[must_use]
    pub fn with_token_secret(mut self, secret: PathBuf, max_backends: u32) -> Self {
        let [pool] = &mut self.pool;
        pool.token = Some(TokenTable { secret, max_backends });
        for backend in &mut pool.backend {
            backend.token_id = Some(backend.number.into());
        }
        self
    }

    /// The same with another id of a backend, counted from 0, in tokens.
    #[must_use]
    pub fn with_token_id(mut self, backend: usize, id: u16) -> Self {
        let [pool] = &mut self.pool;
        pool.backend[backend].token_id = Some(id);
        self
    }

    /// The same with these backends alone.
    #[must_use]
    pub fn with_backends(mut self, backends: Vec<PoolBackend<'_>>) -> Self {
        let [pool] = &mut self.pool;
        let backends = backends.into_iter().map(BackendTable::from);
        pool.backend = if pool.join == Join::Endpoint {
            backends.map(BackendTable::with_join_endpoint).collect()
        } else {
            backends.collect()
        };
        self
    }

    /// The same with another address of a backend, counted from 0.
    #[must_use]
    pub fn with_address(mut self, backend: usize, address: &str) -> Self {
        let [pool] = &mut self.pool;
        address.clone_into(&mut pool.backend[backend].address);
        self
    }

    /// The same with something else to become of the data path when Weir is told to end: `keep` or `detach`.
    #[must_use]
    pub fn with_on_stop(mut self, on_stop: &'static str) -> Self {
        self.balancer.on_stop = Some(on_stop);
        self
    }

    /// The same with sizes of its tables.
    #[must_use]
    pub fn with_tokens(mut self, tokens: u32) -> Self {
        self.limits = Some(LimitsTable { tokens: Some(tokens), joined_flows: None });
        self
    }

    /// The same with room for so many tokens and joined flows.
    #[must_use]
    pub fn with_room(mut self, tokens: u32, joined_flows: u32) -> Self {
        self.limits = Some(LimitsTable { tokens: Some(tokens), joined_flows: Some(joined_flows) });
        self
    }

    /// The same with so many VIPs in the place of the lab's: addresses of IPv4 that follow each other.
    #[must_use]
    pub fn with_vips(mut self, vips: u16) -> Self {
        let address = |number: u16| Ipv4Addr::from_bits(VIP.v4.to_bits() + u32::from(number)).to_string();
        self.vip = (0..vips).map(|number| vip(&format!("v{}", number + 1), address(number), "tcp")).collect();
        self
    }

    /// The same with further backends that are names of the lab's.
    #[must_use]
    pub fn with_aliases(mut self, aliases: &[Alias]) -> Self {
        let [pool] = &mut self.pool;
        pool.backend.extend(aliases.iter().map(|Alias { name, address }| BackendTable {
            name: name.clone(),
            address: address.to_string(),
            weight: WEIGHT,
            state: "up",
            quic_server_id: None,
            join_port: None,
            join_address: None,
            token_id: None,
            number: 0,
        }));
        self
    }

    /// The same with one more interface that packets come in by.
    #[must_use]
    pub fn with_interface(mut self, interface: &'static str) -> Self {
        self.balancer.interface.push(interface);
        self
    }

    /// The same with tunnels of this kind: `ipip` or `gue`.
    #[must_use]
    pub fn with_forward(mut self, forward: &'static str) -> Self {
        let [pool] = &mut self.pool;
        pool.forward = forward;
        self
    }

    /// The same with the backend of a flow chosen by this: `flow` or `source`.
    #[must_use]
    pub fn with_affinity(mut self, affinity: &'static str) -> Self {
        let [pool] = &mut self.pool;
        pool.affinity = Some(affinity);
        self
    }

    /// The same with tunnels whose sources are spread over a prefix of each family.
    #[must_use]
    pub fn with_sources(mut self, source_v4: &str, source_v6: &str) -> Self {
        source_v4.clone_into(&mut self.balancer.source_v4);
        source_v6.clone_into(&mut self.balancer.source_v6);
        self
    }

    /// The same with both VIPs for UDP too, and a time in seconds for which unknown flows go where they went.
    #[must_use]
    pub fn with_udp(mut self, udp_transition_s: u32) -> Self {
        let [pool] = &mut self.pool;
        pool.udp_transition_s = Some(udp_transition_s);
        self.vip.extend([vip("udp4", VIP.v4.to_string(), "udp"), vip("udp6", VIP.v6.to_string(), "udp")]);
        self
    }

    /// The same with a QUIC server id for each backend: 0x0a and its number.
    #[must_use]
    pub fn with_quic_server_ids(mut self) -> Self {
        let [pool] = &mut self.pool;
        for backend in &mut pool.backend {
            backend.quic_server_id = Some(format!("0a{:02x}", backend.number));
        }
        self
    }

    /// The same with one more VIP.
    #[must_use]
    pub fn with_vip(mut self, Vip { name, address, protocol, ports }: Vip<'_>) -> Self {
        let port = Port::Range(ports.to_owned());
        self.vip.push(VipTable { name: name.to_owned(), address: address.to_owned(), protocol, port, pool: POOL });
        self
    }

    /// Where its tunnels come from: an address or a prefix of each family.
    pub(super) fn sources(&self) -> [&str; 2] {
        [&self.balancer.source_v4, &self.balancer.source_v6]
    }

    /// The file's text.
    ///
    /// # Panics
    ///
    /// Never: every field is a plain TOML value.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("plain values only")
    }
}

fn tunnel_address(number: u8, address: DualAddress) -> String {
    match number % 2 {
        0 => address.v6.to_string(),
        _ => address.v4.to_string(),
    }
}

fn vip(name: &str, address: String, protocol: &'static str) -> VipTable {
    VipTable { name: name.to_owned(), address, protocol, port: Port::One(SERVICE_PORT), pool: POOL }
}

#[derive(Debug, Serialize)]
struct BalancerTable {
    interface: Vec<&'static str>,
    xdp_mode: &'static str,
    source_v4: String,
    source_v6: String,
    transition_s: Option<u32>,
    pins: PathBuf,
    on_stop: Option<&'static str>,
    cluster_key_file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
pub(super) struct MetricsTable {
    pub(super) listen: &'static str,
}

#[derive(Debug, Serialize)]
struct LimitsTable {
    tokens: Option<u32>,
    joined_flows: Option<u32>,
}

#[derive(Debug, Serialize)]
struct PoolTable {
    name: &'static str,
    join: Join,
    forward: &'static str,
    affinity: Option<&'static str>,
    drain_timeout_s: Option<u32>,
    slow_start_s: Option<u32>,
    udp_transition_s: Option<u32>,
    token: Option<TokenTable>,
    backend: Vec<BackendTable>,
    health: Option<toml::Table>,
}

#[derive(Debug, Serialize)]
struct TokenTable {
    secret: PathBuf,
    max_backends: u32,
}

#[derive(Debug, Serialize)]
struct BackendTable {
    name: String,
    address: String,
    weight: u32,
    state: &'static str,
    quic_server_id: Option<String>,
    join_port: Option<u16>,
    join_address: Option<String>,
    token_id: Option<u16>,
    #[serde(skip)]
    number: u8,
}

impl BackendTable {
    fn with_join_endpoint(self) -> Self {
        let (join_port, join_address) = (Some(join_port(self.number)), Some(join_address(self.number).to_string()));
        Self { join_port, join_address, ..self }
    }
}

impl From<PoolBackend<'_>> for BackendTable {
    fn from(PoolBackend { backend, weight, state }: PoolBackend<'_>) -> Self {
        let address = tunnel_address(backend.number, backend.address);
        let number = backend.number;
        let name = backend.name.clone();
        Self {
            name,
            address,
            weight,
            state,
            quic_server_id: None,
            join_port: None,
            join_address: None,
            token_id: None,
            number,
        }
    }
}

#[derive(Debug, Serialize)]
struct VipTable {
    name: String,
    address: String,
    protocol: &'static str,
    port: Port,
    pool: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Port {
    One(u16),
    Range(String),
}
