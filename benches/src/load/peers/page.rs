//! The report as one HTML file that needs nothing else.

use std::path::Path;

use super::{
    Report, Standing,
    report::OF_STUB_MIN,
    screen::{ratio, times},
};
use crate::{
    LabError,
    load::{
        html::{card, escaped, machine_line, page, row, table, write},
        plot,
    },
    screen::thousands,
};

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
        let bars = |title, unit, of: &dyn Fn(&Standing) -> f64| {
            let bars: Vec<_> = self.standings.iter().map(|standing| (standing.name, of(standing))).collect();
            plot::bars(title, unit, &bars)
        };
        let plots = [
            bars("Long transfers", "MB/s", &|standing| standing.figures.mb_per_s)?,
            bars("CPU of the machine, long transfers", "seconds a GB", &|standing| {
                standing.figures.cpu_s_per_gb.machine
            })?,
            bars("Short connections", "a second", &|standing| standing.figures.connections_per_s)?,
            bars("A small request, median", "ms", &|standing| standing.figures.request_ms_p50)?,
        ];
        let tables = [self.transfer_table(), self.request_table(), self.join_table()];
        let content = format!(
            "{}<section><h2>Medians</h2><div class=\"plots\">{}</div>{}{}</section>\n",
            self.cards(),
            plots.concat(),
            tables.concat(),
            self.remarks()
        );
        Ok(page("Weir and its peers", &self.lead(), &content))
    }

    /// What was run, and where.
    fn lead(&self) -> String {
        let asked = &self.asked;
        format!(
            "<p>Each in turn with Weir, {}, in one lab, from the same client to the same server on one backend: {} MB \
             over {} MPTCP connections of two subflows, then {} connections with a request each, then requests one after the \
             other. Joins: {} connections, {} backends. Every body's SHA-256 is checked.</p>\
             <p>CPU is all that the machine did, whoever asked for it; of that the kernel's softirqs, in which packets are \
             forwarded in all namespaces, and processes. The two overlap, for a softirq is in the time of the process that it \
             interrupts too. What XDP programs and nftables do is in the softirqs, and in nobody's process.</p>{}",
            times(asked.rounds),
            thousands(asked.megabytes),
            asked.connections,
            thousands(asked.requests),
            asked.joins,
            asked.backends,
            machine_line(&self.machine)
        )
    }

    fn cards(&self) -> String {
        let stub = self.throughput_of_stub.map(|part| {
            card(&format!("{part:.3}"), "of what comes through bare XDP programs on the same hops", part >= OF_STUB_MIN)
        });
        let joins = self.of(None).and_then(|weir| weir.joins).map(|joins| {
            let figure = format!("{} of {}", thousands(joins.at_backends), thousands(joins.attempted));
            card(&figure, "joins established through Weir", joins.at_backends == joins.attempted)
        });
        let corrupted = self.standings.iter().map(|standing| standing.corrupted).sum();
        let corrupted = card(&thousands(corrupted), "transfers corrupted", corrupted == 0);
        let cards = [stub.unwrap_or_default(), joins.unwrap_or_default(), corrupted];
        format!("<div class=\"cards\">{}</div>\n", cards.concat())
    }

    fn transfer_table(&self) -> String {
        let header =
            ["long transfers", "MB/s", "of Weir's", "CPU s/GB", "softirq", "middle", "client", "servers", "of Weir's"];
        let rows = self.standings.iter().map(|Standing { name, figures, of_weir, .. }| {
            let cpu = figures.cpu_s_per_gb;
            let seconds = [cpu.machine, cpu.softirq, cpu.middle, cpu.client, cpu.servers].map(|s| format!("{s:.2}"));
            let [first, last] = [of_weir.map(|of| of.mb_per_s), of_weir.map(|of| of.cpu_s_per_gb)].map(ratio);
            row(name, [format!("{:.0}", figures.mb_per_s), first].iter().chain(&seconds).chain([&last]))
        });
        table("Long transfers", &header, &rows.collect::<String>())
    }

    fn request_table(&self) -> String {
        let header = [
            "short connections",
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
        let rows = self.standings.iter().map(|standing| {
            let Standing { name, figures, of_weir, added, .. } = standing;
            let cpu = figures.cpu_s_per_1000;
            let added = [added.map(|added| added.ms_p50), added.map(|added| added.ms_p99)]
                .map(|ms| ms.map_or_else(String::new, |ms| format!("{ms:+.3}")));
            let seconds = [cpu.machine, cpu.softirq, cpu.middle].map(|seconds| format!("{seconds:.2}"));
            let times = [figures.request_ms_p50, figures.request_ms_p99].map(|ms| format!("{ms:.3}"));
            let rate = [format!("{:.0}", figures.connections_per_s), ratio(of_weir.map(|of| of.connections_per_s))];
            row(name, rate.iter().chain(&seconds).chain(&times).chain(&added))
        });
        table("Short connections, and requests one after the other", &header, &rows.collect::<String>())
    }

    fn join_table(&self) -> String {
        let header = ["joins", "attempted", "at backends", "in the middle", "misrouted", "refused", "lost"];
        let rows = self.standings.iter().filter_map(|Standing { name, joins, .. }| {
            let joins = (*joins)?;
            let counts =
                [joins.attempted, joins.at_backends, joins.at_middle, joins.misrouted, joins.refused, joins.lost];
            Some(row(name, counts.map(thousands).iter()))
        });
        table("Joins, by the kernels' counters", &header, &rows.collect::<String>())
    }

    /// Who was left out, and what failed.
    fn remarks(&self) -> String {
        let left_out = self.left_out.iter().map(|left| format!("{} is left out: {}", left.peer, left.why));
        let remarks: Vec<String> = left_out.chain(self.objections()).collect();
        if remarks.is_empty() {
            return String::new();
        }
        let items = remarks.iter().map(|remark| format!("<li>{}</li>", escaped(remark)));
        format!("<h3>Not as it should be</h3><ul class=\"failures\">{}</ul>", items.collect::<String>())
    }
}
