//! The report as one HTML file that needs nothing else.

use std::path::Path;

use super::{
    Axis, Figure, Report, Sweep,
    report::{HEADS, mib},
};
use crate::{
    LabError,
    bench::Scale,
    load::{
        html::{machine_line, page, row, table, write},
        plot::{Line, over_scale},
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
        let sections = self.sweeps.iter().map(section).collect::<Result<Vec<_>, _>>()?;
        write(file, &page("Weir at scale", &self.lead(), &sections.concat()))
    }

    fn lead(&self) -> String {
        let Scale { flows, backends, vips, joined } = self.usual;
        format!(
            "<p>One size grows at a time; the others are {} MPTCP connections, {backends} backends, {vips} VIP and {joined} \
             joined subflows. Packets are measured by test runs of the real program ({}), beside a stub that makes room for \
             the tunnel and takes it off again. Memory is the kernel's own account of a real controller's maps, and what is \
             resident of its process. A reload is a real one of that controller, from the changed file to the answer.</p>{}",
            thousands(flows.into()),
            self.method,
            machine_line(&self.machine)
        )
    }
}

/// What a sweep is of.
const fn about(axis: Axis) -> &'static str {
    match axis {
        Axis::Flows => {
            "MPTCP connections that take turns, each with its token in the table, which has room for a quarter more. An ACK \
             of them needs no table; plain TCP and UDP take no memory. A reload takes a backend out, or back in."
        }
        Axis::Backends => "Backends of one pool, over which the flows are spread. A reload takes one out, or back in.",
        Axis::Vips => "VIPs, each an address of its own, which take turns. A reload takes one out, or back in.",
        Axis::Joined => {
            "Joined subflows that live elsewhere than the ring says: each has an entry, and the table has room for a quarter \
             more. The ACKs that the ring answers are of other flows. A reload takes a backend out, or back in."
        }
    }
}

fn section(sweep: &Sweep) -> Result<String, LabError> {
    let Sweep { axis, figures } = sweep;
    let line = |name, of: fn(&Figure) -> Option<f64>| Line {
        name,
        points: figures.iter().filter_map(|figure| Some((f64::from(figure.size()), of(figure)?))).collect(),
    };
    let costs = [
        line("ACK", |figure| Some(figure.ns)),
        line("SYN that joins", |figure| Some(figure.join_ns)),
        line("stub", |figure| Some(figure.stub_ns)),
        line("ACK of a joined subflow", |figure| figure.joined_ns),
    ];
    let memory = [
        line("all maps", |figure| Some(mib(figure.bytes))),
        line("maps that grow", |figure| (!figure.growing.is_empty()).then(|| figure.growing_mib())),
        line("controller", |figure| Some(mib(figure.rss_bytes))),
        line("at most", |figure| Some(mib(figure.rss_peak_bytes))),
    ];
    let reloads = [
        line("until weir reload is answered", |figure| Some(figure.apply_ms)),
        line("until weir logs it", |figure| Some(figure.told_ms)),
    ];
    let plots = [
        over_scale("Cost of a packet", axis.what(), "ns", &costs)?,
        over_scale("Memory", axis.what(), "MiB", &memory)?,
        over_scale("Time to apply a change", axis.what(), "ms", &reloads)?,
    ];
    Ok(format!(
        "<section><h2>{}</h2><p>{}</p><div class=\"plots\">{}</div><div class=\"tables\">{}</div></section>\n",
        axis.what(),
        about(*axis),
        plots.concat(),
        figures_table(sweep)
    ))
}

fn figures_table(Sweep { axis, figures }: &Sweep) -> String {
    let rows = figures.iter().map(|figure| {
        let [size, figures @ ..] = figure.cells();
        row(&size, figures.iter())
    });
    table("Figures", &[&[axis.name()], HEADS.as_slice()].concat(), &rows.collect::<String>())
}
