//! From a key to the token that names the connection at the key's owner.

use crate::{
    hash::{sha1, sha256},
    ids::Token,
};

/// The version of MPTCP that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 6824.
    V0,
    /// RFC 8684.
    V1,
}

/// The token of a key, given as its eight wire bytes: the first word of SHA-256 (RFC 8684, 3.2) or SHA-1 (RFC 6824, 3.2).
#[inline(always)]
pub fn derive(version: Version, key: [u8; 8]) -> Token {
    let word = match version {
        Version::V0 => sha1::first_word(key),
        Version::V1 => sha256::first_word(key),
    };
    Token::from_wire(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::sha1::Digest as _;

    #[test]
    fn vectors() {
        for (key, v1, v0) in [
            (0, 0xaf55_70f5, 0x05fe_4057),
            (0x0102_0304_0506_0708, 0x6684_0dda, 0xdd57_83bc),
            (0xac47_5c49_cfd7_f249, 0x3c61_4612, 0x8363_dc18),
        ] {
            let key = u64::to_be_bytes(key);
            assert_eq!(derive(Version::V1, key).number(), v1);
            assert_eq!(derive(Version::V0, key).number(), v0);
        }
        let key = 0x967d_2770_b696_0552_u64.to_be_bytes();
        assert_eq!(derive(Version::V0, key).number(), 0xe47f_0142);
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_digest_crates(key: [u8; 8]) {
            proptest::prop_assert_eq!(&derive(Version::V1, key).to_wire()[..], &sha2::Sha256::digest(key)[..4]);
            proptest::prop_assert_eq!(&derive(Version::V0, key).to_wire()[..], &::sha1::Sha1::digest(key)[..4]);
        }
    }
}
