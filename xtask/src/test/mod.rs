//! `cargo xtask test`: set-up, lints, every test, and one line that adds the tests up.
//!
//! A step that fails keeps no other from running; the failed ones are named at the end, and failing tests are quoted. No test
//! is left out: those that need root or the lab run like the others, and fail where they cannot.

use std::{
    io::{self, BufReader, Write as _},
    process::{ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    child, progress,
    setup::{self, Scope},
    test::{failures::Failures, summary::Summary},
    workspace,
};

mod failures;
mod lints;
mod summary;

/// How much is tested.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Lints and all tests.
    Everything,
    /// All tests, no lints.
    Fast,
}

type Step = (&'static str, fn() -> Result<()>);

const SETUP: Step = ("setup", || setup::set_up(Scope::Tests));
const LINTS: [Step; 4] = [
    ("formatting", lints::formatting),
    ("clippy", lints::host_clippy),
    ("clippy of lb-ebpf", lints::bpf_clippy),
    ("documentation", lints::documentation),
];
/// Lab tests start the programs, so these must be there first.
const PROGRAMS: Step = ("build", || {
    let mut cargo = workspace::cargo();
    child::run(cargo.arg("build").args(lints::HOST_CRATES))
});

/// Runs the steps, and ends with `N passed, N failed, N skipped` on stdout.
///
/// # Errors
///
/// Ctrl-C. A failed step is no error here: it is told, and the exit code is a failure.
pub(crate) fn test(extent: Extent) -> Result<ExitCode> {
    let lints = match extent {
        Extent::Everything => LINTS.as_slice(),
        Extent::Fast => &[],
    };
    let mut run = Run::begin();
    for (name, step) in [SETUP].iter().chain(lints).chain([&PROGRAMS]) {
        run.take(name, step)?;
    }
    let (mut summary, mut failures) = (Summary::default(), Failures::default());
    run.take("tests", || {
        run_tests(extent, &mut summary, &mut failures).inspect_err(|_| summary.blame_silent_failure())
    })?;
    failures.lines().iter().for_each(|line| progress::say("", line));
    run.end(&summary)
}

/// The steps taken so far.
struct Run {
    started: Instant,
    failed: Vec<&'static str>,
}

impl Run {
    fn begin() -> Self {
        Self { started: Instant::now(), failed: Vec::new() }
    }

    /// Takes one step and says how it ended; only Ctrl-C is an error.
    fn take(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) -> Result<()> {
        progress::say("Step", name);
        let started = Instant::now();
        let outcome = step();
        ensure!(!child::interrupted(), "interrupted by Ctrl-C");
        match outcome {
            Ok(()) => progress::say_timed("Passed", name, started),
            Err(error) => {
                progress::say("Failed", format_args!("{name}: {error:#}"));
                self.failed.push(name);
            }
        }
        Ok(())
    }

    /// Says how it all ended; the summary is the last line.
    fn end(self, summary: &Summary) -> Result<ExitCode> {
        let (verb, what, code) = if self.failed.is_empty() {
            ("Passed", "every step".to_owned(), ExitCode::SUCCESS)
        } else {
            ("Failed", self.failed.join(", "), ExitCode::FAILURE)
        };
        progress::say_timed(verb, what, self.started);
        writeln!(io::stdout(), "{summary}").context("cannot write to stdout")?;
        Ok(code)
    }
}

/// Streams cargo's output on while adding it up.
fn run_tests(extent: Extent, summary: &mut Summary, failures: &mut Failures) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.arg("test").args(lints::HOST_CRATES).arg("--no-fail-fast").stdout(Stdio::piped());
    if let Extent::Everything = extent {
        cargo.args(["--", "--include-ignored"]);
    }
    let mut running = child::spawn(&mut cargo)?;
    let output = running.stdout.take().context("cargo's output is piped")?;
    let echoed = echo(BufReader::new(output), io::stdout(), |line| {
        summary.take_line(line);
        failures.take_line(line);
    });
    child::wait(&mut running, &cargo)?;
    echoed.context("lost the output of the tests")
}

fn echo(mut output: impl io::BufRead, mut to: impl io::Write, mut heed: impl FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        heed(&String::from_utf8_lossy(&line));
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn failed_step_is_named_and_the_run_goes_on() {
        let mut run = Run::begin();
        run.take("clippy", || Err(anyhow!("a warning"))).expect("no Ctrl-C");
        run.take("formatting", || Ok(())).expect("no Ctrl-C");
        assert_eq!(run.failed, ["clippy"]);
    }

    #[test]
    fn output_that_is_not_utf8_is_streamed_and_still_added_up() {
        let mut summary = Summary::default();
        let output = b"\xff\xfe\ntest result: ok. 1 passed; 0 failed; 2 ignored; 0 measured\n";
        let mut echoed = Vec::new();
        echo(output.as_slice(), &mut echoed, |line| summary.take_line(line)).expect("both are memory");
        assert_eq!(echoed, output);
        assert_eq!(summary.to_string(), "1 passed, 0 failed, 2 skipped");
    }
}
