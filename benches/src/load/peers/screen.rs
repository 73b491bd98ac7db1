//! What a person sees while it runs, and at the end. Figures are shown here, never made here.

use std::path::Path;

use anstream::println;
use anstyle::{AnsiColor, Style};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Figures, LeftOut, Options, Peer, Report, report::OF_STUB_MIN, tables::Table};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const BAR: &str = "{bar:28.green/dim} {elapsed:>4} {msg}";

/// Where the run shows its figures. The progress bar is on standard error, if that is a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// Tables on standard output.
    Table,
    /// Lines on standard error: standard output is for JSON.
    Quiet,
}

impl Screen {
    /// The one for `--json`, or the other.
    pub const fn of(json: bool) -> Self {
        if json { Self::Quiet } else { Self::Table }
    }

    pub(super) fn introduce(self, options: &Options) {
        let Options { rounds, connections, megabytes, requests, .. } = options;
        if self == Self::Table {
            println!(
                "{BOLD}Weir and its peers{BOLD:#}\n\n\
                 Each in turn with Weir, {}: {megabytes} MB over {connections} MPTCP connections, then {requests} connections with a\n\
                 request each, then requests one after the other; all to the same server on one backend.\n",
                times(*rounds)
            );
        }
    }

    pub(super) fn begin(self, options: &Options, contenders: usize) -> Progress {
        let steps = u64::from(options.rounds) * 2 * (contenders.saturating_sub(1) as u64);
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("━━─"));
        }
        Progress { screen: self, bar }
    }

    /// Shows the figures, and where the page is.
    pub fn conclude(self, report: &Report, page: &Path) {
        if self == Self::Quiet {
            return;
        }
        println!(
            "Medians. CPU is all that the machine did, whoever asked for it; of that the softirqs, in which packets are forwarded, and\n\
             the processes in the middle. Joins are as the kernels of client, middle and backends have counted them.\n"
        );
        for table in Table::all(report) {
            println!("{}\n", table.on_screen());
        }
        if let Some(part) = report.throughput_of_stub {
            let style = if part >= OF_STUB_MIN { GOOD } else { BAD };
            println!(
                "{style}Through Weir comes {part:.3} of what comes through bare XDP programs on the same hops.{style:#}"
            );
        }
        for objection in report.objections() {
            println!("{BAD}{objection}{BAD:#}");
        }
        println!("The report is {}", page.display());
    }
}

/// Says at once who is not measured, and why.
pub(super) fn leave_out(LeftOut { peer, why }: &LeftOut) {
    eprintln!("load: {peer} is left out: {why}");
}

/// How often.
pub(super) fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// A peer's figure by Weir's; nothing for Weir.
pub(super) fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
}

/// The bar of the rounds.
pub(super) struct Progress {
    screen: Screen,
    bar: ProgressBar,
}

impl Progress {
    pub(super) fn tick(&self, peer: Option<Peer>, figures: Figures) {
        let name = peer.map_or("weir", Peer::name);
        let said = format!(
            "{name}: {:.0} MB/s, {:.0} connections/s, {:.3} ms",
            figures.mb_per_s, figures.connections_per_s, figures.request_ms_p50
        );
        if self.screen == Screen::Quiet {
            eprintln!("load: {said}");
        }
        self.bar.inc(1);
        self.bar.set_message(said);
    }

    pub(super) fn end(self) {
        self.bar.finish_and_clear();
    }
}
