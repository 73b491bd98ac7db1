//! The operator's orders to single backends: to drain, and to serve again. They change nothing in the configuration file.
//!
//! An order to drain holds until it is taken back, or until a reload gives the backend another `state` than it had, or
//! leaves it out: what was written last wins. It never makes a backend do more than its configuration says.

use super::{Service, State};
use crate::{admin::status::takes_nobody, clock, config::BackendState};
use lb_common::ids::BackendId;
use tracing::warn;

/// Why an order is not followed.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// No backend has this name.
    #[error("no backend is called {name:?}; there are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Some that there are.
        known: String,
    },
    /// Backends of several pools have it.
    #[error("several pools have a backend {name:?}: name one as {known}")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// Which could be meant.
        known: String,
    },
    /// The configuration says otherwise.
    #[error(
        "backend {name:?} is in state {state:?} by the configuration, which no command overrules: change it there and reload"
    )]
    Configured {
        /// The backend.
        name: String,
        /// Its state.
        state: &'static str,
    },
    /// It could not be followed.
    #[error(transparent)]
    Service(#[from] super::ServiceError),
}

impl Service {
    /// Has a backend take no new connection, and keep those that it has for its pool's drain timeout. One that drains
    /// already goes on as it does.
    ///
    /// # Errors
    /// There is no such backend, or its configuration has it down.
    pub fn drain_backend(&self, name: &str) -> Result<BackendId, OrderError> {
        self.order(name, true)
    }

    /// Takes an order to drain back.
    ///
    /// # Errors
    /// There is no such backend, or its configuration has it drain or down.
    pub fn enable_backend(&self, name: &str) -> Result<BackendId, OrderError> {
        self.order(name, false)
    }

    /// The backend of a name, or of `POOL/NAME`.
    ///
    /// # Errors
    /// There is none, or several pools have one.
    pub fn backend_named(&self, name: &str) -> Result<BackendId, OrderError> {
        self.state().find_backend(name)
    }

    fn order(&self, name: &str, drain: bool) -> Result<BackendId, OrderError> {
        let mut guard = self.state();
        let state = &mut *guard;
        let id = state.find_backend(name)?;
        let Some(known) = state.backends.get_mut(&id) else { return Ok(id) };
        match (known.row.state, drain) {
            (BackendState::Up, _) => known.drain_ordered = drain,
            // It drains as it is told to.
            (BackendState::Drain, true) => {}
            (configured, _) => {
                return Err(OrderError::Configured { name: name.to_owned(), state: configured.as_str() });
            }
        }
        let (pool, name) = (known.row.pool, known.row.name.pool.clone());
        state.reconcile(clock::now())?;
        if state.rings.get(&pool).is_some_and(|ring| !ring.has_members()) {
            warn!(pool = name, "{}", takes_nobody(&name));
        }
        self.health_changed.notify_one();
        Ok(id)
    }
}

impl State {
    /// The configured backend of a name, or of `POOL/NAME` where pools have backends of one name.
    pub(super) fn find_backend(&self, name: &str) -> Result<BackendId, OrderError> {
        const SHOWN: usize = 8;
        let full = |row: &&crate::layout::BackendRow| format!("{}/{}", row.name.pool, row.name.name);
        let found: Vec<_> =
            self.layout.backends.iter().filter(|row| row.name.name == name || full(row) == name).collect();
        match found[..] {
            [row] => Ok(row.id),
            [] => {
                let mut known: Vec<_> =
                    self.layout.backends.iter().take(SHOWN).map(|row| row.name.name.clone()).collect();
                if self.layout.backends.len() > SHOWN {
                    known.push("...".to_owned());
                }
                Err(OrderError::Unknown { name: name.to_owned(), known: known.join(", ") })
            }
            _ => {
                let known: Vec<_> = found.iter().map(full).collect();
                Err(OrderError::Ambiguous { name: name.to_owned(), known: known.join(" or ") })
            }
        }
    }
}
