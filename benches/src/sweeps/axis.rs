//! Along what is swept, and at which points.

use std::fmt;

use clap::ValueEnum;

use super::controller::Change;
use crate::bench::Scale;

/// A size that varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    /// MPTCP connections
    Flows,
    /// Backends of a pool
    Backends,
    /// VIPs
    Vips,
    /// Joined subflows that the ring does not answer
    Joined,
}

impl Axis {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Flows, Self::Backends, Self::Vips, Self::Joined];

    /// Its name in figures.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Backends => "backends",
            Self::Vips => "vips",
            Self::Joined => "joined",
        }
    }

    /// What it counts.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::Flows => "MPTCP connections",
            Self::Backends => "backends",
            Self::Vips => "VIPs",
            Self::Joined => "joined subflows",
        }
    }

    /// Its points.
    pub(super) const fn sizes(self, quick: bool) -> &'static [u32] {
        match (self, quick) {
            (Self::Flows, false) => &[1, 1000, 65_536, 524_288, 1_000_000, 10_000_000],
            (Self::Backends, false) => &[1, 4, 16, 64, 256, 1024, 4096],
            (Self::Vips, false) => &[1, 4, 16, 64, 256, 1024],
            (Self::Joined, false) => &[0, 1024, 16_384, 65_536, 262_144, 1_000_000],
            (Self::Flows, true) => &[1, 8192],
            (Self::Backends, true) => &[64],
            (Self::Vips, true) => &[16],
            (Self::Joined, true) => &[8192],
        }
    }

    /// A balancer of one of these sizes, and else as usual.
    pub(super) fn at(self, size: u32, usual: Scale) -> Scale {
        let small = || u16::try_from(size).expect("few backends and VIPs");
        match self {
            Self::Flows => Scale { flows: size, ..usual },
            Self::Backends => Scale { backends: small(), ..usual },
            Self::Vips => Scale { vips: small(), ..usual },
            Self::Joined => Scale { joined: size, ..usual },
        }
    }

    /// What a reload changes there.
    pub(super) const fn change(self) -> Change {
        match self {
            Self::Flows | Self::Backends | Self::Joined => Change::Backend,
            Self::Vips => Change::Vip,
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
