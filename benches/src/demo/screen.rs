//! What a person sees of the demonstration. Figures are shown here, never made here.

use anstream::println;
use anstyle::{AnsiColor, Style};
use comfy_table::Table;

use crate::{LabError, screen::table, weir::Join};

use super::{Demo, Options, Phase, connections::Outcome};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// Where the demonstration shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// Tables on standard output.
    Tables,
    /// A line a run on standard error: standard output is for JSON.
    Quiet,
}

impl Screen {
    pub(super) fn introduce(self, options: Options) {
        if self == Self::Quiet {
            return;
        }
        println!(
            "{BOLD}Weir's demonstration{BOLD:#}\n\n\
             A client with two addresses opens {} MPTCP connections to one service, which has {}\n\
             backends behind a balancer. Each connection begins on path 1. Then the client's kernel\n\
             joins further subflows to it: from path 2 and, for some, over IPv6. A join is of use\n\
             only at the backend that has the connection; any other resets it, and the client never\n\
             tries again. Where each subflow is was asked of the backends' kernels (ss, nstat).",
            options.connections, options.backends,
        );
    }

    pub(super) fn begin(self, join: Join, options: Options) {
        let (title, meaning) = match join {
            Join::Off => ("join = \"off\"", "every packet hashed, as a balancer does that knows nothing of MPTCP"),
            Join::Learn => ("join = [\"learn\"]", "Weir learns each connection's token and sends its joins after it"),
            Join::Report => ("join = [\"report\"]", "the backends' agents tell Weir the tokens"),
            Join::Endpoint => {
                ("join = [\"endpoint\"]", "each backend tells its clients a port of its own to join it at")
            }
            Join::Token => ("join = [\"token\"]", "the backends' agents choose tokens that name their backend"),
        };
        match self {
            Self::Tables => println!("\n{BOLD}{title}{BOLD:#}  {DIM}{meaning}{DIM:#}"),
            Self::Quiet => eprintln!("{title}: {} connections", options.connections),
        }
    }

    pub(super) fn ready(self) {
        if self == Self::Quiet {
            return;
        }
        println!("{DIM}{:>4}  {:<24} {:<14} {:<9} joins{DIM:#}", "#", "client", "first subflow", "subflows");
    }

    pub(super) fn connection(self, number: usize, outcome: &Outcome) {
        if self == Self::Quiet {
            return;
        }
        let joins = outcome.joins.iter().map(|(way, at)| match at {
            Some(backend) => format!("{way} {GOOD}→ {backend} ✓{GOOD:#}"),
            None => format!("{way} {BAD}✗{BAD:#}"),
        });
        let joins = joins.collect::<Vec<_>>().join("   ");
        let reset = match outcome.strangers.as_slice() {
            [] => String::new(),
            strangers => format!("   {BAD}reset by {}{BAD:#}", strangers.join(" and ")),
        };
        let first = format!("{} → {}", outcome.connection.mix.family(), outcome.owner);
        let subflows = format!("{} of {}", outcome.subflows(), outcome.subflows_wanted());
        println!("{number:>4}  {:<24} {first:<14} {subflows:<9} {joins}{reset}", outcome.connection.client.to_string());
    }

    pub(super) fn failed_connection(self, number: usize, error: &LabError) {
        match self {
            Self::Tables => println!("{number:>4}  {BAD}failed: {error}{BAD:#}"),
            Self::Quiet => eprintln!("connection {number} failed: {error}"),
        }
    }

    pub(super) fn conclude(self, demo: &Demo) {
        if self == Self::Quiet {
            return;
        }
        println!("\n{BOLD}The two runs, by the kernels' counters{BOLD:#}\n{}", comparison(demo));
        println!(
            "\n{BOLD}join = [\"learn\"], the backends' kernels beside Weir's own counters{BOLD:#}\n{}",
            by_backend(&demo.learn)
        );
        println!("\n{BOLD}What Weir did with the packets, by its own counters{BOLD:#}\n{}", by_reason(demo));
        println!("\n{}", verdict(demo));
    }
}

fn comparison(demo: &Demo) -> Table {
    let mut table = table(&["", "join = \"off\"", "join = [\"learn\"]"]);
    let mut row = |name: &str, figure: fn(&Phase) -> u64| {
        let figures = [&demo.blind, &demo.learn].map(|phase| figure(phase).to_string());
        table.add_row([name.to_owned()].into_iter().chain(figures));
    };
    row("connections that worked", |phase| phase.connections as u64);
    row("joins attempted (client)", |phase| phase.joins.attempted);
    row("joins established (backends)", |phase| phase.joins.established());
    row("joins misrouted, reset for good", |phase| phase.joins.misrouted());
    row("joins refused by their own backend", |phase| phase.joins.refused());
    row("joins that never arrived", |phase| phase.joins.lost());
    table
}

fn by_backend(phase: &Phase) -> Table {
    let mut table = table(&["backend", "connections", "joins established", "joins misrouted", "Weir: packets sent"]);
    for ((name, accepted), joins) in phase.accepted.iter().zip(&phase.joins.backends) {
        let packets = phase.weir_total("weir_backend_packets_total", "backend", name);
        table.add_row([
            name.clone(),
            accepted.to_string(),
            joins.established.to_string(),
            joins.misrouted.to_string(),
            packets.to_string(),
        ]);
    }
    table
}

fn by_reason(demo: &Demo) -> Table {
    let mut table = table(&["reason", "join = \"off\"", "join = [\"learn\"]"]);
    let mut reasons: Vec<&str> = [&demo.blind, &demo.learn]
        .into_iter()
        .flat_map(|phase| &phase.weir)
        .filter(|sample| sample.name == "weir_packets_total" && sample.value > 0.0)
        .filter_map(|sample| sample.label("reason"))
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let packets = [&demo.blind, &demo.learn]
            .map(|phase| phase.weir_total("weir_packets_total", "reason", reason).to_string());
        table.add_row([reason.to_owned()].into_iter().chain(packets));
    }
    table
}

fn verdict(demo: &Demo) -> String {
    let (blind, learn) = (demo.blind.figures(), demo.learn.figures());
    let without = format!(
        "Without MPTCP awareness {} of {} joins were lost",
        blind.joins_attempted - blind.joins_established,
        blind.joins_attempted
    );
    let failures = demo.failures();
    if failures.is_empty() {
        return format!(
            "{without}; {GOOD}Weir brought all {} to their connection's backend.{GOOD:#}",
            learn.joins_attempted
        );
    }
    format!("{without}. {BAD}Weir did not keep its promise:{BAD:#} {}", failures.join("; "))
}
