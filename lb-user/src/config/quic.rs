//! The names of QUIC servers in the connection ids that they make (draft-ietf-quic-load-balancers, plaintext form).

use super::Problem;
use lb_common::tables::QuicKey;
use std::{fmt, str::FromStr};

/// A server id: 1 to 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QuicServerId(Vec<u8>);

impl QuicServerId {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// How many they are.
    #[expect(clippy::cast_possible_truncation, reason = "15 at most")]
    pub const fn len(&self) -> u8 {
        self.0.len() as u8
    }

    /// Never.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

impl FromStr for QuicServerId {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            &[high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes
            .filter(|bytes| (1..=QuicKey::ID_MAX).contains(&bytes.len()))
            .map(Self)
            .ok_or_else(|| Problem::QuicServerId(text.to_owned()))
    }
}

impl fmt::Display for QuicServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_whole_bytes() {
        let longest = "0123456789abcdef0123456789abcd";
        for good in ["00", "0a1b", longest] {
            assert_eq!(good.parse::<QuicServerId>().unwrap().to_string(), good);
        }
        assert_eq!("0A1b".parse::<QuicServerId>().unwrap().bytes(), [0x0a, 0x1b]);
        for bad in ["", "0", "0a1", "0x1b", "zz", "é1", "+1", &format!("{longest}00")] {
            assert!(bad.parse::<QuicServerId>().is_err(), "{bad}");
        }
    }
}
