//! What a person sees of a drill. Figures are shown here, never made here.

use anstream::println;
use anstyle::{AnsiColor, Style};

use super::{Kind, Options, Report, fleet, poison, token};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
/// More failures than these say nothing new.
const FAILURES_SHOWN: usize = 12;

/// Where a drill shows its progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// On standard output.
    Lines,
    /// On standard error: standard output is for JSON.
    Quiet,
}

impl Screen {
    /// The one that leaves standard output to JSON, or the other.
    pub const fn of(json: bool) -> Self {
        if json { Self::Quiet } else { Self::Lines }
    }

    pub(super) fn introduce(self, options: Options) {
        let Options { kind, connections, times, backends, .. } = options;
        if self == Self::Quiet {
            eprintln!("drill: {connections} connections, {backends} backends, {times} times");
            return;
        }
        let what = match kind {
            Kind::Restart => "the controller is killed, or told to end, and started again",
            Kind::Reload => "a thousand backends come and go, and a bad file is refused",
            Kind::Upgrade => "another binary of the controller takes over",
            Kind::Drain => "a backend is drained, and comes back",
            Kind::KillBackend => "a backend dies",
            Kind::Rekey => "the cluster key is changed",
        };
        println!(
            "{BOLD}Drill: {what}{BOLD:#}\n\n\
             {connections} connections (TCP and MPTCP with two subflows, IPv4 and IPv6) are held and used all the time,\n\
             numbered datagrams flow, and more connections are opened at each step. {times} times."
        );
    }

    /// Something that has happened.
    pub(super) fn step(self, what: &str) {
        match self {
            Self::Lines => println!("  {what}"),
            Self::Quiet => eprintln!("drill: {what}"),
        }
    }

    pub(super) fn conclude(self, report: &Report, failures: &[String]) {
        if self == Self::Quiet {
            return;
        }
        println!(
            "\n{} datagrams sent, {} lost. {} connections, {} broken. Joins: {} attempted, {} established, {} misrouted.\n\
             {} controllers and {} programs, one after the other. The longest round of data took {} ms.",
            report.packets_sent,
            report.packets_lost,
            report.connections,
            report.connections_broken,
            report.joins_attempted,
            report.joins_established,
            report.joins_misrouted,
            report.controllers,
            report.programs,
            report.longest_round_ms,
        );
        if report.drill == Kind::KillBackend {
            println!(
                "The killed backend took {} connections and {} datagrams with it.",
                report.broken_of_killed, report.packets_lost_of_killed
            );
        }
        show_failures("Nothing else was lost, and nothing broke.", failures);
    }

    pub(super) fn introduce_fleet(self, options: fleet::Options) {
        let fleet::Options { connections, balancers, backends, rtt, .. } = options;
        if self == Self::Quiet {
            eprintln!("drill: {connections} connections, {balancers} balancers, {backends} backends, {rtt} ms");
            return;
        }
        println!(
            "{BOLD}Drill: a balancer dies, another comes, one is drained, and the bus between them is restarted{BOLD:#}\n\n\
             {connections} MPTCP connections from a client {rtt} ms away, over {balancers} balancers to {backends} backends."
        );
    }

    pub(super) fn conclude_fleet(self, report: &fleet::Report, failures: &[String]) {
        if self == Self::Quiet {
            return;
        }
        let by_balancer: Vec<_> = report.by_balancer.iter().map(|(name, joins)| format!("{name} {joins}")).collect();
        println!(
            "\n{} connections, {} broken. Joins: {} attempted, {} established, {} misrouted; {} late.\n\
             {} of them came through another balancer than their first subflow; by balancer: {}.\n\
             {} joined flows broke.",
            report.connections,
            report.connections_broken,
            report.joins_attempted,
            report.joins_established,
            report.joins_misrouted,
            report.joins_late,
            report.joins_through_another,
            by_balancer.join(", "),
            report.joined_flows_broken,
        );
        show_failures("Every join found its connection, and nothing broke.", failures);
    }

    pub(super) fn introduce_token(self, kind: token::Kind, options: token::Options) {
        let token::Options { connections, rtt, backends, .. } = options;
        if self == Self::Quiet {
            eprintln!("drill: {connections} connections, {backends} backends, {rtt} ms");
            return;
        }
        let what = match kind {
            token::Kind::TokenBurst => "all connections are joined at once",
            token::Kind::Rotate => "the secret of tokens is rotated",
            token::Kind::AgentKill => "the agents are killed, and started again",
            token::Kind::Tokens => "whose backend the tokens of very many connections name",
        };
        println!(
            "{BOLD}Drill: {what}{BOLD:#}\n\n\
             {connections} MPTCP connections from a client {rtt} ms away, over two balancers that tell each other nothing, to\n\
             {backends} backends whose agents choose the tokens."
        );
    }

    pub(super) fn conclude_token(self, report: &token::Report, failures: &[String]) {
        if self == Self::Quiet {
            return;
        }
        println!(
            "\n{} connections, {} broken, {} plain TCP. Joins: {} attempted, {} established, {} misrouted.\n\
             {} tokens of {} epochs were looked at, {} name another backend; {} are in tables.",
            report.connections,
            report.connections_broken,
            report.plain,
            report.joins_attempted,
            report.joins_established,
            report.joins_misrouted,
            report.tokens,
            report.epochs,
            report.tokens_foreign,
            report.tokens_in_tables,
        );
        show_failures("Every join found its connection, by its token alone.", failures);
    }

    pub(super) fn introduce_poison(self, options: poison::Options) {
        let poison::Options { connections, forged, backends, .. } = options;
        if self == Self::Quiet {
            eprintln!("drill: {connections} connections, {forged} forged handshakes, {backends} backends");
            return;
        }
        println!(
            "{BOLD}Drill: somebody forges handshakes, to take over the joins of others{BOLD:#}\n\n\
             {connections} MPTCP connections over two balancers to {backends} backends; {forged} forged handshakes."
        );
    }

    pub(super) fn conclude_poison(self, report: &poison::Report, failures: &[String]) {
        if self == Self::Quiet {
            return;
        }
        let counted: Vec<_> = report.counted.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let [before, after] = report.tokens;
        println!(
            "\n{} connections, {} broken. Joins after all that: {} attempted, {} established, {} misrouted.\n\
             Tokens in the table of a balancer: {before} before, {after} after. Third packets that taught nothing, or what\n\
             is ambiguous: {}.",
            report.connections,
            report.connections_broken,
            report.joins_attempted,
            report.joins_established,
            report.joins_misrouted,
            counted.join(", "),
        );
        show_failures("No join came to a wrong backend, and what was lost is bounded and counted.", failures);
    }
}

fn show_failures(none: &str, failures: &[String]) {
    if failures.is_empty() {
        println!("{GOOD}{none}{GOOD:#}");
        return;
    }
    println!("{BAD}What should not have been:{BAD:#}");
    for failure in failures.iter().take(FAILURES_SHOWN) {
        println!("  {failure}");
    }
}
