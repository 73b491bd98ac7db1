//! Whose a stateless token is, by another implementation of the hash: the secret is read as it stands in its file.

use std::{collections::BTreeMap, fs, hash::Hasher as _, path::Path};

use serde::Deserialize;
use siphasher::sip::SipHasher13;

use super::subflows::Token;
use crate::LabError;

/// The keys of a secret, by their epochs.
#[derive(Debug)]
pub struct TokenOracle {
    keys: BTreeMap<u32, [u8; 16]>,
    id_bits: u32,
}

#[derive(Deserialize)]
struct Secret {
    epoch: Vec<Epoch>,
}

#[derive(Deserialize)]
struct Epoch {
    number: u32,
    key: String,
}

impl TokenOracle {
    /// Reads the secret of backends with ids of so many bits.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or understood.
    pub fn read(secret: &Path, id_bits: u32) -> Result<Self, LabError> {
        let text = fs::read_to_string(secret).map_err(LabError::file("read", secret))?;
        let malformed = || LabError::Output { program: "weir secret", line: "not the epochs of a secret".to_owned() };
        let secret: Secret = toml::from_str(&text).map_err(|_| malformed())?;
        let key = |epoch: Epoch| {
            let key = u128::from_str_radix(&epoch.key, 16).map_err(|_| malformed())?;
            Ok((epoch.number, key.to_be_bytes()))
        };
        Ok(Self { keys: secret.epoch.into_iter().map(key).collect::<Result<_, LabError>>()?, id_bits })
    }

    /// The id in a token; nothing where its epoch has no key.
    pub fn id(&self, token: Token) -> Option<u64> {
        let mut hasher = SipHasher13::new_with_key(self.keys.get(&Self::epoch(token))?);
        hasher.write(&token.number().to_be_bytes());
        Some(hasher.finish() & ((1 << self.id_bits) - 1))
    }

    /// The epoch of a token.
    pub const fn epoch(token: Token) -> u32 {
        token.number() >> 30
    }
}
