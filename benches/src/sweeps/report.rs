//! The figures: the one object that `--json` prints, and tables for people.

use std::{collections::BTreeMap, fmt};

use comfy_table::Table;
use serde::{Serialize, Serializer};

use super::{Axis, Options, controller::Taken};
use crate::{
    bench::{Cost, Costs, Effort, MapMemory, Scale},
    load::Machine,
    screen::{table, thousands},
};

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// By the names of the axes.
    #[serde(serialize_with = "by_name")]
    pub sweeps: Vec<Sweep>,
    /// The sizes that do not vary.
    pub usual: Scale,
    /// Where it ran.
    pub machine: Machine,
    /// What each figure of packets is.
    pub method: String,
}

/// The figures along an axis.
#[derive(Debug, Clone)]
pub struct Sweep {
    /// Along what.
    pub axis: Axis,
    /// From small to large.
    pub figures: Vec<Figure>,
}

/// A point of a sweep.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// The size, under the axis's name.
    #[serde(flatten)]
    size: BTreeMap<&'static str, u32>,
    /// Nanoseconds that an ACK takes that the ring answers.
    pub ns: f64,
    /// The same as a multiple of the stub in the same batches.
    pub stubs: f64,
    /// What a SYN takes that joins a connection by its token.
    pub join_ns: f64,
    /// In stubs.
    pub join_stubs: f64,
    /// What an ACK of a joined subflow takes, where there are such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined_ns: Option<f64>,
    /// In stubs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined_stubs: Option<f64>,
    /// What the stub took beside the ACK.
    pub stub_ns: f64,
    /// Bytes of the controller's maps.
    pub bytes: u64,
    /// Those of the maps that differ along the axis.
    pub growing: BTreeMap<String, u64>,
    /// Bytes of the controller's process that are in memory in the end.
    pub rss_bytes: u64,
    /// The most that were, so far.
    pub rss_peak_bytes: u64,
    /// Milliseconds from a changed file until `weir reload` had its answer.
    pub apply_ms: f64,
    /// Until the controller said in its log that it had reloaded.
    pub told_ms: f64,
}

impl Figure {
    pub(super) fn of(axis: Axis, size: u32, costs: Costs, taken: &Taken) -> Self {
        let stubs = |cost: Cost| hundredths(cost.net / cost.stub);
        let ns = |cost: Cost| hundredths(cost.net);
        Self {
            size: BTreeMap::from([(axis.name(), size)]),
            ns: ns(costs.ack),
            stubs: stubs(costs.ack),
            join_ns: ns(costs.join),
            join_stubs: stubs(costs.join),
            joined_ns: costs.joined_ack.map(ns),
            joined_stubs: costs.joined_ack.map(stubs),
            stub_ns: hundredths(costs.ack.stub),
            bytes: taken.maps.iter().map(|map| map.bytes).sum(),
            growing: taken.maps.iter().map(|MapMemory { name, bytes, .. }| (name.clone(), *bytes)).collect(),
            rss_bytes: taken.process.now,
            rss_peak_bytes: taken.process.peak,
            apply_ms: hundredths(taken.answered_ms),
            told_ms: hundredths(taken.told_ms),
        }
    }

    /// How large.
    pub(super) fn size(&self) -> u32 {
        self.size.values().sum()
    }

    /// MiB of the maps that differ along the axis.
    pub(super) fn growing_mib(&self) -> f64 {
        mib(self.growing.values().sum())
    }

    /// Its cells: size, ACK, join, joined ACK, memory, reload.
    pub(super) fn cells(&self) -> [String; 12] {
        let or_none =
            |figure: Option<f64>, digits: usize| figure.map_or_else(String::new, |figure| format!("{figure:.digits$}"));
        [
            thousands(self.size().into()),
            format!("{:.0}", self.ns),
            format!("{:.2}", self.stubs),
            format!("{:.0}", self.join_ns),
            format!("{:.2}", self.join_stubs),
            or_none(self.joined_ns, 0),
            or_none(self.joined_stubs, 2),
            format!("{:.1}", mib(self.bytes)),
            format!("{:.1}", self.growing_mib()),
            format!("{:.1}", mib(self.rss_bytes)),
            format!("{:.1}", mib(self.rss_peak_bytes)),
            format!("{:.1}", self.apply_ms),
        ]
    }
}

/// The heads of [`Figure::cells`], but the first.
pub(super) const HEADS: [&str; 11] = [
    "ACK ns",
    "stubs",
    "join ns",
    "stubs",
    "joined ACK ns",
    "stubs",
    "maps MiB",
    "of it growing",
    "RSS MiB",
    "at most",
    "reload ms",
];

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ns, stubs, bytes, rss_bytes, apply_ms, .. } = self;
        let size = thousands(self.size().into());
        write!(f, "{size}: ACK {ns:.0} ns ({stubs:.2} stubs)")?;
        if let Some(joined) = self.joined_ns {
            write!(f, ", joined ACK {joined:.0} ns")?;
        }
        let [maps, resident] = [*bytes, *rss_bytes].map(mib);
        write!(f, ", maps {maps:.1} MiB, RSS {resident:.1} MiB, reload {apply_ms:.1} ms")
    }
}

impl Sweep {
    /// The figures for people.
    pub fn table(&self) -> Table {
        let mut table = table(&[&[self.axis.name()], HEADS.as_slice()].concat());
        for figure in &self.figures {
            table.add_row(figure.cells());
        }
        table
    }

    /// Leaves out of `growing` what is the same at all points.
    fn with_growing_alone(mut self) -> Self {
        let first = self.figures.first().map(|figure| figure.growing.clone()).unwrap_or_default();
        let grows = |name: &str, bytes: u64| first.get(name) != Some(&bytes);
        let growing: Vec<String> = self
            .figures
            .iter()
            .flat_map(|figure| figure.growing.iter())
            .filter(|&(name, &bytes)| grows(name, bytes))
            .map(|(name, _)| name.clone())
            .collect();
        for figure in &mut self.figures {
            figure.growing.retain(|name, _| growing.contains(name));
        }
        self
    }
}

impl Report {
    pub(super) fn of(options: &Options, sweeps: Vec<Sweep>) -> Self {
        let Effort { batches, packets } = options.effort();
        Self {
            sweeps: sweeps.into_iter().map(Sweep::with_growing_alone).collect(),
            usual: options.usual(),
            machine: Machine::this(),
            method: format!(
                "the least of {} medians, each of {batches} batches of {} packets",
                options.rounds(),
                thousands(packets.into())
            ),
        }
    }
}

pub(super) fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let bytes = bytes as f64;
    bytes / MIB
}

fn hundredths(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

fn by_name<S: Serializer>(sweeps: &[Sweep], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(sweeps.iter().map(|sweep| (sweep.axis.name(), &sweep.figures)))
}
