//! What the client does: which connections a scenario is made of. All of it follows from the seed.

use std::time::Duration;

use serde::Serialize;

use super::tally::Kind;
use crate::{addresses::Family, random::Random, sockets::Transport, traffic::Mix};

/// Requests on a short connection.
const REQUESTS: usize = 4;
/// Between two of them, at least, and at most so much more: a connection outlasts its joins, which a busy client's kernel
/// begins half a second after it.
const PAUSE_MS: u64 = 350;
const PAUSE_MORE_MS: usize = 300;
/// Rounds of a long connection: a file comes, and another goes there and back.
const ROUNDS_MAX: usize = 3;
/// Datagrams of a flow, and the time between two.
const DATAGRAMS: usize = 20;
pub(super) const DATAGRAM_INTERVAL: Duration = Duration::from_millis(25);
/// A long transfer takes the time of so many short connections.
const LONG_FOR_SHORT: usize = 8;
/// What they store is kept in memory.
const LONG_MAX: usize = 256;

/// A kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Many short MPTCP connections with a few HTTP requests each
    Short,
    /// Long HTTP transfers in both directions over MPTCP
    Long,
    /// Short and long, MPTCP and plain TCP, and UDP
    Mixed,
    /// All of them, one after the other
    All,
}

impl Scenario {
    /// The scenarios that it consists of.
    pub(super) const fn parts(self) -> &'static [Self] {
        match self {
            Self::All => &[Self::Short, Self::Long, Self::Mixed],
            Self::Short => &[Self::Short],
            Self::Long => &[Self::Long],
            Self::Mixed => &[Self::Mixed],
        }
    }

    /// Its name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Mixed => "mixed",
            Self::All => "all",
        }
    }

    /// How many connections are open at a time, of those asked for.
    pub(super) fn at_a_time(self, connections: usize) -> usize {
        match self {
            Self::Long => (connections / LONG_FOR_SHORT).clamp(2, LONG_MAX),
            _ => connections,
        }
    }

    /// The `number`th connection.
    pub(super) fn plan(self, seed: u64, number: u64) -> Plan {
        let mut random = Random::of(seed, number);
        let mix = Mix::alternating(random.below(4));
        let part = match self {
            Self::Short => Part::Short(Transport::Mptcp),
            Self::Long => Part::Long { rounds: 1 + random.below(ROUNDS_MAX), size: Size::Large },
            Self::Mixed | Self::All => match random.below(100) {
                0..40 => Part::Short(Transport::Mptcp),
                40..60 => Part::Short(Transport::Tcp),
                60..80 => Part::Long { rounds: 1 + random.below(ROUNDS_MAX), size: Size::Medium },
                _ => Part::Datagrams { count: DATAGRAMS },
            },
        };
        Plan { mix, part, random }
    }
}

/// How large files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Medium,
    Large,
}

/// What happens on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A few requests for small files.
    Short(Transport),
    /// Files that come, and others that go there and back, over MPTCP.
    Long { rounds: usize, size: Size },
    /// Numbered datagrams and their echoes.
    Datagrams { count: usize },
}

/// A connection to be.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) mix: Mix,
    pub(super) part: Part,
    pub(super) random: Random,
}

impl Plan {
    pub(super) const fn kind(&self) -> Kind {
        match self.part {
            Part::Short(Transport::Tcp) => Kind::Tcp,
            Part::Short(Transport::Mptcp) | Part::Long { .. } => Kind::Mptcp,
            Part::Datagrams { .. } => Kind::Udp,
        }
    }

    pub(super) const fn family(&self) -> Family {
        self.mix.family()
    }

    pub(super) const fn requests() -> usize {
        REQUESTS
    }

    pub(super) fn pause(&mut self) -> Duration {
        Duration::from_millis(PAUSE_MS + self.random.below(PAUSE_MORE_MS) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_seed_and_number() {
        let kinds = |seed| (0..200).map(move |number| Scenario::Mixed.plan(seed, number).kind());
        assert!(kinds(1).eq(kinds(1)));
        assert!(!kinds(1).eq(kinds(2)));
        for kind in [Kind::Mptcp, Kind::Tcp, Kind::Udp] {
            assert!(kinds(1).any(|other| other == kind), "{kind:?}");
        }
    }
}
