//! Adds up what libtest says. It must never count a test as passed that libtest did not.

use std::fmt;

/// Tests by outcome, over all test programs of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Summary {
    /// Takes in a line of output; only libtest's own results count.
    pub(crate) fn take_line(&mut self, line: &str) {
        let Some(result) = Self::parse(line) else {
            return;
        };
        self.passed += result.passed;
        self.failed += result.failed;
        self.skipped += result.skipped;
    }

    /// A run that failed although each test that spoke has passed: a test program crashed or did
    /// not compile, which counts as one failure.
    pub(crate) fn blame_silent_failure(&mut self) {
        self.failed = self.failed.max(1);
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |outcome| {
            counts.split("; ").find_map(|part| {
                let (number, name) = part.trim().split_once(' ')?;
                (name == outcome).then(|| number.parse().ok())?
            })
        };
        Some(Self { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary_of(lines: &[&str]) -> String {
        let mut summary = Summary::default();
        for line in lines {
            summary.take_line(line);
        }
        summary.to_string()
    }

    #[test]
    fn results_of_several_programs_add_up() {
        let printed = [
            "running 3 tests",
            "test ring::tests::is_even ... ok",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.25s",
        ];
        assert_eq!(summary_of(&printed), "6 passed, 2 failed, 1 skipped");
    }

    #[test]
    fn other_lines_count_for_nothing() {
        let printed =
            ["test result: soon", "    test result: ok. 9 passed; 0 failed; 0 ignored;", "9 passed; 9 failed", ""];
        assert_eq!(summary_of(&printed), "0 passed, 0 failed, 0 skipped");
    }

    #[test]
    fn silent_failure_counts_once_and_only_if_nothing_else_failed() {
        let mut silent = Summary::default();
        silent.blame_silent_failure();
        assert_eq!(silent.to_string(), "0 passed, 1 failed, 0 skipped");

        let mut loud = Summary { failed: 3, ..Summary::default() };
        loud.blame_silent_failure();
        assert_eq!(loud.to_string(), "0 passed, 3 failed, 0 skipped");
    }
}
