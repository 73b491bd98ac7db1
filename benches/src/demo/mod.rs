//! The demonstration: the same MPTCP connections through a balancer that knows nothing of MPTCP and
//! through Weir, and what the kernels at both ends say became of their joins.
//!
//! The two runs differ in one configuration line. Each has a lab of its own, so that nothing of the
//! first is left in the second.

mod connections;
mod phase;
mod screen;

use serde::Serialize;

pub use phase::Phase;
pub use screen::Screen;

use crate::{BackendCount, LabError, weir::Join};

/// What to demonstrate.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many MPTCP connections, each with one or two joins.
    pub connections: usize,
    /// How many backends.
    pub backends: BackendCount,
}

/// One run in figures, as `--json` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Connections opened, each of which answered.
    pub connections: usize,
    /// Joins that the client's kernel began.
    pub joins_attempted: u64,
    /// Joins that a backend's kernel completed.
    pub joins_established: u64,
    /// Joins that came to a backend that does not have their connection.
    pub joins_misrouted: u64,
}

/// Both runs.
#[derive(Debug)]
pub struct Demo {
    /// With `join = "off"`.
    pub blind: Phase,
    /// With `join = ["learn"]`.
    pub learn: Phase,
}

/// The figures of both runs: the one object that `--json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    blind: Figures,
    learn: Figures,
}

impl Demo {
    /// Runs both, showing the connections on `screen` as they come.
    ///
    /// # Errors
    ///
    /// If a lab cannot be built, Weir does not start, or a signal asks for the end.
    pub fn run(options: Options, screen: Screen) -> Result<Self, LabError> {
        screen.introduce(options);
        let demo =
            Self { blind: Phase::run(Join::Off, options, screen)?, learn: Phase::run(Join::Learn, options, screen)? };
        screen.conclude(&demo);
        Ok(demo)
    }

    /// The figures of both runs.
    pub fn report(&self) -> Report {
        Report { blind: self.blind.figures(), learn: self.learn.figures() }
    }

    /// What, if anything, Weir did not keep of its promise: one line each.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = self.learn.lost_joins();
        for (name, phase) in [("blind", &self.blind), ("learn", &self.learn)] {
            let failed = phase.failures.iter();
            failures.extend(failed.map(|failure| format!("{name}: {failure}")));
        }
        failures
    }
}
