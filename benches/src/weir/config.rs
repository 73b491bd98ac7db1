//! The configuration that the lab gives Weir, written from types so that it is always well-formed.

use serde::Serialize;

use crate::{
    Lab,
    addresses::{BALANCER, DualAddress, SERVICE_PORT, VIP},
    topology::INTERFACE,
};

/// Where the balancer's metrics page is, inside its namespace.
pub(super) const METRICS_LISTEN: &str = "127.0.0.1:9107";

const POOL: &str = "web";
const WEIGHT: u32 = 100;

/// How the pool keeps the subflows of a connection together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Not at all: joins are hashed like any SYN, as a balancer does that knows nothing of MPTCP.
    Off,
    /// From the token of each connection, learned from the client's packets.
    Learn,
}

impl Serialize for Join {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Learn => ["learn"].serialize(serializer),
        }
    }
}

/// A configuration file for `weir run`.
#[derive(Debug, Serialize)]
pub struct WeirConfig {
    balancer: BalancerTable,
    metrics: MetricsTable,
    pool: [PoolTable; 1],
    vip: [VipTable; 2],
}

impl WeirConfig {
    /// One pool of all the lab's backends behind both VIPs. Every other backend is reached by an
    /// IPv6 tunnel, so that two backends suffice to see all four family combinations.
    pub fn for_lab(lab: &Lab, join: Join) -> Self {
        let backends = lab.backends.iter().map(|backend| BackendTable {
            name: backend.name.clone(),
            address: tunnel_address(backend.number, backend.address),
            weight: WEIGHT,
        });
        Self {
            balancer: BalancerTable {
                interface: INTERFACE,
                xdp_mode: "native",
                source_v4: BALANCER.v4.to_string(),
                source_v6: BALANCER.v6.to_string(),
            },
            metrics: MetricsTable { listen: METRICS_LISTEN },
            pool: [PoolTable { name: POOL, join, forward: "ipip", backend: backends.collect() }],
            vip: [vip("web4", VIP.v4.to_string()), vip("web6", VIP.v6.to_string())],
        }
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

fn vip(name: &'static str, address: String) -> VipTable {
    VipTable { name, address, protocol: "tcp", port: SERVICE_PORT, pool: POOL }
}

#[derive(Debug, Serialize)]
struct BalancerTable {
    interface: &'static str,
    xdp_mode: &'static str,
    source_v4: String,
    source_v6: String,
}

#[derive(Debug, Serialize)]
struct MetricsTable {
    listen: &'static str,
}

#[derive(Debug, Serialize)]
struct PoolTable {
    name: &'static str,
    join: Join,
    forward: &'static str,
    backend: Vec<BackendTable>,
}

#[derive(Debug, Serialize)]
struct BackendTable {
    name: String,
    address: String,
    weight: u32,
}

#[derive(Debug, Serialize)]
struct VipTable {
    name: &'static str,
    address: String,
    protocol: &'static str,
    port: u16,
    pool: &'static str,
}
