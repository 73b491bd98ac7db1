//! The words, names and addresses of the configuration: from text to a type that cannot hold anything else.

use super::problem::{Family, Problem};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The most characters of a name.
const NAME_MAX: usize = 63;
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

/// A way to learn which backend owns an MPTCP connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the keys that the client echoes in its third ACK.
    Learn,
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forward {
    /// In an IP-in-IP tunnel.
    #[default]
    Ipip,
    /// Unchanged, to the backend's MAC address.
    L2,
}

/// What a backend does in its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
        }
    }
}

/// A type of which each value is one word of the configuration.
pub(super) trait Word: Sized + Copy + 'static {
    const WORDS: &'static [(&'static str, Self)];
    /// Words of the design that this build does not offer.
    const LATER: &'static [&'static str] = &[];
    /// What it offers instead.
    const OFFERED: &'static str = "";

    fn parse(text: &str) -> Result<Self, Problem> {
        if let Some((_, value)) = Self::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        if let Some(word) = Self::LATER.iter().find(|word| **word == text) {
            return Err(Problem::NotOffered { word, offered: Self::OFFERED });
        }
        let known: Vec<_> = Self::WORDS.iter().map(|(word, _)| *word).collect();
        Err(Problem::UnknownWord { word: text.to_owned(), known: known.join(" or ") })
    }
}

impl Word for XdpMode {
    const WORDS: &'static [(&'static str, Self)] = &[("native", Self::Native), ("generic", Self::Generic)];
}

impl Word for UnknownJoin {
    const WORDS: &'static [(&'static str, Self)] =
        &[("drop", Self::Drop), ("hash", Self::Hash), ("reset", Self::Reset)];
}

impl Word for Forward {
    const WORDS: &'static [(&'static str, Self)] = &[("ipip", Self::Ipip), ("l2", Self::L2)];
    const LATER: &'static [&'static str] = &["gue"];
    const OFFERED: &'static str = "ipip and l2";
}

impl Word for BackendState {
    const WORDS: &'static [(&'static str, Self)] = &[("up", Self::Up), ("drain", Self::Drain), ("down", Self::Down)];
}

impl Word for Way {
    const WORDS: &'static [(&'static str, Self)] = &[("learn", Self::Learn)];
    const LATER: &'static [&'static str] = &["report", "endpoint", "token"];
    const OFFERED: &'static str = "learn";
}

impl Word for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[("tcp", Self::Tcp)];
    const LATER: &'static [&'static str] = &["udp"];
    const OFFERED: &'static str = "tcp";
}

/// An address that one machine can have, or a VIP.
pub(super) fn host_address(text: &str) -> Result<IpAddr, Problem> {
    let address: IpAddr = text.parse().map_err(|_| Problem::Address(text.to_owned()))?;
    if let IpAddr::V6(v6) = address
        && v6.to_ipv4_mapped().is_some()
    {
        return Err(Problem::MappedAddress(address));
    }
    let kind = if address.is_unspecified() {
        "the unspecified address"
    } else if address.is_multicast() {
        "a multicast address"
    } else if address.is_loopback() {
        "a loopback address"
    } else if address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        "the broadcast address"
    } else {
        return Ok(address);
    };
    Err(Problem::NotAHost { address, kind })
}

pub(super) fn host_address_v4(text: &str) -> Result<Ipv4Addr, Problem> {
    match host_address(text)? {
        IpAddr::V4(v4) => Ok(v4),
        address @ IpAddr::V6(_) => {
            Err(Problem::Family { address, wanted: Family::V4, field: Family::V6.source_field() })
        }
    }
}

pub(super) fn host_address_v6(text: &str) -> Result<Ipv6Addr, Problem> {
    match host_address(text)? {
        IpAddr::V6(v6) => Ok(v6),
        address @ IpAddr::V4(_) => {
            Err(Problem::Family { address, wanted: Family::V6, field: Family::V4.source_field() })
        }
    }
}

pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Problem> {
    text.parse().map_err(|_| Problem::Listen(text.to_owned()))
}
