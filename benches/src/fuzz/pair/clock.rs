//! The kernel's clock, which no test can set.

use lb_common::ids::Tick;
use nix::time::{ClockId, clock_gettime};
use std::{thread, time::Duration};

/// The tick that the kernel's programs read.
pub(super) fn tick() -> Tick {
    Tick::from_nanos(nanos())
}

fn nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("every kernel has this clock");
    Duration::from(time).as_nanos().try_into().expect("584 years")
}

/// The same, when the next is not near.
pub(super) fn calm_tick() -> Tick {
    const NEAR_NS: u64 = 9_000_000;
    loop {
        let now = nanos();
        if now % Tick::NANOS < Tick::NANOS - NEAR_NS {
            return Tick::from_nanos(now);
        }
        thread::sleep(Duration::from_millis(2));
    }
}
