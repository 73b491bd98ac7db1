//! What a backend does in its pool over time: the word in the configuration, and what follows from when it came there.
//!
//! Nothing here reads a clock or writes a table.

use crate::{config::BackendState, layout::PoolRow};
use lb_common::limits::SLOW_START_STEPS;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a backend does. Times are those of the kernel's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Duty {
    /// Takes its share of new connections.
    Up,
    /// Takes a growing part of its share.
    Rising { since: Duration },
    /// Keeps its connections until its time is up, and takes no new one.
    Draining { since: Duration, until: Duration },
    /// Its time is up.
    Drained { since: Duration },
    /// Dead.
    Down,
    /// No longer in the configuration; keeps its connections.
    Leaving,
}

/// How a backend gets its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// All of it at once: at the start, or where there is nobody to share with.
    AtOnce,
    /// As the pool's slow start says.
    AsConfigured,
}

impl Duty {
    /// What a backend does by a new configuration, after `before`.
    pub(super) fn next(
        before: Option<Self>,
        state: BackendState,
        pool: &PoolRow,
        now: Duration,
        arrival: Arrival,
    ) -> Self {
        match (state, before) {
            (BackendState::Down, _) => Self::Down,
            (BackendState::Up, Some(before @ (Self::Up | Self::Rising { .. }))) => before,
            (BackendState::Up, _) if arrival == Arrival::AtOnce || pool.slow_start.is_zero() => Self::Up,
            (BackendState::Up, _) => Self::Rising { since: now },
            (BackendState::Drain, Some(Self::Draining { since, .. } | Self::Drained { since })) => {
                Self::drain(since, pool.drain_timeout, now)
            }
            (BackendState::Drain, _) => Self::drain(now, pool.drain_timeout, now),
        }
    }

    fn drain(since: Duration, timeout: Duration, now: Duration) -> Self {
        let until = since + timeout;
        if now < until { Self::Draining { since, until } } else { Self::Drained { since } }
    }

    /// What it does when it leaves the configuration: nothing new, and what is over stays over.
    pub(super) const fn leave(self) -> Self {
        match self {
            Self::Up | Self::Rising { .. } => Self::Leaving,
            other => other,
        }
    }

    /// What time has made of it.
    pub(super) fn at(self, now: Duration, slow_start: Duration) -> Self {
        match self {
            Self::Draining { since, until } if now >= until => Self::Drained { since },
            Self::Rising { .. } if self.part(now, slow_start) == SLOW_START_STEPS => Self::Up,
            other => other,
        }
    }

    /// Its word on screens.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Rising { .. } => "rising",
            Self::Draining { .. } => "draining",
            Self::Drained { .. } => "drained",
            Self::Down => "down",
            Self::Leaving => "leaving",
        }
    }

    /// Whether packets of its connections go to it.
    pub(super) const fn serves(self) -> bool {
        !matches!(self, Self::Drained { .. } | Self::Down)
    }

    /// The part of its share of new connections, in [`SLOW_START_STEPS`].
    pub(super) fn part(self, now: Duration, slow_start: Duration) -> u32 {
        match self {
            Self::Up => SLOW_START_STEPS,
            Self::Rising { since } => {
                let steps = u128::from(SLOW_START_STEPS) * now.saturating_sub(since).as_millis();
                let step = steps.checked_div(slow_start.as_millis()).unwrap_or(u128::MAX);
                u32::try_from(step).map_or(SLOW_START_STEPS, |step| SLOW_START_STEPS.min(step.saturating_add(1)))
            }
            Self::Draining { .. } | Self::Drained { .. } | Self::Down | Self::Leaving => 0,
        }
    }

    /// For how many seconds it still keeps its connections, if that has an end; 0 only when they are over.
    pub(super) fn drain_left_s(self, now: Duration) -> Option<u64> {
        match self {
            Self::Draining { until, .. } => Some(until.saturating_sub(now).as_secs() + 1),
            Self::Drained { .. } => Some(0),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::ids::PoolId;

    const SECOND: Duration = Duration::from_secs(1);

    fn pool(slow_start_s: u32) -> PoolRow {
        PoolRow {
            id: PoolId(0),
            name: "web".to_owned(),
            drain_timeout: SECOND * 60,
            slow_start: SECOND * slow_start_s,
            udp_transition: SECOND,
            health: None,
        }
    }

    fn next(before: Option<Duty>, state: BackendState, slow_start_s: u32, now_s: u32) -> Duty {
        Duty::next(before, state, &pool(slow_start_s), SECOND * now_s, Arrival::AsConfigured)
    }

    #[test]
    fn a_drain_is_counted_from_its_beginning_whatever_is_reloaded_meanwhile() {
        let draining = next(Some(Duty::Up), BackendState::Drain, 0, 10);
        assert_eq!(draining, Duty::Draining { since: SECOND * 10, until: SECOND * 70 });
        assert_eq!(next(Some(draining), BackendState::Drain, 0, 50), draining);
        assert_eq!([50, 69, 70].map(|now_s| draining.drain_left_s(SECOND * now_s)), [Some(21), Some(2), Some(1)]);
        assert_eq!(draining.at(SECOND * 69, SECOND), draining);
        let drained = draining.at(SECOND * 70, SECOND);
        assert_eq!(drained.drain_left_s(SECOND * 70), Some(0));
        assert!(draining.serves() && !drained.serves());
        assert_eq!(next(Some(drained), BackendState::Drain, 0, 80), drained);
        assert_eq!(next(Some(drained), BackendState::Up, 0, 80), Duty::Up);
    }

    #[test]
    fn who_comes_rises_in_steps_and_who_was_there_does_not() {
        let comes = [None, Some(Duty::Down), Some(Duty::Drained { since: SECOND }), Some(Duty::Leaving)];
        for before in comes {
            let rising = next(before, BackendState::Up, 20, 100);
            assert_eq!(rising, Duty::Rising { since: SECOND * 100 });
            let parts = [100, 101, 102, 110, 117, 118, 119].map(|now_s| rising.part(SECOND * now_s, SECOND * 20));
            assert_eq!(parts, [1, 1, 2, 6, 9, 10, 10]);
            assert_eq!(rising.at(SECOND * 118, SECOND * 20), Duty::Up);
            assert_eq!(next(Some(rising), BackendState::Up, 20, 105), rising);
            assert_eq!(next(before, BackendState::Up, 0, 100), Duty::Up);
        }
        assert_eq!(next(Some(Duty::Up), BackendState::Up, 20, 100), Duty::Up);
        assert_eq!(Duty::next(None, BackendState::Up, &pool(20), SECOND, Arrival::AtOnce), Duty::Up);
    }

    #[test]
    fn who_leaves_keeps_its_connections_unless_they_are_over() {
        assert_eq!(Duty::Up.leave(), Duty::Leaving);
        assert!(Duty::Leaving.serves());
        assert_eq!(Duty::Leaving.part(SECOND, SECOND), 0);
        assert_eq!(Duty::Down.leave(), Duty::Down);
        let draining = Duty::Draining { since: SECOND, until: SECOND * 2 };
        assert_eq!(draining.leave(), draining);
    }
}
