//! What a person sees of the churn. Figures are shown here, never made here.

use anstream::println;
use anstyle::{AnsiColor, Style};

use super::{Options, Report};
use crate::weir::WeirStatus;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
/// More failures than these say nothing new.
const FAILURES_SHOWN: usize = 12;

/// Where the run shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// A table on standard output.
    Table,
    /// A line a change on standard error: standard output is for JSON.
    Quiet,
}

/// A change and what it did, once the next is due.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) change: String,
    pub(super) slots_changed: usize,
    pub(super) status: WeirStatus,
    pub(super) held: usize,
    pub(super) broken: usize,
    /// New connections by backend.
    pub(super) distribution: Vec<(String, usize)>,
}

impl Screen {
    pub(super) fn introduce(self, options: Options) {
        let Options { connections, changes, backends, seed, transition_s } = options;
        if self == Self::Quiet {
            eprintln!("churn: {connections} connections, {changes} changes, {backends} backends, seed {seed}");
            return;
        }
        println!(
            "{BOLD}Churn{BOLD:#}\n\n\
             {connections} connections (TCP and MPTCP with two subflows, IPv4 and IPv6) are held open while a pool\n\
             of up to {backends} backends changes {changes} times (seed {seed}). A slot whose owner changes is in\n\
             transition for {transition_s} s, so that windows open, overlap, pin and settle. Only the connections of\n\
             a backend that is killed may break. Entries are as of Weir's last sweep."
        );
    }

    pub(super) fn begin(self, report: &Report, flows: usize) {
        if self == Self::Quiet {
            eprintln!("churn: {} connections are open, {flows} flows", report.connections);
            return;
        }
        println!(
            "\n{} connections are open, {flows} flows.\n\n{DIM}{:>3}  {:<18} {:>7} {:>10} {:>6} {:>6} {:>6} {:>6} {:>6}  new connections{DIM:#}",
            report.connections, "#", "change", "slots", "transition", "moved", "pinned", "joined", "held", "broken"
        );
    }

    pub(super) fn change(self, number: usize, row: &Row) {
        let Row { change, slots_changed, status, held, broken, distribution } = row;
        if self == Self::Quiet {
            eprintln!("churn: {number}: {change}, {slots_changed} slots, {held} connections held, {broken} broken");
            return;
        }
        let WeirStatus { slots_in_transition, moved_flows, pinned_flows, joined_flows, .. } = status;
        let colour = if *broken == 0 { GOOD } else { BAD };
        let new: Vec<String> = distribution.iter().map(|(backend, count)| format!("{backend} {count}")).collect();
        println!(
            "{number:>3}  {change:<18} {slots_changed:>7} {slots_in_transition:>10} {moved_flows:>6} {pinned_flows:>6} \
             {joined_flows:>6} {held:>6} {colour}{broken:>6}{colour:#}  {}",
            new.join("  ")
        );
    }

    pub(super) fn conclude(self, report: &Report, failures: &[String]) {
        if self == Self::Quiet {
            return;
        }
        println!(
            "\n{} connections, {} changes, {} slots changed. Joins: {} attempted, {} established, {} misrouted.\n\
             The longest round of data took {} ms.",
            report.connections,
            report.changes,
            report.slots_changed,
            report.joins_attempted,
            report.joins_established,
            report.joins_misrouted,
            report.longest_round_ms
        );
        let of_killed = report.broken_of_killed;
        if failures.is_empty() {
            println!("{GOOD}No connection broke but the {of_killed} of killed backends.{GOOD:#}");
            return;
        }
        let broken = report.broken;
        println!("{BAD}{broken} connections broke{BAD:#} beside the {of_killed} of killed backends:");
        for failure in failures.iter().take(FAILURES_SHOWN) {
            println!("  {failure}");
        }
    }
}
