//! What failing tests said, to be said once more where a long run ends.

/// How many lines of each are kept: the panic and what it compared, not the whole backtrace.
const LINES: usize = 12;

/// The last words of the tests that failed.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    lines: Vec<String>,
    /// How many more lines of the current test are kept.
    wanted: usize,
}

impl Failures {
    /// Takes in a line of libtest's output.
    pub(crate) fn take_line(&mut self, line: &str) {
        let line = line.trim_end();
        if line.starts_with("---- ") && line.ends_with(" stdout ----") {
            self.wanted = LINES;
        } else if line == "failures:" || line.starts_with("stack backtrace:") {
            self.wanted = 0;
        }
        if self.wanted > 0 && !line.is_empty() {
            self.lines.push(line.to_owned());
            self.wanted -= 1;
        }
    }

    /// The lines, in the order in which they came.
    pub(crate) fn lines(&self) -> &[String] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_each_are_kept_and_no_backtrace() {
        let many = (0..50).map(|n| format!("line {n}"));
        let printed =
            ["test a ... FAILED", "failures:", "", "---- a stdout ----", "", "thread 'a' panicked", "left: 1"]
                .map(str::to_owned)
                .into_iter()
                .chain(["stack backtrace:", "   0: main", "---- b stdout ----"].map(str::to_owned))
                .chain(many)
                .chain(["failures:", "    a", "    b"].map(str::to_owned));
        let mut failures = Failures::default();
        printed.for_each(|line| failures.take_line(&line));
        assert_eq!(
            failures.lines()[..4],
            ["---- a stdout ----", "thread 'a' panicked", "left: 1", "---- b stdout ----"]
        );
        assert_eq!(failures.lines().len(), 3 + LINES);
        assert_eq!(failures.lines().last().map(String::as_str), Some("line 10"));
    }
}
