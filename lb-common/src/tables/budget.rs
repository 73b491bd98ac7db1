//! What may be spent in a tick (1.07 s), and how much of it is: a budget of its own for each who spends, or for those few
//! who share a place.

use crate::{
    ids::{Tick, Token},
    limits::JOIN_BUDGETS,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a CPU has spent in a tick on answers, or the clients of one network on entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Budget {
    tick: Tick,
    spent: u32,
}

impl Budget {
    /// Spends one of `limit`, if any is left in this tick.
    #[inline(always)]
    pub fn spend(&mut self, now: Tick, limit: u32) -> bool {
        if self.tick != now {
            *self = Self { tick: now, spent: 0 };
        }
        if self.spent >= limit {
            return false;
        }
        self.spent += 1;
        true
    }
}

/// The index of the budget that a token's joins spend. Tokens are digests, and as random as any hash of theirs.
#[inline(always)]
pub const fn join_place(token: Token) -> u32 {
    token.number() % JOIN_BUDGETS
}

/// What a connection's clients have spent in a tick on joins. Two bytes, so that all of them stay near the CPU: of the tick
/// they have the low byte, which comes again after four and a half minutes; whoever spent everything in that one is kept
/// waiting for one tick in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(2))]
pub struct JoinBudget {
    tick: u8,
    spent: u8,
}

impl JoinBudget {
    /// Spends one of `limit`, if any is left in this tick. It counts to 255: a higher limit is none.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the low byte")]
    pub fn spend(&mut self, now: Tick, limit: u32) -> bool {
        let tick = now.0 as u8;
        let spent = if self.tick == tick { self.spent } else { 0 };
        if u32::from(spent) >= limit {
            return false;
        }
        *self = Self { tick, spent: spent.saturating_add(1) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: u32 = 3;

    /// How many of 1,000 a budget pays for in a tick.
    fn paid(mut spend: impl FnMut() -> bool) -> usize {
        (0..1000).filter(|_| spend()).count()
    }

    #[test]
    fn each_tick_has_its_own() {
        let (mut budget, mut joins) = (Budget::default(), JoinBudget::default());
        for tick in (250..260).chain([1 << 20, u32::MAX]).map(Tick) {
            assert_eq!(paid(|| budget.spend(tick, LIMIT)), LIMIT as usize);
            assert_eq!(paid(|| joins.spend(tick, LIMIT)), LIMIT as usize);
        }
    }

    #[test]
    fn the_largest_limit_of_joins_is_kept_and_a_larger_one_is_none() {
        let mut joins = JoinBudget::default();
        assert_eq!(paid(|| joins.spend(Tick(1), 255)), 255);
        assert_eq!(paid(|| joins.spend(Tick(2), u32::MAX)), 1000);
    }
}
