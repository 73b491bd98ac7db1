//! The kernel's monotonic clock, which the data path reads too. It goes on whatever process looks at it, so that a
//! deadline outlives the controller that has set it.

use lb_common::ids::Tick;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The time since some moment of the machine's start.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Into::into)
}

/// The same as the data path writes it into its tables.
pub(crate) fn tick() -> Tick {
    Tick::from_nanos(u64::try_from(now().as_nanos()).unwrap_or(u64::MAX))
}

/// A time of this clock as programs read it.
pub(crate) fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}
