//! The figures for people and for programs.

use comfy_table::Table;
use serde::Serialize;

use crate::screen::{table, thousands};

use super::{DESIGN_STUB_NS, Effort, Figure, Report};

#[derive(Serialize)]
struct Json {
    stub_ns: f64,
    /// What each figure is.
    method: String,
    cases: Vec<JsonCase>,
    maps: Vec<JsonMap>,
}

#[derive(Serialize)]
struct JsonCase {
    name: &'static str,
    flows: u32,
    tracked: u32,
    ns: f64,
    stub_ns: f64,
    floor_ns: f64,
}

#[derive(Serialize)]
struct JsonMap {
    name: String,
    entries: u32,
    bytes: u64,
}

impl Report {
    /// One JSON object.
    ///
    /// # Errors
    /// None: the figures are numbers and names.
    pub fn json(&self) -> serde_json::Result<String> {
        let case = |figure: &Figure| JsonCase {
            name: figure.point.case.name(),
            flows: figure.point.flows,
            tracked: figure.point.tracked,
            ns: tenths(figure.ns),
            stub_ns: tenths(figure.stub_ns),
            floor_ns: tenths(figure.floor_ns),
        };
        let maps =
            self.memory.iter().map(|map| JsonMap { name: map.name.clone(), entries: map.entries, bytes: map.bytes });
        serde_json::to_string(&Json {
            stub_ns: tenths(self.stub_ns),
            method: self.method(),
            cases: self.figures.iter().map(case).collect(),
            maps: maps.collect(),
        })
    }

    /// What each figure is.
    pub fn method(&self) -> String {
        let Effort { batches, packets } = self.effort;
        format!("the median of {batches} batches of {} packets", thousands(packets.into()))
    }

    /// The figures beside the design's targets, and what stub and wrapper took in the same batches.
    pub fn table(&self) -> Table {
        let mut table = table(&["packet", "flows", "tracked", "ns", "target", "stubs", "target", "stub", "floor"]);
        for Figure { point, ns, stub_ns, floor_ns } in &self.figures {
            let target = point.case.target_ns();
            table.add_row([
                point.case.name().to_owned(),
                thousands(point.flows.into()),
                thousands(point.tracked.into()),
                format!("{ns:.0}"),
                target.map_or_else(String::new, |target| target.to_string()),
                // Programs of the agent alone have no such stub.
                if self.stub_ns > 0.0 { format!("{:.1}", ns / self.stub_ns) } else { String::new() },
                target.map_or_else(String::new, |target| format!("{:.1}", f64::from(target) / DESIGN_STUB_NS)),
                format!("{stub_ns:.0}"),
                format!("{floor_ns:.0}"),
            ]);
        }
        table
    }

    /// What each map of a balancer of default sizes takes.
    pub fn memory_table(&self) -> Table {
        let mut table = table(&["map", "entries", "KiB"]);
        for map in &self.memory {
            table.add_row([map.name.clone(), thousands(map.entries.into()), thousands(map.bytes.div_ceil(1024))]);
        }
        let all = self.memory.iter().map(|map| map.bytes).sum::<u64>();
        table.add_row(["together".to_owned(), String::new(), thousands(all.div_ceil(1024))]);
        table
    }
}

fn tenths(ns: f64) -> f64 {
    (ns * 10.0).round() / 10.0
}
