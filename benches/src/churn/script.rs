//! What happens to the pool: a sequence of changes that the seed alone decides.
//!
//! Every kind of change comes once in each round, in an order of its own, and some backends always stay up.

use std::fmt;

/// Fewer backends than this never take new connections.
const UP_MIN: usize = 3;
const WEIGHT: u32 = 100;
const WEIGHTS: [u32; 4] = [25, 50, 200, 300];

/// What a backend is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stand {
    /// Not in the configuration.
    Absent,
    /// Takes connections.
    Up,
    /// Keeps the connections that it has.
    Draining,
    /// Killed, and configured as `down`.
    Dead,
}

impl Stand {
    /// The word in Weir's configuration; none if it is not in there.
    pub(crate) const fn word(self) -> Option<&'static str> {
        match self {
            Self::Absent => None,
            Self::Up => Some("up"),
            Self::Draining => Some("drain"),
            Self::Dead => Some("down"),
        }
    }
}

/// A backend of the pool, b1 first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) stand: Stand,
    pub(crate) weight: u32,
}

/// A kind of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Add,
    Remove,
    Drain,
    Reweight,
    Kill,
    Return,
}

impl Kind {
    /// Every kind.
    pub(crate) const ALL: [Self; 6] = [Self::Add, Self::Remove, Self::Drain, Self::Reweight, Self::Kill, Self::Return];

    /// Whether it can happen to a backend.
    const fn suits(self, stand: Stand) -> bool {
        match self {
            Self::Add => matches!(stand, Stand::Absent),
            Self::Remove | Self::Drain | Self::Reweight => matches!(stand, Stand::Up),
            Self::Kill => matches!(stand, Stand::Up | Stand::Draining),
            Self::Return => matches!(stand, Stand::Draining | Stand::Dead),
        }
    }

    const fn outcome(self) -> Stand {
        match self {
            Self::Add | Self::Return | Self::Reweight => Stand::Up,
            Self::Remove => Stand::Absent,
            Self::Drain => Stand::Draining,
            Self::Kill => Stand::Dead,
        }
    }
}

/// One change: what happened to which backend, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) kind: Kind,
    pub(crate) backend: usize,
    /// What it was before.
    pub(crate) from: Stand,
    /// Its weight from now on.
    pub(crate) weight: u32,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backend = self.backend + 1;
        match (self.kind, self.from) {
            (Kind::Add, _) => write!(f, "b{backend} is added"),
            (Kind::Remove, _) => write!(f, "b{backend} is removed"),
            (Kind::Drain, _) => write!(f, "b{backend} drains"),
            (Kind::Reweight, _) => write!(f, "b{backend} weighs {}", self.weight),
            (Kind::Kill, _) => write!(f, "b{backend} is killed"),
            (Kind::Return, Stand::Dead) => write!(f, "b{backend} lives again"),
            (Kind::Return, _) => write!(f, "b{backend} is enabled"),
        }
    }
}

/// The changes to come, and the pool as it is.
#[derive(Debug)]
pub(crate) struct Script {
    random: Random,
    kinds: &'static [Kind],
    pool: Vec<Member>,
    round: Vec<Kind>,
}

impl Script {
    /// A pool of `backends`, a quarter of which is not in the configuration yet; of these kinds of change one must be
    /// [`Kind::Reweight`].
    pub(crate) fn new(seed: u64, backends: usize, kinds: &'static [Kind]) -> Self {
        let stand = |index| if index < backends - backends / 4 { Stand::Up } else { Stand::Absent };
        let pool = (0..backends).map(|index| Member { stand: stand(index), weight: WEIGHT }).collect();
        Self { random: Random(seed), kinds, pool, round: Vec::new() }
    }

    /// The pool as it is.
    pub(crate) fn pool(&self) -> &[Member] {
        &self.pool
    }

    /// Makes the next change and returns it.
    ///
    /// # Panics
    /// Never: to weigh a backend anew is always possible.
    pub(crate) fn advance(&mut self) -> Change {
        let mut skipped = Vec::new();
        let change = loop {
            if self.round.is_empty() {
                self.round = self.random.shuffled(self.kinds);
            }
            let kind = self.round.pop().expect("a round has kinds");
            match self.change_of(kind) {
                Some(change) => break change,
                None => skipped.push(kind),
            }
        };
        // What was not possible now comes later in the round.
        self.round.splice(0..0, skipped);
        let member = &mut self.pool[change.backend];
        *member = Member { stand: change.kind.outcome(), weight: change.weight };
        change
    }

    fn change_of(&mut self, kind: Kind) -> Option<Change> {
        let up = self.pool.iter().filter(|member| member.stand == Stand::Up).count();
        let takes_one = kind.outcome() != Stand::Up;
        let suits =
            |member: &Member| kind.suits(member.stand) && (!takes_one || member.stand != Stand::Up || up > UP_MIN);
        let candidates: Vec<usize> = (0..self.pool.len()).filter(|&index| suits(&self.pool[index])).collect();
        let &backend = self.random.pick(&candidates)?;
        let Member { stand: from, weight } = self.pool[backend];
        let others: Vec<u32> = WEIGHTS.into_iter().filter(|other| *other != weight).collect();
        let weight = if kind == Kind::Reweight { *self.random.pick(&others)? } else { weight };
        Some(Change { kind, backend, from, weight })
    }
}

/// `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014): the same sequence for a seed on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn pick<'a, T>(&mut self, things: &'a [T]) -> Option<&'a T> {
        if things.is_empty() { None } else { things.get(self.below(things.len())) }
    }

    fn shuffled<T: Copy>(&mut self, things: &[T]) -> Vec<T> {
        let mut shuffled = things.to_vec();
        for last in (1..shuffled.len()).rev() {
            shuffled.swap(last, self.below(last + 1));
        }
        shuffled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_and_some_backends_stay_up() {
        for seed in 0..50 {
            let mut script = Script::new(seed, 8, &Kind::ALL);
            let changes: Vec<Change> = (0..20).map(|_| script.advance()).collect();
            for kind in Kind::ALL {
                assert!(changes.iter().any(|change| change.kind == kind), "seed {seed}: no {kind:?}");
            }
            let mut replayed = Script::new(seed, 8, &Kind::ALL);
            for change in &changes {
                assert_eq!(replayed.advance(), *change, "seed {seed}");
                let up = replayed.pool().iter().filter(|member| member.stand == Stand::Up).count();
                assert!(up >= UP_MIN, "seed {seed}");
            }
        }
    }
}
