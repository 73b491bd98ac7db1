//! What the controller and the programs of `weir trace` agree on. The programs of every other time know nothing of it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The program that writes a line, by its name in the object. It goes on to none and is gone on to by all.
pub const PROGRAM: &str = "weir_log";

/// Which packets are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Plan {
    /// Those whose random number is not above it.
    threshold: u32,
    /// So many on each CPU in a tick at most.
    pub lines_per_cpu: u32,
}

impl Plan {
    /// One packet in so many, and a limit beside that.
    pub const fn new(one_in: u32, lines_per_cpu: u32) -> Self {
        let threshold = match u32::MAX.checked_div(one_in) {
            Some(threshold) => threshold,
            None => 0,
        };
        Self { threshold, lines_per_cpu }
    }

    /// Whether a packet with this random number is told of.
    #[inline(always)]
    pub const fn takes(&self, random: u32) -> bool {
        random <= self.threshold
    }
}

/// How many packets a CPU has seen meanwhile, and what became of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counts {
    /// All packets.
    pub packets: u64,
    /// Those that were to be told of.
    pub sampled: u64,
    /// Those of them that were not, for the limit.
    pub over_limit: u64,
}

const _: () = assert!(size_of::<Plan>() == 8 && size_of::<Counts>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_takes_its_share_of_all_random_numbers() {
        assert!(Plan::new(1, 0).takes(u32::MAX) && Plan::new(1, 0).takes(0));
        for one_in in [2, 10, 1000, 1_000_000] {
            let taken = u64::from(u32::MAX / one_in) + 1;
            let plan = Plan::new(one_in, 0);
            assert!(plan.takes(u32::MAX / one_in) && !plan.takes(u32::MAX / one_in + 1));
            assert!((taken * u64::from(one_in)).abs_diff(1 << 32) <= u64::from(one_in), "{one_in}");
        }
    }
}
