//! The ways to backends. One that does not answer is waited for for seconds, so the loop that keeps the tables true only takes
//! what has been found, backend by backend.

use crate::{
    config::Forward,
    layout::BackendRow,
    resolve::{NextHop, Reach, ResolveError, Resolver, Target},
    service::{Service, unreached},
};
use anyhow::Result;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use lb_common::ids::BackendId;
use std::{collections::BTreeMap, future::pending};
use tracing::{info, warn};

/// What was found for a backend.
pub(super) type Found = (BackendRow, Result<NextHop, ResolveError>);

/// Looks for the ways to backends, again and again, one at a time for each.
pub(super) struct Look<F, L> {
    find: F,
    under_way: FuturesUnordered<L>,
    /// The backends of those, and what to look for next where what is found may be old by then.
    next: BTreeMap<BackendId, Option<BackendRow>>,
}

/// Looks by a resolver.
pub(super) fn look<'r>(
    resolver: &'r Resolver,
) -> Look<impl Fn(BackendRow) -> BoxFuture<'r, Found>, BoxFuture<'r, Found>> {
    Look::new(move |row| find_one(resolver, row).boxed())
}

impl<F: Fn(BackendRow) -> L, L: Future<Output = Found>> Look<F, L> {
    fn new(find: F) -> Self {
        Self { find, under_way: FuturesUnordered::new(), next: BTreeMap::new() }
    }

    /// Begins, and again as soon as it is done where it has begun.
    pub(super) fn begin(&mut self, backends: Vec<BackendRow>) {
        for row in backends {
            match self.next.get_mut(&row.id) {
                Some(next) => *next = Some(row),
                None => self.ask(row),
            }
        }
    }

    fn ask(&mut self, row: BackendRow) {
        self.next.insert(row.id, None);
        self.under_way.push((self.find)(row));
    }

    /// Forgets all that is under way: there will be other backends.
    pub(super) fn forget(&mut self) {
        self.under_way.clear();
        self.next.clear();
    }

    /// Waits for the next that is done.
    pub(super) async fn found(&mut self) -> Found {
        let Some(found) = self.under_way.next().await else { return pending().await };
        if let Some(Some(row)) = self.next.remove(&found.0.id) {
            self.ask(row);
        }
        found
    }
}

/// Looks for the ways to backends, all at once.
pub(super) async fn find(resolver: &Resolver, backends: Vec<BackendRow>) -> Vec<Found> {
    join_all(backends.into_iter().map(|row| find_one(resolver, row))).await
}

async fn find_one(resolver: &Resolver, row: BackendRow) -> Found {
    let reach = match row.forward {
        Forward::Ipip | Forward::Gue => Reach::Routed,
        Forward::L2 => Reach::OnLink,
    };
    let target = Target { backend: row.name.name.clone(), address: row.name.address, reach };
    let hop = resolver.next_hop(&target).await;
    (row, hop)
}

/// Has the tables follow the ways that were found, and tells the operator what is new.
pub(super) fn follow(service: &Service, found: impl IntoIterator<Item = Found>) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::BackendState, numbering::BackendName};
    use lb_common::ids::PoolId;
    use std::{
        cell::RefCell,
        future::{Ready, ready},
        net::Ipv4Addr,
    };

    fn backend(number: u16, weight: u16) -> BackendRow {
        let name = BackendName {
            pool: "web".to_owned(),
            name: format!("b{number}"),
            address: Ipv4Addr::new(192, 0, 2, 1).into(),
        };
        BackendRow {
            id: BackendId(number),
            name,
            pool: PoolId(1),
            weight,
            state: BackendState::Up,
            forward: Forward::Ipip,
            quic_servers: Vec::new(),
        }
    }

    /// One that does not answer is waited for, and nobody waits for that: what the others have is known, and they are looked
    /// for again.
    #[test]
    fn a_silent_backend_delays_no_other() {
        let mut look =
            Look::new(|row: BackendRow| if row.id == BackendId(1) { pending().boxed() } else { nowhere(row).boxed() });
        look.begin(vec![backend(1, 100), backend(2, 100)]);
        assert_eq!(found(&mut look), Some(backend(2, 100)));
        assert_eq!(found(&mut look), None);
        look.begin(vec![backend(1, 100), backend(2, 50), backend(3, 100)]);
        let mut ids = [found(&mut look), found(&mut look)].map(|row| row.expect("both are there"));
        ids.sort_by_key(|row| row.id);
        assert_eq!(ids, [backend(2, 50), backend(3, 100)]);
        assert_eq!(found(&mut look), None);
    }

    /// What was looked for while a look was under way may have changed since that began: it is looked for once more.
    #[test]
    fn what_may_be_old_is_looked_for_again_and_once() {
        let looked_for = RefCell::new(Vec::new());
        let mut look = Look::new(|row: BackendRow| {
            looked_for.borrow_mut().push(row.weight);
            nowhere(row)
        });
        for weight in [100, 50, 25] {
            look.begin(vec![backend(1, weight)]);
        }
        assert_eq!([found(&mut look), found(&mut look)], [Some(backend(1, 100)), Some(backend(1, 25))]);
        assert_eq!((found(&mut look), looked_for.borrow().as_slice()), (None, &[100, 25][..]));
        look.begin(vec![backend(1, 100)]);
        look.forget();
        assert_eq!(found(&mut look), None);
    }

    fn nowhere(row: BackendRow) -> Ready<Found> {
        ready((row, Err(ResolveError::VipHere(Ipv4Addr::LOCALHOST.into()))))
    }

    /// What is done by now.
    fn found<F: Fn(BackendRow) -> L, L: Future<Output = Found>>(look: &mut Look<F, L>) -> Option<BackendRow> {
        look.found().now_or_never().map(|(row, _)| row)
    }
}
