//! The words, names and addresses of the configuration: from text to a type that cannot hold anything else.

use super::prefix::Prefix;
use super::problem::{Family, Problem};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The most characters of a name.
const NAME_MAX: usize = 63;
/// The most bits of a tunnel's source address that a flow's hash fills in.
const SPREAD_BITS_MAX: u8 = 32;
/// The most bytes of an interface name: `IFNAMSIZ` without its NUL.
const INTERFACE_NAME_MAX: usize = 15;

/// The name of a pool, backend or VIP: 1 to 63 characters of `[A-Za-z0-9._-]`. It is a metric label.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(String);

impl Name {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(allowed) {
            return Err(Problem::Name(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a network interface, as the kernel would accept it (`dev_valid_name`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InterfaceName(String);

impl InterfaceName {
    /// The name's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let refused = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        let length_fits = (1..=INTERFACE_NAME_MAX).contains(&text.len());
        if !length_fits || text == "." || text == ".." || text.contains(refused) {
            return Err(Problem::InterfaceName(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How the XDP program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum XdpMode {
    /// In the driver.
    #[default]
    Native,
    /// In the stack, for drivers without XDP: slower.
    Generic,
}

/// What becomes of the data path when the controller is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnStop {
    /// It goes on steering by the tables as they are; the next controller takes over.
    #[default]
    Keep,
    /// It goes, with everything that Weir has put into the kernel.
    Detach,
}

/// A way to learn which backend owns an MPTCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the keys that the client echoes in its third ACK.
    Learn,
    /// From the agents on the backends, over the bus.
    Report,
    /// Each backend has a port or an address of its own, to which its clients join.
    Endpoint,
    /// The token itself names the backend, whose agent has chosen it.
    Token,
}

/// What happens to a join whose token is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownJoin {
    /// It is dropped and counted; the client sends it again.
    #[default]
    Drop,
    /// It goes where the ring says.
    Hash,
    /// It is answered with a reset.
    Reset,
}

/// How packets reach a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forward {
    /// In an IP-in-IP tunnel.
    #[default]
    Ipip,
    /// Unchanged, to the backend's MAC address.
    L2,
    /// In a UDP tunnel (generic UDP encapsulation).
    Gue,
}

impl Forward {
    /// The word for it in a configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipip => "ipip",
            Self::L2 => "l2",
            Self::Gue => "gue",
        }
    }
}

/// What decides which backend a new flow gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Affinity {
    /// The flow: both addresses, both ports and the protocol.
    #[default]
    Flow,
    /// The client's address alone: all its flows go to one backend.
    Source,
}

/// What happens to TCP segments in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TcpFragments {
    /// They are dropped: TCP of today needs none.
    #[default]
    Drop,
    /// They are forwarded, each to its segment's backend.
    Forward,
}

/// What a backend does in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It takes connections.
    #[default]
    Up,
    /// It takes no new connection, and keeps those that it has for the pool's drain timeout.
    Drain,
    /// It is dead, with its connections.
    Down,
}

impl BackendState {
    /// The word for it in the configuration, in metrics and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Drain => "drain",
            Self::Down => "down",
        }
    }
}

/// The transport protocol of a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
        }
    }
}

/// What a health check asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckKind {
    Tcp,
    Http,
    Https,
    Mptcp,
}

impl Word for CheckKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("tcp", Self::Tcp), ("http", Self::Http), ("https", Self::Https), ("mptcp", Self::Mptcp)];
}

impl FromStr for Protocol {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        <Self as Word>::parse(text)
    }
}

/// A type of which each value is one word of the configuration.
pub(super) trait Word: Sized + Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn parse(text: &str) -> Result<Self, Problem> {
        if let Some((_, value)) = Self::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let known: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        Err(Problem::UnknownWord { word: text.to_owned(), known: known.join(" or ") })
    }
}

impl Word for OnStop {
    const WORDS: &'static [(&'static str, Self)] = &[("keep", Self::Keep), ("detach", Self::Detach)];
}

impl Word for XdpMode {
    const WORDS: &'static [(&'static str, Self)] = &[("native", Self::Native), ("generic", Self::Generic)];
}

impl Word for UnknownJoin {
    const WORDS: &'static [(&'static str, Self)] =
        &[("drop", Self::Drop), ("hash", Self::Hash), ("reset", Self::Reset)];
}

impl Word for Forward {
    const WORDS: &'static [(&'static str, Self)] = &[("ipip", Self::Ipip), ("gue", Self::Gue), ("l2", Self::L2)];
}

impl Word for Affinity {
    const WORDS: &'static [(&'static str, Self)] = &[("flow", Self::Flow), ("source", Self::Source)];
}

impl Word for TcpFragments {
    const WORDS: &'static [(&'static str, Self)] = &[("drop", Self::Drop), ("forward", Self::Forward)];
}

impl Word for BackendState {
    const WORDS: &'static [(&'static str, Self)] = &[("up", Self::Up), ("drain", Self::Drain), ("down", Self::Down)];
}

impl Word for Way {
    const WORDS: &'static [(&'static str, Self)] =
        &[("learn", Self::Learn), ("report", Self::Report), ("endpoint", Self::Endpoint), ("token", Self::Token)];
}

impl Word for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp), ("udp", Self::Udp)];
}

/// The name of the user that this process runs as, or his number.
pub(super) fn this_user() -> String {
    let user = nix::unistd::geteuid();
    nix::unistd::User::from_uid(user).ok().flatten().map_or_else(|| user.to_string(), |user| user.name)
}

/// An address that one machine can have.
pub(super) fn host_address(text: &str) -> Result<IpAddr, Problem> {
    let address = text.parse().map_err(|_| Problem::Address(text.to_owned()))?;
    match unfit(Prefix::from(address)) {
        None => Ok(address),
        Some(unfit) if unfit == MAPPED => Err(Problem::MappedAddress(address)),
        Some((kind, _)) => Err(Problem::NotAHost { address, kind }),
    }
}

/// An address that a machine can have, or a prefix of such addresses.
pub(super) fn host_prefix(text: &str) -> Result<Prefix, Problem> {
    if !text.contains('/') {
        return host_address(text).map(Prefix::from);
    }
    let prefix: Prefix = text.parse().map_err(|error| Problem::Prefix { text: text.to_owned(), error })?;
    match unfit(prefix) {
        None => Ok(prefix),
        Some((kind, _)) => Err(Problem::NotHosts { prefix, kind }),
    }
}

/// A source of tunnels of one family: an address, or a prefix over which they are spread.
pub(super) fn source(text: &str, wanted: Family) -> Result<Prefix, Problem> {
    let prefix = host_prefix(text)?;
    let family = Family::of(prefix.address());
    if family != wanted {
        return Err(Problem::Family { address: prefix, wanted, field: family.source_field() });
    }
    if prefix.host_bits() > SPREAD_BITS_MAX {
        return Err(Problem::SourceTooWide(prefix));
    }
    Ok(prefix)
}

type Unfit = (&'static str, Prefix);

const MAPPED: Unfit = ("an IPv4-mapped IPv6 address", Prefix::v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96));
/// Addresses that no machine has.
const UNFIT: [Unfit; 8] = [
    MAPPED,
    ("the unspecified address", Prefix::v4(Ipv4Addr::UNSPECIFIED, 32)),
    ("the unspecified address", Prefix::v6(Ipv6Addr::UNSPECIFIED, 128)),
    ("a multicast address", Prefix::v4(Ipv4Addr::new(224, 0, 0, 0), 4)),
    ("a multicast address", Prefix::v6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
    ("a loopback address", Prefix::v4(Ipv4Addr::new(127, 0, 0, 0), 8)),
    ("a loopback address", Prefix::v6(Ipv6Addr::LOCALHOST, 128)),
    ("the broadcast address", Prefix::v4(Ipv4Addr::BROADCAST, 32)),
];

fn unfit(prefix: Prefix) -> Option<Unfit> {
    UNFIT.into_iter().find(|(_, unfit)| unfit.overlaps(prefix))
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Problem> {
    text.parse().map_err(|_| Problem::Listen(text.to_owned()))
}
