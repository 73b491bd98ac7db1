//! Host and kernel agree: random sequences of frames, damage and controller changes go through the decision on the host and
//! through the loaded XDP programs, and both must say, send, count and remember the same; what is sent is also held against
//! an oracle that Weir had no part in.
//!
//! Nothing is sent: the kernel's side is `BPF_PROG_TEST_RUN`. It needs root.

mod generate;
mod pair;
mod report;
mod sequence;
mod shrink;
mod talk;
mod touched;
#[expect(dead_code, reason = "the packet cases use the rest")]
#[path = "../../../lb-user/tests/data_path/worlds/mod.rs"]
mod worlds;

pub use report::{Difference, Report};
pub use sequence::{Change, NoStep, Sequence, Step};

use lb_common::reason::Reason;
use pair::Pair;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};
use worlds::setup::Setup;

/// Sequences between two looks at all tables.
const AUDIT_EVERY: u64 = 2048;

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What all sequences follow from.
    pub seed: u64,
    /// Not beyond so many sequences.
    pub sequences: Option<u64>,
    /// Not beyond this time.
    pub time: Option<Duration>,
}

/// Plays sequences until the time is over, a number is reached, Ctrl-C comes, or the worlds differ. `progress` is told now
/// and then how many sequences and frames there were.
///
/// # Panics
/// Without root's privileges, or where the kernel does not take the programs.
pub fn run(options: Options, mut progress: impl FnMut(u64, u64)) -> Report {
    let mut fuzz = Fuzz::new();
    let started = Instant::now();
    let mut report = Report { seed: options.seed, ..Report::default() };
    let goes_on = |sequences| {
        options.sequences.is_none_or(|limit| sequences < limit)
            && options.time.is_none_or(|time| started.elapsed() < time)
            && !crate::interrupt::requested()
    };
    while goes_on(report.sequences) {
        let sequence = generate::sequence(options.seed, report.sequences);
        report.sequences += 1;
        report.frames += sequence.frames() as u64;
        let is_audited = report.sequences.is_multiple_of(AUDIT_EVERY) || !goes_on(report.sequences);
        let differs = match fuzz.difference(&sequence, Look::AtTouched) {
            None if is_audited => {
                progress(report.sequences, report.frames);
                fuzz.audit().and_then(|_| fuzz.find_latest(options.seed, report.sequences))
            }
            None => None,
            Some(_) => Some((report.sequences - 1, sequence)),
        };
        if let Some((number, sequence)) = differs {
            let (sequence, what) = fuzz.shrink(sequence);
            report.difference = Some(Difference { number, what, sequence });
            break;
        }
    }
    report.took = started.elapsed();
    report.reasons = fuzz.reasons();
    report
}

/// Plays one sequence; what differs, if anything does.
///
/// # Panics
/// As [`run`].
pub fn replay(sequence: &Sequence) -> Option<String> {
    Fuzz::new().difference(sequence, Look::Everywhere)
}

/// Where to look for differences after a sequence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    AtTouched,
    Everywhere,
}

struct Fuzz(Pair);

impl Fuzz {
    fn new() -> Self {
        Self(Pair::new(Setup::wide_and_restless()))
    }

    /// What differs over a sequence, as the check that failed says it.
    fn difference(&mut self, sequence: &Sequence, look: Look) -> Option<String> {
        let Self(pair) = self;
        let failed = said_by_panic(|| {
            while pair.play(sequence).is_err() {}
            if look == Look::Everywhere {
                pair.audit();
            }
        });
        if failed.is_some() {
            self.0.resume();
        }
        failed
    }

    fn audit(&mut self) -> Option<String> {
        let failed = said_by_panic(|| self.0.audit());
        if failed.is_some() {
            self.0.resume();
        }
        failed
    }

    /// The sequence since the last audit that leaves something behind.
    fn find_latest(&mut self, seed: u64, end: u64) -> Option<(u64, Sequence)> {
        let since = (end - 1) / AUDIT_EVERY * AUDIT_EVERY;
        let mut sequences = (since..end).map(|number| (number, generate::sequence(seed, number)));
        sequences.find(|(_, sequence)| self.difference(sequence, Look::Everywhere).is_some())
    }

    fn reasons(&self) -> Vec<(Reason, u64)> {
        let reachable = Reason::ALL.iter().filter(|reason| !pair::UNREACHABLE.contains(reason));
        reachable.map(|&reason| (reason, self.0.reasons[reason.index() as usize])).collect()
    }
}

/// What a check says that fails.
fn said_by_panic(checks: impl FnOnce()) -> Option<String> {
    let failed = catch_unwind(AssertUnwindSafe(checks)).err()?;
    let text = failed.downcast_ref::<String>().cloned();
    text.or_else(|| failed.downcast_ref::<&str>().map(|&text| text.to_owned())).or_else(|| Some("a panic".to_owned()))
}
