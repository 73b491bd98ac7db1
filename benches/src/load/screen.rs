//! What a person sees while it runs, and at the end. Figures are shown here, never made here.

use std::{path::Path, time::Duration};

use anstream::println;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Options, Report, Run, Sample, Scenario, Totals, Way, tally::Tally};
use crate::screen::{table, thousands};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
/// More objections than these say nothing new.
const OBJECTIONS_SHOWN: usize = 12;
const BAR: &str = "{prefix:<22} {bar:28.green/dim} {elapsed:>4} {msg}";

/// Where the run shows its figures. Progress bars are on standard error, if that is a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// A table on standard output.
    Table,
    /// A line a run on standard error: standard output is for JSON.
    Quiet,
}

impl Screen {
    /// The one for `--json`, or the other.
    pub const fn of(json: bool) -> Self {
        if json { Self::Quiet } else { Self::Table }
    }

    pub(super) fn introduce(self, options: &Options) {
        let Options { connections, subflows, duration, backends, churn, seed, .. } = options;
        if self == Self::Quiet {
            eprintln!(
                "load: {connections} connections at a time, {subflows} subflows, {backends} backends, seed {seed}"
            );
            return;
        }
        let pool = match churn {
            0 => "a pool".to_owned(),
            1 => "a pool that changes every second".to_owned(),
            seconds => format!("a pool that changes every {seconds} s"),
        };
        println!(
            "{BOLD}Load{BOLD:#}\n\n\
             {connections} connections at a time, with {subflows} subflows each, for {duration} s a run, to nginx on {backends} backends in\n\
             {pool} (seed {seed}). Joins are counted by the kernels of both ends, and every body is hashed.\n"
        );
    }

    pub(super) fn sets_up(self, way: Way, rtt_ms: u64) {
        if self == Self::Quiet {
            eprintln!("load: setting up {way}, {rtt_ms} ms");
        } else {
            println!("{DIM}setting up: ways = {way}, {rtt_ms} ms{DIM:#}");
        }
    }

    pub(super) fn begin(self, scenario: Scenario, way: Way, rtt_ms: u64, duration_s: u64) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(1000 * duration_s), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("━━─"));
        }
        bar.set_prefix(format!("{} · {way} · {rtt_ms} ms", scenario.name()));
        Progress { screen: self, bar }
    }

    /// Shows the figures, and where the page is.
    pub fn conclude(self, report: &Report, page: &Path) {
        if self == Self::Quiet {
            return;
        }
        println!("\n{}", figures(report));
        let objections = report.objections();
        if objections.is_empty() {
            let Totals { joins_attempted, joins_established, transfers, .. } = report.totals;
            println!(
                "{GOOD}No join was misrouted, {} of {} were established, and all {} transfers are what they should be.{GOOD:#}",
                thousands(joins_established),
                thousands(joins_attempted),
                thousands(transfers)
            );
        } else {
            println!("{BAD}Not all is as it should be:{BAD:#}");
        }
        for objection in objections.iter().take(OBJECTIONS_SHOWN) {
            println!("  {objection}");
        }
        println!("The report is {}", page.display());
    }
}

fn figures(report: &Report) -> comfy_table::Table {
    let mut table = table(&[
        "run",
        "connections",
        "failed",
        "joins",
        "established",
        "misrouted",
        "transfers",
        "corrupted",
        "MB",
        "p50 ms",
        "p99 ms",
    ]);
    let runs = report.runs.iter().map(|run| (run.title(), &run.totals, run.latencies.get(1)));
    for (title, totals, latency) in runs.chain([("together".to_owned(), &report.totals, None)]) {
        let at = |percent| latency.map_or_else(String::new, |latency| format!("{:.1}", latency.ms(percent)));
        table.add_row([
            title,
            thousands(totals.connections()),
            thousands(totals.connections_failed),
            thousands(totals.joins_attempted),
            thousands(totals.joins_established),
            thousands(totals.joins_misrouted),
            thousands(totals.transfers),
            thousands(totals.corrupted),
            thousands(totals.bytes / 1_000_000),
            at(50.0),
            at(99.0),
        ]);
    }
    table
}

/// The bar of a run.
pub(super) struct Progress {
    screen: Screen,
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn tick(&self, elapsed: Duration, sample: &Sample, tally: &Tally) {
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        let (transfers, failed) = {
            let counts = tally.counts();
            (counts.transfers, counts.failed + counts.corrupted)
        };
        self.bar.set_message(format!(
            "{} open, {:.0} joins/s, {:.0} Mbit/s, {} transfers, {failed} failed",
            sample.open,
            sample.joins_established_per_s,
            sample.mbit_per_s,
            thousands(transfers)
        ));
    }

    pub(super) fn end(self, run: &Run) {
        self.bar.finish_and_clear();
        let Totals { joins_attempted, joins_established, joins_misrouted, transfers, corrupted, .. } = run.totals;
        if self.screen == Screen::Quiet {
            eprintln!(
                "load: {}: {joins_established} of {joins_attempted} joins, {joins_misrouted} misrouted, {transfers} transfers, {corrupted} corrupted",
                run.title()
            );
        }
    }
}
