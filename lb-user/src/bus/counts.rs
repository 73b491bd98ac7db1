//! What the bus has done, as numbers.

use crate::seldom::Seldom;
use lb_common::share::Entered;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Why an entry of another member was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This member has no such pool or backend.
    Unknown,
    /// The pool does not learn from whom it is.
    Unwanted,
    /// Another backend holds the token too, which is ambiguous now; or has the flow, and keeps it.
    Held,
    /// The table is full.
    Full,
    /// The message could not be read.
    Illegible,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Unwanted, Self::Held, Self::Full, Self::Illegible];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Unwanted => "unwanted",
            Self::Held => "held",
            Self::Full => "full",
            Self::Illegible => "illegible",
        }
    }

    /// Why an entry was not taken by the tables, if it was not.
    pub const fn of(entered: Entered) -> Option<Self> {
        match entered {
            Entered::New | Entered::Known => None,
            Entered::Ambiguous | Entered::Held => Some(Self::Held),
            Entered::Full => Some(Self::Full),
            Entered::Malformed => Some(Self::Illegible),
        }
    }
}

/// What the bus has done since the start.
#[derive(Debug, Default)]
pub struct BusCounts {
    /// Whether there is a connection to a server.
    pub connected: AtomicBool,
    /// Whether what others know has been asked for since.
    pub caught_up: AtomicBool,
    /// Entries told.
    pub sent: AtomicU64,
    /// Entries heard and taken.
    pub received: AtomicU64,
    /// Entries that found no room while the bus was down.
    pub lost: AtomicU64,
    /// How often messages were missed, because they came faster than they were taken in.
    pub overruns: AtomicU64,
    refused: [AtomicU64; Refusal::ALL.len()],
    /// When the operator last heard of a message that could not be read.
    pub(super) illegible: Seldom,
}

impl BusCounts {
    /// Notes entries that were not taken.
    pub fn refuse(&self, refusal: Refusal, entries: u64) {
        self.refused[refusal as usize].fetch_add(entries, Relaxed);
    }

    /// How many entries were not taken, and why.
    pub fn refused(&self) -> [(Refusal, u64); Refusal::ALL.len()] {
        Refusal::ALL.map(|refusal| (refusal, self.refused[refusal as usize].load(Relaxed)))
    }

    /// All of it as it is now.
    pub fn numbers(&self) -> BusNumbers {
        BusNumbers {
            connected: self.connected.load(Relaxed),
            caught_up: self.caught_up.load(Relaxed),
            sent: self.sent.load(Relaxed),
            received: self.received.load(Relaxed),
            lost: self.lost.load(Relaxed),
            overruns: self.overruns.load(Relaxed),
            refused: self.refused(),
        }
    }
}

/// What [`BusCounts`] were at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BusNumbers {
    /// See [`BusCounts`]; likewise the others.
    pub connected: bool,
    /// Likewise.
    pub caught_up: bool,
    /// Likewise.
    pub sent: u64,
    /// Likewise.
    pub received: u64,
    /// Likewise.
    pub lost: u64,
    /// Likewise.
    pub overruns: u64,
    /// Entries that were not taken, by why.
    pub refused: [(Refusal, u64); Refusal::ALL.len()],
}
