//! The figures in tables: the same ones for the screen and for the page.

use super::{Report, Standing, screen::ratio};
use crate::{load::html, screen};

/// A table: a row for each in the middle, whose name comes first.
pub(super) struct Table {
    title: &'static str,
    header: Vec<&'static str>,
    rows: Vec<(&'static str, Vec<String>)>,
}

impl Table {
    /// All of a report.
    pub(super) fn all(report: &Report) -> [Self; 3] {
        [Self::transfers(report), Self::requests(report), Self::joins(report)]
    }

    pub(super) fn on_page(&self) -> String {
        let mut header = vec![""];
        header.extend(&self.header);
        let rows: String = self.rows.iter().map(|(name, figures)| html::row(name, figures.iter())).collect();
        html::table(self.title, &header, &rows)
    }

    /// For a terminal: its title is the head of the first column.
    pub(super) fn on_screen(&self) -> comfy_table::Table {
        let mut header = vec![self.title];
        header.extend(&self.header);
        let mut table = screen::table(&header);
        for (name, figures) in &self.rows {
            table.add_row([*name].into_iter().chain(figures.iter().map(String::as_str)));
        }
        table
    }

    fn transfers(report: &Report) -> Self {
        let header = vec!["MB/s", "of Weir's", "CPU s/GB", "softirq", "middle", "client", "servers", "of Weir's"];
        let row = |Standing { name, figures, of_weir, .. }: &Standing| {
            let cpu = figures.cpu_s_per_gb;
            let seconds = [cpu.machine, cpu.softirq, cpu.middle, cpu.client, cpu.servers].map(|s| format!("{s:.2}"));
            let [first, last] = [of_weir.map(|of| of.mb_per_s), of_weir.map(|of| of.cpu_s_per_gb)].map(ratio);
            let figures = [format!("{:.0}", figures.mb_per_s), first].into_iter().chain(seconds).chain([last]);
            (*name, figures.collect())
        };
        Self { title: "long transfers", header, rows: report.standings.iter().map(row).collect() }
    }

    fn requests(report: &Report) -> Self {
        let header = vec![
            "a second",
            "of Weir's",
            "CPU s/1000",
            "softirq",
            "middle",
            "p50 ms",
            "p99 ms",
            "added p50",
            "added p99",
        ];
        let row = |Standing { name, figures, of_weir, added, .. }: &Standing| {
            let cpu = figures.cpu_s_per_1000;
            let added = [added.map(|added| added.ms_p50), added.map(|added| added.ms_p99)]
                .map(|ms| ms.map_or_else(String::new, |ms| format!("{ms:+.3}")));
            let seconds = [cpu.machine, cpu.softirq, cpu.middle].map(|seconds| format!("{seconds:.2}"));
            let times = [figures.request_ms_p50, figures.request_ms_p99].map(|ms| format!("{ms:.3}"));
            let rate = [format!("{:.0}", figures.connections_per_s), ratio(of_weir.map(|of| of.connections_per_s))];
            (*name, rate.into_iter().chain(seconds).chain(times).chain(added).collect())
        };
        Self { title: "short connections", header, rows: report.standings.iter().map(row).collect() }
    }

    fn joins(report: &Report) -> Self {
        let header = vec!["attempted", "at backends", "in the middle", "misrouted", "refused", "lost"];
        let row = |Standing { name, joins, .. }: &Standing| {
            let joins = (*joins)?;
            let counts =
                [joins.attempted, joins.at_backends, joins.at_middle, joins.misrouted, joins.refused, joins.lost];
            Some((*name, counts.map(screen::thousands).to_vec()))
        };
        Self { title: "joins", header, rows: report.standings.iter().filter_map(row).collect() }
    }
}
