//! The ways to backends. One that does not answer is waited for for seconds, so the loop that keeps the tables true only looks
//! whether somebody has found them.

use crate::{
    config::Forward,
    layout::BackendRow,
    resolve::{NextHop, Reach, ResolveError, Resolver, Target},
    service::{Service, unreached},
};
use anyhow::Result;
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, join_all},
};
use std::future::pending;
use tracing::{info, warn};

/// What was found for each backend.
pub(super) type Found = Vec<(BackendRow, Result<NextHop, ResolveError>)>;

/// A look for the ways to all backends, again and again, one at a time.
pub(super) struct Look<'r> {
    resolver: &'r Resolver,
    under_way: Option<BoxFuture<'r, Found>>,
    /// What the one under way finds may be old by then.
    is_due_again: bool,
}

impl<'r> Look<'r> {
    pub(super) const fn new(resolver: &'r Resolver) -> Self {
        Self { resolver, under_way: None, is_due_again: false }
    }

    /// Begins, or notes that it is to be begun again.
    pub(super) fn begin(&mut self, service: &Service) {
        self.is_due_again = self.under_way.is_some();
        if !self.is_due_again {
            self.under_way = Some(find(self.resolver, service.backends()).boxed());
        }
    }

    /// Forgets the look that is under way: there will be other backends.
    pub(super) fn forget(&mut self) {
        (self.under_way, self.is_due_again) = (None, false);
    }

    /// Waits until one is done.
    pub(super) async fn found(&mut self) -> Found {
        match &mut self.under_way {
            Some(look) => look.await,
            None => pending().await,
        }
    }

    /// Has the tables follow what was found, and begins again if that is due.
    pub(super) fn follow(&mut self, service: &Service, found: Found) -> Result<()> {
        self.under_way = None;
        follow(service, found)?;
        if self.is_due_again {
            self.begin(service);
        }
        Ok(())
    }
}

/// Looks for the ways to backends, all at once.
pub(super) async fn find(resolver: &Resolver, backends: Vec<BackendRow>) -> Found {
    let look = async |row: BackendRow| {
        let reach = match row.forward {
            Forward::Ipip | Forward::Gue => Reach::Routed,
            Forward::L2 => Reach::OnLink,
        };
        let target = Target { backend: row.name.name.clone(), address: row.name.address, reach };
        let hop = resolver.next_hop(&target).await;
        (row, hop)
    };
    join_all(backends.into_iter().map(look)).await
}

/// Has the tables follow the ways that were found, and tells the operator what is new.
pub(super) fn follow(service: &Service, found: Found) -> Result<()> {
    for (row, hop) in found {
        match hop {
            Ok(hop) => {
                let interface = hop.interface_name.clone();
                if service.set_hop(row.id, Some(hop))? {
                    info!(backend = row.name.name, address = %row.name.address, interface, "the backend is reached");
                }
            }
            Err(error) => {
                service.set_hop(row.id, None)?;
                let error = error.to_string();
                if service.is_new_trouble(row.id, &error) {
                    warn!(backend = row.name.name, "{}", unreached(&error));
                }
            }
        }
    }
    Ok(())
}
