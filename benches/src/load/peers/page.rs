//! The report as one HTML file that needs nothing else.

use std::path::Path;

use super::{Report, Standing, report::OF_STUB_MIN, screen::times, tables::Table};
use crate::{
    LabError,
    load::{
        html::{card, escaped, machine_line, page, write},
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
        let tables = Table::all(self).map(|table| table.on_page());
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
