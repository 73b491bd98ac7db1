//! What a VIP is to clients: a prefix of addresses, a range of ports, a protocol.

use super::{Prefix, Problem, Protocol};
use std::{fmt, str::FromStr};

/// Where clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipAddress {
    /// One address, or all of a prefix. An address that is in several VIPs' prefixes is the longest one's alone: the rules
    /// of the shorter ones do not hold for it, whatever their ports.
    pub prefix: Prefix,
    /// The ports.
    pub ports: Ports,
    /// The protocol.
    pub protocol: Protocol,
}

/// `192.0.2.1:443/tcp`, `192.0.2.0/24:any/udp` or `[2001:db8::1]:8000-8010/tcp`.
impl fmt::Display for VipAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { prefix, ports, protocol } = self;
        if prefix.address().is_ipv4() {
            write!(f, "{prefix}:{ports}/{protocol}")
        } else {
            write!(f, "[{prefix}]:{ports}/{protocol}")
        }
    }
}

/// Ports from a first to a last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// All of them, with 0.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// The first.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The last.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether some port is in both.
    pub fn overlap(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl From<u16> for Ports {
    fn from(port: u16) -> Self {
        Self { first: port, last: port }
    }
}

impl FromStr for Ports {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        if text == "any" {
            return Ok(Self::ANY);
        }
        let problem = || Problem::Ports(text.to_owned());
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let port = |text: &str| text.parse().ok().filter(|&port| port > 0 && is_number(text)).ok_or_else(problem);
        let (first, last) = text.split_once('-').ok_or_else(problem)?;
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(Problem::PortsReversed { first, last });
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last } = self;
        if *self == Self::ANY {
            f.write_str("any")
        } else if first == last {
            first.fmt(f)
        } else {
            write!(f, "{first}-{last}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_tells_what_is_served() {
        for (prefix, ports, shown) in [
            ("192.0.2.1", Ports::from(443), "192.0.2.1:443/udp"),
            ("192.0.2.0/24", Ports::ANY, "192.0.2.0/24:any/udp"),
            ("2001:db8::1", "8000-8010".parse().unwrap(), "[2001:db8::1]:8000-8010/udp"),
            ("2001:db8::/64", "1-65535".parse().unwrap(), "[2001:db8::/64]:1-65535/udp"),
        ] {
            let address = VipAddress { prefix: prefix.parse().unwrap(), ports, protocol: Protocol::Udp };
            assert_eq!(address.to_string(), shown);
        }
    }

    #[test]
    fn ranges_overlap_at_their_ends() {
        let ports = |text: &str| text.parse::<Ports>().unwrap();
        assert!(ports("80-90").overlap(ports("90-99")) && ports("80-90").overlap(80.into()));
        assert!(Ports::ANY.overlap(1.into()) && !ports("80-90").overlap(ports("91-99")));
    }
}
