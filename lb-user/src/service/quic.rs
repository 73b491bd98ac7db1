//! The names of backends in QUIC connection ids, as the data path has them.
//!
//! A backend that leaves its pool keeps its names as long as it serves, for connections may be its; but a configured
//! backend of the same name comes first. A name is never missing while it means a backend before and after a change.

use super::{Known, State};
use aya::maps::MapError;
use hashbrown::HashMap;
use lb_common::{ids::BackendId, limits::QUIC_SERVERS_MAX, tables::QuicKey};

impl State {
    /// Writes every name that holds.
    pub(super) fn write_quic_servers(&mut self) -> Result<(), MapError> {
        for (key, id) in self.quic_servers() {
            if self.balancer.quic_servers.read(key)? != Some(id) {
                self.balancer.quic_servers.write(key, id)?;
            }
        }
        Ok(())
    }

    /// Removes the names that do not hold any more.
    pub(super) fn remove_quic_servers(&mut self) -> Result<(), MapError> {
        let holding = self.quic_servers();
        let written = self.balancer.quic_servers.entries().collect::<Result<Vec<_>, _>>()?;
        for (key, _) in written {
            if !holding.contains_key(&key) {
                self.balancer.quic_servers.remove(key)?;
            }
        }
        Ok(())
    }

    /// The names that hold. Those of two configurations fit into the table together.
    fn quic_servers(&self) -> HashMap<QuicKey, BackendId> {
        // The number of a pool that is gone may be another's.
        let has_pool = |known: &Known| {
            let row = &known.row;
            self.layout.pools.iter().any(|pool| pool.id == row.pool && pool.name == row.name.pool)
        };
        let serving = |is_configured: bool| {
            let backends = self.backends.iter().filter(move |&(&id, known)| {
                known.duty.serves() && self.is_configured(id) == is_configured && has_pool(known)
            });
            backends.flat_map(|(&id, known)| known.row.quic_servers.iter().map(move |&key| (key, id)))
        };
        let mut names: HashMap<_, _> = serving(true).collect();
        for (key, id) in serving(false) {
            if names.len() < QUIC_SERVERS_MAX as usize / 2 {
                names.entry(key).or_insert(id);
            }
        }
        names
    }
}
