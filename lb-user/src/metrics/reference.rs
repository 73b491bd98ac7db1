//! The reference of the metrics, for people: one page, made of what the code says of itself.

use super::{
    agent,
    families::{FAMILIES, Family, Kind},
};
use std::fmt::Write as _;

const HEAD: &str = "\
# Metrics

`weir run` serves these at `/metrics` of the address that `[metrics] listen` names, in Prometheus's text format. Labels hold
names of the configuration and fixed words, never anything of a client. A scrape reads the counters of the
VIPs and backends that are configured and no table of flows: it costs the same with ten flows and a million. What the label
`reason` says, and which joins `way` and `outcome` count, is in [reasons.md](reasons.md).

This page is generated: `cargo xtask docs`.

";

/// The page, in Markdown.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    table(&mut page, FAMILIES);
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
