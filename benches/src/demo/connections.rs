//! One connection of the demonstration, and where its subflows are: told by the sockets and counters
//! of the backends, never by the balancer.

use std::{fmt, time::Duration};

use crate::{
    Lab, LabError,
    addresses::Path,
    oracle::{JoinTally, Subflow},
    traffic::{Connection, Mix},
};

/// A join whose SYN is dropped comes again after 1 s and 3 s; what is open after that stays so.
const SETTLE_LIMIT: Duration = Duration::from_secs(6);

/// A way by which a connection is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client's second address.
    PathTwo,
    /// Over IPv6, to the VIP that the backend announced, for a connection over IPv4.
    OverV6,
}

impl Way {
    const fn of(mix: Mix) -> &'static [Self] {
        match mix {
            Mix::V4 | Mix::V6 => &[Self::PathTwo],
            Mix::V4JoinedOverV6 => &[Self::PathTwo, Self::OverV6],
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PathTwo => "path 2",
            Self::OverV6 => "over IPv6",
        })
    }
}

/// What became of a connection's subflows.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The connection, still open.
    pub(super) connection: Connection,
    /// The backend whose kernel has the first subflow.
    pub(super) owner: String,
    /// Each join that was to come, and the backend whose kernel has it.
    pub(super) joins: Vec<(Way, Option<String>)>,
    /// The backends whose kernels reset a join, not knowing the connection.
    pub(super) strangers: Vec<String>,
}

impl Outcome {
    /// Opens a connection and waits until each of its joins has ended one way or the other.
    pub(super) fn of_new_connection(lab: &Lab, mix: Mix) -> Result<Self, LabError> {
        let before = JoinTally::read(lab)?;
        let connection = Connection::open(&lab.client, mix)?;
        let tally = JoinTally::settled_since(&before, lab, mix.joins(), SETTLE_LIMIT)?;
        let (owner, subflows) = locate(lab, &connection)?;
        let joins = Way::of(mix).iter().map(|&way| {
            let joined = subflows.iter().any(|subflow| way_of(subflow) == way);
            (way, joined.then(|| owner.clone()))
        });
        Ok(Self { joins: joins.collect(), strangers: strangers(lab, &tally), connection, owner })
    }

    /// Subflows that some backend has, the first included.
    pub(super) fn subflows(&self) -> usize {
        1 + self.joins.iter().filter(|(_, at)| at.is_some()).count()
    }

    /// Subflows that there should be.
    pub(super) fn subflows_wanted(&self) -> usize {
        1 + self.joins.len()
    }
}

/// The backend that has the connection's first subflow, and the joined subflows of the same token
/// there. A token names a connection on one host only, so other backends' sockets are not compared.
fn locate(lab: &Lab, connection: &Connection) -> Result<(String, Vec<Subflow>), LabError> {
    for backend in &lab.backends {
        let mut subflows = Subflow::read(&backend.namespace)?;
        let first = subflows.iter().find(|subflow| subflow.peer == connection.client);
        let Some(token) = first.map(|subflow| subflow.token) else {
            continue;
        };
        subflows.retain(|subflow| subflow.token == token && subflow.peer != connection.client);
        return Ok((backend.name.clone(), subflows));
    }
    Err(LabError::NotMptcp { client: connection.client, backend: connection.backend.clone() })
}

fn way_of(subflow: &Subflow) -> Way {
    match Path::of(subflow.peer.ip()) {
        Some(Path::Two) => Way::PathTwo,
        _ => Way::OverV6,
    }
}

fn strangers(lab: &Lab, tally: &JoinTally) -> Vec<String> {
    let counted = lab.backends.iter().zip(&tally.backends);
    counted.filter(|(_, counts)| counts.misrouted > 0).map(|(backend, _)| backend.name.clone()).collect()
}
