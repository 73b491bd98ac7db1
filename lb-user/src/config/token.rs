//! The `[pool.token]` table: how a pool's tokens name its backends.

use super::TokenSecret;
use lb_common::stateless::{Codec, IdBits};

/// How the tokens of a pool name its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenWay {
    /// What they are made and read under.
    pub secret: TokenSecret,
    /// How many bits the id of a backend has.
    pub bits: IdBits,
}

impl TokenWay {
    /// What reads them.
    pub fn codec(&self) -> Codec {
        self.secret.codec(self.bits)
    }
}
