//! The report as one HTML file that needs nothing else: no script, no font, no network.

use std::{fmt::Write as _, fs, path::Path};

use super::{
    Machine, Report, Run, Totals, plot,
    report::{Asked, Latency, Verdict},
};
use crate::{LabError, screen::thousands};

const STYLE: &str = include_str!("report.css");
/// Percentiles in the table.
const SHOWN: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 100.0];

impl Report {
    /// Writes the page, and the directory that it goes to if there is none.
    ///
    /// # Errors
    ///
    /// If it cannot be drawn or written.
    pub fn write_page(&self, file: &Path) -> Result<(), LabError> {
        write(file, &self.page()?)
    }

    /// The page.
    ///
    /// # Errors
    ///
    /// If a plot cannot be drawn.
    pub fn page(&self) -> Result<String, LabError> {
        let runs = self.runs.iter().map(run_section).collect::<Result<Vec<_>, _>>()?;
        let content = [self.verdict_cards(), runs_table(&self.runs), runs.concat()].concat();
        Ok(page("Weir under load", &self.lead(), &content))
    }

    /// What was run, and where.
    fn lead(&self) -> String {
        let Asked { connections, subflows, duration_s, backends, churn_s, seed } = self.asked;
        let pool =
            if churn_s == 0 { "that does not change".to_owned() } else { format!("that changes every {churn_s} s") };
        format!(
            "<p>{connections} connections at a time with {subflows} subflows each, for {duration_s} s a run, to nginx on \
             {backends} backends in a pool {pool}; seed {seed}. Client and servers use the kernel's own MPTCP; joins are \
             counted by the kernels of both ends, and every body's SHA-256 is checked.</p>{}",
            machine_line(&self.machine)
        )
    }

    /// The figures that decide, large.
    fn verdict_cards(&self) -> String {
        let totals = &self.totals;
        let [misrouted, corrupted, moved] = self.verdicts().map(|Verdict(count, _)| count);
        let of_joins = format!("of {} joins established", thousands(totals.joins_attempted));
        let of_transfers = format!("of {} transfers corrupted", thousands(totals.transfers));
        let of_datagrams = format!("of {} datagrams moved", thousands(totals.datagrams));
        let of_connections = format!("of {} connections failed", thousands(totals.connections()));
        let cards = [
            card(&per_cent(totals.joins_established, totals.joins_attempted), &of_joins, totals.joins_suffice()),
            card(&thousands(misrouted), "joins misrouted", misrouted == 0),
            card(&thousands(corrupted), &of_transfers, corrupted == 0),
            card(&thousands(totals.connections_failed), &of_connections, totals.connections_suffice()),
            card(&thousands(moved), &of_datagrams, moved == 0),
        ];
        format!("<div class=\"cards\">{}</div>\n", cards.concat())
    }
}

/// A whole page: what it is about, and what it shows.
pub(crate) fn page(title: &str, lead: &str, content: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>{title}</h1>{lead}</header>\n{content}</body>\n</html>\n"
    )
}

/// Writes a page, and the directory that it goes to if there is none.
pub(crate) fn write(file: &Path, page: &str) -> Result<(), LabError> {
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::create_dir_all(directory).map_err(LabError::file("create", directory))?;
    }
    fs::write(file, page).map_err(LabError::file("write", file))
}

/// Where it ran.
pub(crate) fn machine_line(machine: &Machine) -> String {
    let Machine { kernel, processor, processors, memory_mib } = machine;
    format!(
        "<p class=\"machine\">Linux {} · {processors} × {} · {} MiB</p>",
        escaped(kernel),
        escaped(processor),
        thousands(*memory_mib)
    )
}

pub(crate) fn card(figure: &str, what: &str, is_good: bool) -> String {
    let (class, verdict) = if is_good { ("good", "as wanted") } else { ("bad", "not as wanted") };
    format!("<div class=\"card {class}\"><b>{figure}</b><span>{what}</span><i>{verdict}</i></div>")
}

/// Everything in figures.
fn runs_table(runs: &[Run]) -> String {
    let header = [
        "run",
        "MPTCP",
        "TCP",
        "UDP",
        "failed",
        "plain",
        "joins",
        "established",
        "unfinished",
        "refused",
        "misrouted",
        "transfers",
        "corrupted",
        "MB",
        "datagrams",
        "lost",
        "lost by full queues",
    ];
    let rows = runs.iter().map(|run| {
        let Totals {
            joins_attempted,
            joins_established,
            joins_misrouted,
            joins_refused,
            joins_unfinished,
            connections_mptcp,
            connections_tcp,
            flows_udp,
            connections_failed,
            connections_plain,
            transfers,
            corrupted,
            bytes,
            datagrams,
            datagrams_lost,
            packets_dropped,
            ..
        } = run.totals;
        let figures = [
            connections_mptcp,
            connections_tcp,
            flows_udp,
            connections_failed,
            connections_plain,
            joins_attempted,
            joins_established,
            joins_unfinished,
            joins_refused,
            joins_misrouted,
            transfers,
            corrupted,
            bytes / 1_000_000,
            datagrams,
            datagrams_lost,
            packets_dropped,
        ];
        row(&run.title(), figures.map(thousands).iter())
    });
    table("All runs", &header, &rows.collect::<String>())
}

fn run_section(run: &Run) -> Result<String, LabError> {
    let plots = [
        plot::latencies(run)?,
        plot::joins(run)?,
        plot::rates(run)?,
        plot::throughput(run)?,
        plot::load(run)?,
        plot::cpu(run)?,
    ];
    Ok(format!(
        "<section><h2>{}</h2><p>{:.0} s, ways = {}, the client's round trip {} ms.{}</p><div class=\"plots\">{}</div>\
         <div class=\"tables\">{}{}{}</div>{}</section>\n",
        run.title(),
        run.took_s,
        run.way,
        run.rtt_ms,
        changes(run),
        plots.concat(),
        latency_table(&run.latencies),
        backend_table(run),
        reason_table(run),
        failures(run)
    ))
}

fn changes(run: &Run) -> String {
    if run.changes.is_empty() {
        return " The pool did not change.".to_owned();
    }
    let told: Vec<String> =
        run.changes.iter().map(|change| format!("{:.0} s: {}", change.at_s, escaped(&change.what))).collect();
    format!(" The pool changed {} times: {}.", run.changes.len(), told.join("; "))
}

fn latency_table(latencies: &[Latency]) -> String {
    let header = ["milliseconds", "count", "p50", "p90", "p99", "p99.9", "most"];
    let rows = latencies.iter().map(|latency| {
        let figures = SHOWN.map(|percent| format!("{:.1}", latency.ms(percent)));
        row(latency.of, [thousands(latency.count)].iter().chain(&figures))
    });
    table("Latency", &header, &rows.collect::<String>())
}

fn backend_table(run: &Run) -> String {
    let header = ["backend", "connections", "by weight", "joins", "misrouted", "packets sent to it"];
    let rows = run.backends.iter().map(|load| {
        let figures = [
            thousands(load.connections),
            format!("{:.0}", load.connections_expected),
            thousands(load.joins_established),
            thousands(load.joins_misrouted),
            thousands(load.packets),
        ];
        row(&load.name, figures.iter())
    });
    table("Backends", &header, &rows.collect::<String>())
}

fn reason_table(run: &Run) -> String {
    let rows = run.reasons.iter().map(|(reason, count)| row(reason, [thousands(*count)].iter()));
    table("Packets by reason", &["what the middle says", "packets"], &rows.collect::<String>())
}

fn failures(run: &Run) -> String {
    if run.failures.is_empty() {
        return String::new();
    }
    let items = run.failures.iter().map(|failure| format!("<li>{}</li>", escaped(failure)));
    format!("<h3>Failures</h3><ul class=\"failures\">{}</ul>", items.collect::<String>())
}

pub(crate) fn table(title: &str, header: &[&str], rows: &str) -> String {
    let header = header.join("</th><th>");
    format!(
        "<div class=\"table\"><h3>{title}</h3><table><thead><tr><th>{header}</th></tr></thead><tbody>{rows}</tbody></table></div>\n"
    )
}

pub(crate) fn row<'a>(name: &str, figures: impl Iterator<Item = &'a String>) -> String {
    let mut row = format!("<tr><th>{}</th>", escaped(name));
    for figure in figures {
        let _ = write!(row, "<td>{figure}</td>");
    }
    row + "</tr>"
}

/// Rounded down: all but one is not all.
fn per_cent(part: u64, whole: u64) -> String {
    let thousandths = (part * 100_000).checked_div(whole).unwrap_or(0);
    format!("{}.{:03} %", thousandths / 1000, thousandths % 1000)
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
