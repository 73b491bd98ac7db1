//! The reference of the metrics, for people: one page, made of what the code says of itself.

use super::{
    agent,
    families::{FAMILIES, Family, Kind},
};
use crate::joins;
use lb_common::reason::{Action, Reason};
use std::fmt::Write as _;

const HEAD: &str = "\
# Metrics

`weir run` serves these at `/metrics` of the address that `[metrics] listen` names, in Prometheus's text format. Labels hold
names of the configuration and words of the tables below, never anything of a client. A scrape reads the counters of the
VIPs and backends that are configured and no table of flows: it costs the same with ten flows and a million.

This page is generated: `cargo xtask docs`.

";

/// The page, in Markdown.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    table(&mut page, FAMILIES);
    page.push_str(
        "\n## Reasons\n\nEvery packet has exactly one: `reason` of `weir_packets_total` and `weir_bytes_total`.\n",
    );
    for (action, words) in [
        (Action::Forward, "Sent to a backend"),
        (Action::Reply, "Answered by Weir"),
        (Action::Drop, "Dropped"),
        (Action::Pass, "Left to the host"),
    ] {
        let _ = writeln!(page, "\n### {words}\n\n| reason | meaning |\n| --- | --- |");
        for reason in Reason::ALL.iter().filter(|reason| reason.action() == action) {
            let _ = writeln!(page, "| `{}` | {} |", reason.as_str(), reason.explanation().trim());
        }
    }
    page.push_str("\n## Joins\n\n`way` and `outcome` of `weir_joins_total`, and the reason that they stand for.\n\n");
    page.push_str("| way | outcome | reason |\n| --- | --- | --- |\n");
    for (reason, join) in Reason::ALL.iter().filter_map(|&reason| Some((reason, joins::of(reason)?))) {
        let _ = writeln!(page, "| `{}` | `{}` | `{}` |", join.way, join.outcome, reason.as_str());
    }
    page.push_str(
        "\n## Agent\n\n`weir agent` serves these on a backend, where its own `[metrics] listen` names an address; and, if it has \
         a `[bus]`, the `weir_bus_` families above, but for the events.\n\n",
    );
    table(&mut page, agent::FAMILIES);
    page
}

fn table(page: &mut String, families: &[Family]) {
    page.push_str("| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
    for family in families {
        let kind = match family.kind {
            Kind::Counter | Kind::Time => "counter",
            Kind::Gauge => "gauge",
        };
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{}` | {kind} | {} | {} |", family.name, labels.join(", "), family.help);
    }
}
