//! Who has which id in the stateless tokens of a pool, as the data path holds it: in cache lines of neighbours.

use super::ArrayTable;
use aya::maps::MapError;
use lb_common::{
    ids::PoolId,
    stateless::{Bearer, Bearers, TokenId, bearer_chunks, bearer_place},
};
use std::collections::BTreeMap;

/// The bearers of all pools' ids.
pub struct BearerTable(ArrayTable<Bearers>);

impl BearerTable {
    pub(super) const fn new(chunks: ArrayTable<Bearers>) -> Self {
        Self(chunks)
    }

    /// Who has an id.
    ///
    /// # Errors
    /// The kernel refuses the call; likewise below.
    pub fn read(&self, pool: PoolId, id: TokenId) -> Result<Bearer, MapError> {
        let (chunk, place) = bearer_place(pool, id);
        Ok(self.0.read(chunk)?[place])
    }

    /// Gives the ids of a pool to these bearers, and all others to nobody. What is as it should be is not written.
    ///
    /// # Errors
    /// As above.
    pub fn write_pool(&mut self, pool: PoolId, bearers: &BTreeMap<TokenId, Bearer>) -> Result<(), MapError> {
        let mut chunks: BTreeMap<u32, Bearers> = bearer_chunks(pool).map(|chunk| (chunk, Bearers::default())).collect();
        for (&id, &bearer) in bearers {
            let (chunk, place) = bearer_place(pool, id);
            chunks.entry(chunk).or_default()[place] = bearer;
        }
        for (chunk, bearers) in chunks {
            if self.0.read(chunk)? != bearers {
                self.0.write(chunk, bearers)?;
            }
        }
        Ok(())
    }

    /// Gives an id to a bearer. Its neighbours are written too, as they are.
    ///
    /// # Errors
    /// As above.
    pub fn write(&mut self, pool: PoolId, id: TokenId, bearer: Bearer) -> Result<(), MapError> {
        let (chunk, place) = bearer_place(pool, id);
        let mut bearers = self.0.read(chunk)?;
        if bearers[place] == bearer {
            return Ok(());
        }
        bearers[place] = bearer;
        self.0.write(chunk, bearers)
    }
}
