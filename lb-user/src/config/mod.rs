//! The configuration: a TOML file in, a [`Config`] out that needs no further checks, or every error with its place.
//!
//! `file` is the text as written, `check` turns it into the types here, `problem` has the messages. Nothing here
//! touches the network or the running balancer: a bad file changes nothing.

mod address;
mod agent;
mod bus;
mod check;
mod either;
mod epochs;
mod file;
mod health;
mod key;
mod place;
mod prefix;
mod problem;
mod quic;
mod regular;
mod secret;
mod token;
mod words;

pub use address::{Ports, VipAddress};
pub use agent::{AgentConfig, AgentToken, AgentVip, Mss};
pub use bus::{Bus, Credentials};
pub use epochs::{EpochSecret, Fingerprint, Rotated, TokenSecret, TokenSecretError, rfc3339};
pub use health::{Check, Health, HttpRequest, Trust, TrustError};
pub use key::{ClusterKey, KeyError};
pub use place::Located;
pub use prefix::{Prefix, PrefixError};
pub use problem::{Family, Oddity, Problem};
pub use quic::QuicServerId;
pub use secret::SecretError;
pub use token::TokenWay;
pub use words::{
    Affinity, BackendState, Forward, InterfaceName, Name, OnStop, Protocol, TcpFragments, UnknownJoin, Way, XdpMode,
};

use lb_common::stateless::TokenId;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration that holds: every name resolved, every value in its range.
#[derive(Debug)]
pub struct Config {
    /// What the balancer itself is.
    pub balancer: Balancer,
    /// Where Prometheus may scrape; `None` where it may not.
    pub metrics: Option<Metrics>,
    /// Who may use the admin socket.
    pub admin: Admin,
    /// How the other members of the cluster are reached; `None` where this balancer stands alone.
    pub bus: Option<Bus>,
    /// Sizes of the tables.
    pub limits: Limits,
    /// The pools, in the order of the file.
    pub pools: Vec<Pool>,
    /// The VIPs, in the order of the file.
    pub vips: Vec<Vip>,
    /// What is allowed, and hardly meant.
    pub warnings: Vec<Located<Oddity>>,
}

/// Bytes of a configuration file: 4,096 backends and 1,024 VIPs with long names and comments take less than two million.
const CONFIG_BYTES_MAX: u64 = 16 << 20;

/// The `[balancer]` table.
#[derive(Debug)]
pub struct Balancer {
    /// The interfaces that the XDP program is attached to: at least one, each once.
    pub interfaces: Vec<InterfaceName>,
    /// How it is attached.
    pub xdp_mode: XdpMode,
    /// Outer source address of IPv4 tunnels, or a prefix over whose host bits (32 at most) the flows are spread; the
    /// route's where `None`.
    pub source_v4: Option<Prefix>,
    /// The same of IPv6 tunnels.
    pub source_v6: Option<Prefix>,
    /// The UDP port that GUE tunnels go to.
    pub gue_port: u16,
    /// How long a slot whose owner changed remembers the one before.
    pub transition: Duration,
    /// The key of the cluster; `None` asks for a random one.
    pub cluster_key: Option<ClusterKey>,
    /// What the marks of the packets of health checks have in common: the low 13 bits are zero, and not all others.
    pub probe_mark: u32,
    /// The directory in bpffs for what outlives the controller.
    pub pins: PathBuf,
    /// What becomes of the data path when the controller is told to end.
    pub on_stop: OnStop,
}

impl Balancer {
    /// Where pins are unless the operator says otherwise.
    pub const PINS: &str = "/sys/fs/bpf/weir";
}

/// The `[metrics]` table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metrics {
    /// Where the HTTP listener is.
    pub listen: SocketAddr,
}

/// The `[admin]` table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admin {
    /// The group whose members may use the admin socket beside the user that runs Weir.
    pub group: Option<Name>,
}

/// The `[limits]` table, in entries; the ranges are those of [`lb_common::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Learned tokens.
    pub tokens: u32,
    /// Joined subflows that the ring does not answer.
    pub joined_flows: u32,
    /// Handshakes between the SYN and the third ACK.
    pub pending_handshakes: u32,
    /// Joins between the SYN and the ACK that confirms them.
    pub embryonic_flows: u32,
    /// Flows that began in a slot in transition.
    pub moved_flows: u32,
    /// Flows that outlive the transition of their slot.
    pub pinned_flows: u32,
    /// Flows of datagrams in slots in transition.
    pub datagram_flows: u32,
    /// Datagrams in pieces.
    pub fragmented_datagrams: u32,
    /// Entries that the clients of one /24 or /48 may have made in 1.07 s.
    pub entries_per_network: u32,
    /// Joins of one connection that are let through in 1.07 s.
    pub joins_per_token: u32,
    /// ICMP errors that a CPU may send in 1.07 s.
    pub icmp_errors_per_cpu: u32,
}

/// A `[[pool]]`: the backends behind one or more VIPs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name, unique among pools.
    pub name: Name,
    /// How joins find their connection's backend.
    pub join: Join,
    /// What happens to a join that none of the ways knows.
    pub unknown_join: UnknownJoin,
    /// Whether a third ACK teaches its token though the balancer never saw its SYN.
    pub learn_unseen: bool,
    /// How packets reach the backends.
    pub forward: Forward,
    /// What decides which backend a new flow gets.
    pub affinity: Affinity,
    /// What happens to TCP segments in pieces.
    pub tcp_fragments: TcpFragments,
    /// How long a drained backend keeps its connections.
    pub drain_timeout: Duration,
    /// How long a backend that comes takes to get its whole share.
    pub slow_start: Duration,
    /// How long after a change datagrams of unknown flows go where they went before.
    pub udp_transition: Duration,
    /// The rotation bits with which the backends' QUIC server ids hold: 0 to 6, at least one, each once.
    pub quic_rotations: Vec<u8>,
    /// How the tokens of its connections name its backends; `None` where they do not.
    pub token: Option<TokenWay>,
    /// How its backends are checked; `None` where they are not.
    pub health: Option<Health>,
    /// At least one, in the order of the file; at least one has a weight.
    pub backends: Vec<Backend>,
}

/// How joins of a pool find their connection's backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Join {
    /// Not at all: the balancer is blind to MPTCP.
    Off,
    /// By these ways: at least one, each once.
    By(Vec<Way>),
}

/// A `[[pool.backend]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Its name, unique in its pool.
    pub name: Name,
    /// Its address, unique in its pool.
    pub address: IpAddr,
    /// Its share of the ring, 0 to 10000; 0 gets no new flow.
    pub weight: u16,
    /// What it does in its pool.
    pub state: BackendState,
    /// Its name in QUIC connection ids: all backends of a pool have one of the same length, or none has.
    pub quic_server_id: Option<QuicServerId>,
    /// The port of its own that clients join it at, on the addresses of its pool's VIPs.
    pub join_port: Option<u16>,
    /// The address of its own that clients join it at, on the ports of its pool's VIPs.
    pub join_address: Option<IpAddr>,
    /// Its name in the tokens of its pool: all backends of a pool with such tokens have one.
    pub token_id: Option<TokenId>,
}

impl Backend {
    /// Where clients join it, if its pool's VIPs are these: at its port on their addresses, and at its address on their
    /// ports; each once.
    pub fn join_places<'v>(&self, vips: impl Iterator<Item = &'v Vip>) -> Vec<VipAddress> {
        let mut places = Vec::new();
        for vip in vips.filter(|vip| vip.address.protocol == Protocol::Tcp) {
            let at_port = self.join_port.map(|port| VipAddress { ports: port.into(), ..vip.address });
            let at_address = self.join_address.map(|address| VipAddress { prefix: address.into(), ..vip.address });
            for place in at_port.into_iter().chain(at_address) {
                if !places.contains(&place) {
                    places.push(place);
                }
            }
        }
        places
    }

    /// What its kernel is to tell clients of, if its pool's VIPs are these: an address, and a port where it is not the
    /// service's. A port can only be told with an IPv4 address, for over IPv6 the option does not fit beside timestamps.
    pub fn told_endpoints<'v>(&self, vips: impl Iterator<Item = &'v Vip>) -> Vec<(IpAddr, Option<u16>)> {
        let mut told = Vec::new();
        for vip in vips.map(|vip| vip.address).filter(|vip| vip.protocol == Protocol::Tcp) {
            let address = vip.prefix.address();
            let at_port = self.join_port.filter(|_| vip.prefix.is_host() && address.is_ipv4());
            let at_address = self.join_address.map(|address| (address, None));
            for endpoint in at_port.map(|port| (address, Some(port))).into_iter().chain(at_address) {
                if !told.contains(&endpoint) {
                    told.push(endpoint);
                }
            }
        }
        told
    }
}

/// A `[[vip]]`: what clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The configured name, or `ADDRESS:PORTS/PROTOCOL`; unique among VIPs.
    pub name: String,
    /// What it serves; no port of an address or prefix is in two VIPs of a protocol.
    pub address: VipAddress,
    /// The pool that serves it.
    pub pool: PoolIndex,
}

/// A pool by its place in [`Config::pools`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolIndex(pub usize);

/// Why there is no [`Config`].
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file cannot be read.
    #[error("{file}: {source}{}", advice(source.kind()))]
    Unreadable {
        /// The path as given.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Everything that is wrong in the file, in its order, a line each.
    #[error("{}", lines(.0))]
    Wrong(Vec<Located<Problem>>),
}

impl Config {
    /// Reads and checks a file, and the key file that it names.
    ///
    /// # Errors
    /// The file cannot be read, or something in it is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let (text, file) = read(path)?;
        Self::parse(&text, &file)
    }

    /// Checks a text, and the key file that it names; `file` is what the messages call it.
    ///
    /// # Errors
    /// Something in the text is wrong: all of it is reported, or the first mistake of syntax.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        check::config(text, file)
    }

    /// The pool of a VIP of this configuration.
    ///
    /// # Panics
    /// The VIP is of another configuration, with more pools.
    pub fn pool_of(&self, vip: &Vip) -> &Pool {
        &self.pools[vip.pool.0]
    }

    /// How much is configured, such as `2 VIPs, 1 pool, 3 backends`.
    pub fn summary(&self) -> String {
        let backends = self.pools.iter().map(|pool| pool.backends.len()).sum();
        let parts = [count(self.vips.len(), "VIP"), count(self.pools.len(), "pool"), count(backends, "backend")];
        parts.join(", ")
    }
}

/// The text of a file, and what messages call it.
fn read(path: &Path) -> Result<(String, String), ConfigErrors> {
    let file = path.display().to_string();
    match regular::open_bounded(path, CONFIG_BYTES_MAX, "a configuration").and_then(io::read_to_string) {
        Ok(text) => Ok((text, file)),
        Err(source) => Err(ConfigErrors::Unreadable { file, source }),
    }
}

fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "; write it, or name another with --config",
        io::ErrorKind::PermissionDenied => "; run as a user who may read it",
        io::ErrorKind::IsADirectory => "; name the file in it",
        io::ErrorKind::InvalidData => "; save it as UTF-8 text",
        _ => "",
    }
}

fn lines<T: fmt::Display>(things: &[T]) -> String {
    let lines: Vec<_> = things.iter().map(T::to_string).collect();
    lines.join("\n")
}
