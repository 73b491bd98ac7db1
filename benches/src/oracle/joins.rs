//! Joins attempted, established, and gone wrong, over the whole lab.
//!
//! The client counts what it attempts. A backend that knows a join's token counts it established at
//! the third ACK; one that does not was the wrong one, counts it, and resets it (RFC 8684, section
//! 3.2), which the client never retries.

use std::{ops::Sub, time::Duration};

use crate::{
    Backend, Lab, LabError,
    namespace::Namespace,
    oracle::Counters,
    traffic::{Connection, Mix},
    wait,
};

/// The joins of a lab so far, or since an earlier tally.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTally {
    /// SYNs with `MP_JOIN` that the client's kernel began, retransmissions not counted.
    pub attempted: u64,
    /// What each backend counted, b1 first.
    pub backends: Vec<JoinCounts>,
}

/// What one backend's kernel counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Joined subflows established.
    pub established: u64,
    /// Joins that belong to another backend: no such token, or the authentication failed.
    pub misrouted: u64,
    /// Joins to a right token that the kernel refused for reasons of its own, such as a limit.
    pub refused: u64,
}

/// Opens so many connections of all kinds, and waits until their joins have ended or `limit` is over.
///
/// # Errors
///
/// If one is not answered; or as [`JoinTally::settled_since`].
pub fn open_joined(lab: &Lab, count: usize, limit: Duration) -> Result<(Vec<Connection>, JoinTally), LabError> {
    let before = JoinTally::read(lab)?;
    let mixes = (0..count).map(Mix::alternating);
    let joins = mixes.clone().map(Mix::joins).sum();
    let connections = mixes.map(|mix| Connection::open(&lab.client, mix)).collect::<Result<_, _>>()?;
    Ok((connections, JoinTally::settled_since(&before, lab, joins, limit)?))
}

impl JoinTally {
    /// Reads the counters of the client and of every backend.
    ///
    /// # Errors
    ///
    /// As [`Counters::read`].
    pub fn read(lab: &Lab) -> Result<Self, LabError> {
        let client = Counters::read(&lab.client.namespace)?;
        Ok(Self {
            attempted: client.value("MPTcpExtMPJoinSynTx"),
            backends: lab
                .backends
                .iter()
                .map(|backend| JoinCounts::read(&backend.namespace))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The same at a [`Counters::glance`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn glance(lab: &Lab) -> Result<Self, LabError> {
        let client = Counters::glance(&lab.client.namespace)?;
        let of = |backend: &Backend| Ok(JoinCounts::of(&Counters::glance(&backend.namespace)?));
        Ok(Self {
            attempted: client.value("MPTcpExtMPJoinSynTx"),
            backends: lab.backends.iter().map(of).collect::<Result<_, LabError>>()?,
        })
    }

    /// Waits until at least `attempts` joins began since `before` and each has ended one way or the
    /// other; returns the tally since `before`. After `limit` returns it as it stands: what is not
    /// settled then is [`JoinTally::lost`] or was never attempted.
    ///
    /// # Errors
    ///
    /// As [`Counters::read`], or when interrupted.
    pub fn settled_since(before: &Self, lab: &Lab, attempts: u64, limit: Duration) -> Result<Self, LabError> {
        let mut tally = &Self::read(lab)? - before;
        let settled = wait::until("joins end", limit, || {
            tally = &Self::read(lab)? - before;
            let settled = tally.attempted >= attempts && tally.lost() == 0;
            Ok(settled.then_some(()))
        });
        match settled {
            Ok(()) | Err(LabError::Deadline { .. }) => Ok(tally),
            Err(error) => Err(error),
        }
    }

    /// Joined subflows established, on all backends.
    pub fn established(&self) -> u64 {
        self.backends.iter().map(|counts| counts.established).sum()
    }

    /// Joins that came to a backend that does not have their connection.
    pub fn misrouted(&self) -> u64 {
        self.backends.iter().map(|counts| counts.misrouted).sum()
    }

    /// Joins that the right backend refused.
    pub fn refused(&self) -> u64 {
        self.backends.iter().map(|counts| counts.refused).sum()
    }

    /// Joins attempted of which no backend knows anything (yet).
    pub fn lost(&self) -> u64 {
        let known = self.established() + self.misrouted() + self.refused();
        self.attempted.saturating_sub(known)
    }
}

impl Sub for &JoinTally {
    type Output = JoinTally;

    fn sub(self, before: Self) -> JoinTally {
        let backends = self.backends.iter().zip(&before.backends);
        JoinTally {
            attempted: self.attempted - before.attempted,
            backends: backends.map(|(now, before)| *now - *before).collect(),
        }
    }
}

impl JoinCounts {
    /// Reads the counters of a namespace where connections end.
    pub(crate) fn read(namespace: &Namespace) -> Result<Self, LabError> {
        Ok(Self::of(&Counters::read(namespace)?))
    }

    fn of(counters: &Counters) -> Self {
        Self {
            established: counters.value("MPTcpExtMPJoinAckRx"),
            misrouted: counters.value("MPTcpExtMPJoinNoTokenFound") + counters.value("MPTcpExtMPJoinAckHMacFailure"),
            refused: counters.value("MPTcpExtMPJoinRejected"),
        }
    }
}

impl Sub for JoinCounts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            established: self.established - before.established,
            misrouted: self.misrouted - before.misrouted,
            refused: self.refused - before.refused,
        }
    }
}
