//! Everything that can be wrong with a configuration, each in its own words: what is wrong, then what to do.
//!
//! The messages never contain a secret: a key file is named, its content never is.

use super::{KeyError, Name, Prefix, PrefixError, QuicServerId, SecretError, TokenSecretError, TrustError};
use std::{net::IpAddr, path::PathBuf};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum Problem {
    /// Not TOML, a field that does not exist, a field that is missing, or a value of the wrong type.
    #[error("{0}")]
    Syntax(String),

    #[error("{count} is out of range; choose {min} to {max}")]
    OutOfRange { count: i64, min: i64, max: i64 },
    #[error("`{word}` is unknown; choose {known}")]
    UnknownWord { word: String, known: String },

    #[error("{0:?} is not a name; use 1 to 63 of the characters A-Z a-z 0-9 . _ -")]
    Name(String),
    #[error("{0:?} is not an interface name; use 1 to 15 characters without space, `/` or `:` (`ip link` lists them)")]
    InterfaceName(String),
    #[error("{name:?} is already the name of another {kind}, at line {line}; give each its own")]
    NameTaken { name: String, kind: &'static str, line: usize },

    #[error("`{0}` is not an IP address; write it like 192.0.2.1 or 2001:db8::1")]
    Address(String),
    #[error("{address} is {kind}; give the address of one machine")]
    NotAHost { address: IpAddr, kind: &'static str },
    #[error("{0} is an IPv4-mapped IPv6 address; write the IPv4 address")]
    MappedAddress(IpAddr),
    #[error("{address} is not an {wanted} address; put it in {field}")]
    Family { address: Prefix, wanted: Family, field: &'static str },
    #[error("`{text}` is not a prefix of addresses: {error}")]
    Prefix { text: String, error: PrefixError },
    #[error("{prefix} has {kind} in it; give a prefix of addresses that machines can have")]
    NotHosts { prefix: Prefix, kind: &'static str },
    #[error("{0} is too wide: a flow fills in 32 bits at most; give a prefix of at least /96, or one address")]
    SourceTooWide(Prefix),
    #[error("the list is empty; name an interface (`ip link` lists them)")]
    NoInterface,
    #[error("`{0}` is named twice; name each interface once")]
    InterfaceTwice(String),
    #[error("`{0}` is not an address and port; write it like 127.0.0.1:9107 or [::1]:9107")]
    Listen(String),

    #[error("{} is not an absolute path; name a directory below /sys/fs/bpf", .0.display())]
    Pins(PathBuf),

    #[error("the list is empty; name the balancers' addresses, or the prefixes that their tunnels come from")]
    NoBalancer,
    #[error("mss_clamp = false leaves the MSS as it is; remove one of the two")]
    NoClamp,
    #[error("there is no [[vip]]; name those of the balancers' configuration that this backend serves")]
    NoAgentVip,
    #[error(
        "{expected} connections are more than the {most} for which so many backends leave tokens; lower one of the two"
    )]
    FewTokens { expected: u32, most: u32 },
    #[error("{keys} keys are more than the {most} for which so many backends leave tokens; lower one of the two")]
    FewTokensForKeys { keys: u32, most: u32 },
    #[error("the VIPs here are of several pools; name the one whose tokens are minted as `pool`")]
    WhichPool,
    #[error("no [[vip]] here is of the pool {0}; name the pool of one")]
    NoVipOfPool(Name),
    #[error(
        "keys are minted for VIPs that are one address, and each [[vip]] of the pool {0} is a prefix; write one for each address"
    )]
    NothingMinted(Name),
    #[error(transparent)]
    TokenSecret(#[from] TokenSecretError),

    #[error(transparent)]
    ClusterKey(#[from] KeyError),

    #[error("the list is empty; name a NATS server, such as \"tls://10.0.0.9:4222\"")]
    NoBusServer,
    #[error(
        "this is not a NATS server; write it like nats://10.0.0.9:4222 or tls://nats.example:4222, without a password"
    )]
    BusServer,
    #[error("`{0}` has a dot in it, which parts the subjects of the bus; leave it out")]
    BusCluster(String),
    #[error(transparent)]
    Credentials(#[from] SecretError),

    #[error("the list is empty; name the ways, such as [\"learn\"], or say join = \"off\"")]
    NoWays,
    #[error("`off` cannot stand beside other ways; say join = \"off\"")]
    OffInList,
    #[error("`{0}` is named twice; name each way once")]
    WayTwice(String),

    #[error("the pool has no backend; add a [[pool.backend]] below it")]
    NoBackend,
    #[error("the weight of every backend is 0, so no new flow could go anywhere; give one a weight")]
    NoWeight,
    #[error(
        "{address} is already backend {other:?} of this pool, at line {line}; name each address once and use weight"
    )]
    BackendTwice { address: IpAddr, other: String, line: usize },
    #[error("{address} is in {prefix}, which the VIP at line {line} serves; give an address outside of it")]
    BackendInVip { address: IpAddr, prefix: Prefix, line: usize },
    #[error("{address} is also the address of the VIP at line {line}; give the machine's own address")]
    BackendIsVip { address: IpAddr, line: usize },
    #[error("`{0}` is not a server id; write 1 to 15 bytes in hexadecimal digits, such as \"0a1b\"")]
    QuicServerId(String),
    #[error("it has no quic_server_id, but others of this pool have; give one to all of them or to none")]
    QuicServerIdMissing,
    #[error("{id} has {len} bytes, but that at line {line} has {other_len}; give all of a pool the same length")]
    QuicServerIdLength { id: QuicServerId, len: u8, other_len: u8, line: usize },
    #[error("{id} is already the server id of backend {other:?}, at line {line}; give each its own")]
    QuicServerIdTwice { id: QuicServerId, other: String, line: usize },
    #[error("the pool's ways name \"endpoint\", but this backend has no join_port and no join_address; give it one")]
    EndpointMissing,
    #[error("it has a join_port or join_address, but the pool's ways do not name \"endpoint\"; add it to `join`")]
    EndpointUnused,
    #[error(
        "no client can be told where to join it: that takes a TCP VIP of the pool, for a join_port one that is a single IPv4 address; add that VIP, or a join_address"
    )]
    EndpointUntold,
    #[error(
        "its kernel would have to tell clients of {told} endpoints, and tells of {max}; use a join_address instead of join_port"
    )]
    TooManyEndpoints { told: usize, max: usize },
    #[error("{endpoint} is already taken, at line {line}; give the backend another port or address for joins")]
    EndpointTaken { endpoint: String, line: usize },
    #[error("{address} is in {prefix}, which the VIP at line {line} serves; give the backend an address of its own")]
    EndpointIsVip { address: IpAddr, prefix: Prefix, line: usize },
    #[error("the pool's ways name \"token\", but it has no secret; add [pool.token] below it")]
    NoTokenTable,
    #[error("the pool's ways do not name \"token\", so nobody reads it; add that to `join`, or remove this table")]
    TokenUnused,
    #[error("the pool's ways name \"token\", but this backend has no token_id; give it one, and its agent the same")]
    TokenIdMissing,
    #[error("the pool's ways do not name \"token\"; add that to `join`, or remove this")]
    TokenIdUnused,
    #[error("{id} is already the token_id of backend {other:?}, at line {line}; give each its own")]
    TokenIdTwice { id: u16, other: String, line: usize },
    #[error("the list is empty; name the rotation bits that the servers use, such as [0]")]
    NoRotation,
    #[error("{0} is named twice; name each once")]
    RotationTwice(i64),
    #[error(
        "{0:#x} is no mark for health checks: its low 13 bits name a backend and must be zero, the rest must not; such as 0x57450000"
    )]
    ProbeMark(i64),
    #[error("no VIP of this pool is one single address; name the address to check, such as address = \"192.0.2.1\"")]
    NoCheckAddress,
    #[error("{0} has no VIP of this pool with one single TCP port; name the port to check, such as port = 443")]
    NoCheckPort(IpAddr),
    #[error("{0} is in no VIP of this pool; name an address that clients of the pool connect to")]
    CheckElsewhere(IpAddr),
    #[error("`{field}` is for {kinds} checks; remove it or choose another check")]
    NotOfCheck { field: &'static str, kinds: &'static str },
    #[error("{0:?} is no path; begin it with `/` and write it without spaces, such as \"/health\"")]
    CheckPath(String),
    #[error("{0:?} is no host name; write it like www.example.com")]
    CheckHost(String),
    #[error("the list is empty; name the HTTP statuses that are good, such as [200]")]
    NoStatus,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("{address} needs an {family} tunnel, which has no source address; set {field} in [balancer]")]
    NoSource { address: IpAddr, family: Family, field: &'static str },

    #[error("{vip} is already the VIP at line {line}; name each address, protocol and port once")]
    VipTwice { vip: String, line: usize },
    #[error("{vip} has ports of {other}, the VIP at line {line}; give each port of an address to one VIP")]
    VipsOverlap { vip: String, other: String, line: usize },
    #[error("`{0}` names no ports; write 443, \"8000-8010\" or \"any\", with ports from 1 to 65535")]
    Ports(String),
    #[error("{first} is above {last}; write \"{last}-{first}\"")]
    PortsReversed { first: u16, last: u16 },
    #[error("no pool is called {name:?}; {known}")]
    UnknownPool { name: String, known: String },

    #[error("there are {count} {things}, and {max} are the most that one balancer serves; split them over balancers")]
    TooMany { count: usize, things: &'static str, max: usize },
}

/// What is allowed, and hardly meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum Oddity {
    #[error("no VIP uses this pool")]
    UnusedPool,
    #[error("no backend with a weight is up, so every new connection is dropped")]
    NoneUp,
    #[error("there is no [[vip]], so every packet passes to the host")]
    NoVip,
    #[error(
        "balancer.cluster_key_file is missing, so each balancer has a key of its own, and what others tell of flows and slots \
         says nothing to it; give all of them one key"
    )]
    BusWithoutKey,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The `[balancer]` field with the source address of this family's tunnels.
    pub(super) const fn source_field(self) -> &'static str {
        match self {
            Self::V4 => "source_v4",
            Self::V6 => "source_v6",
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
