//! An address or a prefix of addresses, as `192.0.2.1` or `192.0.2.0/24`.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// The addresses that begin with the same bits; the others of its own address are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// A prefix whose other bits are zero.
    pub(super) const fn v4(address: Ipv4Addr, len: u8) -> Self {
        Self { address: IpAddr::V4(address), len }
    }

    /// The same of IPv6.
    pub(super) const fn v6(address: Ipv6Addr, len: u8) -> Self {
        Self { address: IpAddr::V6(address), len }
    }

    /// Its first address.
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether it is a single address.
    pub const fn is_host(&self) -> bool {
        self.host_bits() == 0
    }

    /// The bits that its addresses have in common.
    pub const fn bits(&self) -> u8 {
        self.len
    }

    /// The bits in which its addresses differ.
    pub const fn host_bits(&self) -> u8 {
        match self.address {
            IpAddr::V4(_) => 32 - self.len,
            IpAddr::V6(_) => 128 - self.len,
        }
    }

    /// Its length where IPv4 is mapped into IPv6.
    pub fn len_v6(&self) -> u32 {
        128 - u32::from(self.host_bits())
    }

    /// Whether an address is one of it.
    pub fn contains(&self, address: IpAddr) -> bool {
        Self::masked(address, self.len) == self.address && address.is_ipv4() == self.address.is_ipv4()
    }

    /// Whether some address is in both.
    pub fn overlaps(&self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    fn masked(address: IpAddr, len: u8) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len.min(128))).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        }
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self { address, len: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.len) }
    }
}

/// Why a text is no prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not of the form ADDRESS or ADDRESS/LENGTH.
    #[error("write it like 192.0.2.1, 192.0.2.0/24 or 2001:db8::/64")]
    Form,
    /// Longer than an address.
    #[error("an IPv4 prefix has 0 to 32 bits, an IPv6 prefix 0 to 128")]
    Length,
    /// Bits behind the prefix are set.
    #[error("the bits behind the prefix must be zero: write {0}")]
    HostBits(Prefix),
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let Some((address, len)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| PrefixError::Form);
        };
        let address: IpAddr = address.parse().map_err(|_| PrefixError::Form)?;
        let is_number = len.bytes().all(|byte| byte.is_ascii_digit());
        let len = len.parse().ok().filter(|_: &u8| is_number).ok_or(PrefixError::Form)?;
        if len > Self::from(address).len {
            return Err(PrefixError::Length);
        }
        let prefix = Self { address: Self::masked(address, len), len };
        if prefix.address == address { Ok(prefix) } else { Err(PrefixError::HostBits(prefix)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Prefix, PrefixError> {
        text.parse()
    }

    #[test]
    fn a_prefix_survives_the_way_through_text() {
        for text in ["192.0.2.1", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1"] {
            assert_eq!(parse(text).map(|prefix| prefix.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(parse("192.0.2.7/32"), parse("192.0.2.7"));
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        assert_eq!(parse("192.0.2.1/24"), Err(PrefixError::HostBits(parse("192.0.2.0/24").expect("a prefix"))));
        assert_eq!(parse("192.0.2.0/33"), Err(PrefixError::Length));
        for text in ["", "/", "192.0.2/24", "192.0.2.0/", "192.0.2.0/x", "192.0.2.0/+24", "192.0.2.0/24/1"] {
            assert_eq!(parse(text), Err(PrefixError::Form), "{text}");
        }
    }

    #[test]
    fn contains_is_by_bits_and_family() {
        let prefix = parse("192.0.2.128/25").expect("a prefix");
        assert!(prefix.contains("192.0.2.200".parse().expect("an address")));
        assert!(!prefix.contains("192.0.2.1".parse().expect("an address")));
        let all_v6 = parse("::/0").expect("a prefix");
        assert!(!all_v6.contains("192.0.2.1".parse().expect("an address")));
        assert_eq!((prefix.len_v6(), prefix.host_bits()), (121, 7));
    }
}
