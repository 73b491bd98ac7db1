//! Sweeps: what packets cost, what memory is taken and how long a reload takes, from a tiny balancer to the largest, along one
//! size at a time: flows, backends, VIPs, joined subflows.
//!
//! Packets are those of [`crate::bench`], on balancers whose tables are filled without a controller. Memory and reloads are
//! those of a real controller on tables of the same sizes, which are filled by their pins: it is given a file that differs in
//! one backend, or one VIP. No traffic runs through that one.

mod axis;
mod controller;
mod page;
mod report;
mod tables;

use std::{path::PathBuf, thread};

pub use axis::Axis;
pub use report::{Figure, Report, Sweep};

use crate::{
    LabError,
    bench::{BenchError, Costs, Effort, Scale, make_interfaces},
    interrupt,
};
use controller::{Place, Reloads};

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// A few small points, to see that it works: their figures are rough
    #[arg(long)]
    pub quick: bool,
    /// Only these sweeps, separated by commas
    #[arg(long, value_name = "AXIS", value_enum, value_delimiter = ',', default_values_t = Axis::ALL, hide_default_value = true)]
    pub axes: Vec<Axis>,
    /// Where the report goes: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE", default_value = "target/load-sweeps.html")]
    pub report: PathBuf,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

impl Options {
    const fn effort(&self) -> Effort {
        if self.quick { Effort::QUICK } else { Effort::FULL }
    }

    /// How often each cost is measured.
    const fn rounds(&self) -> u32 {
        if self.quick { 1 } else { 5 }
    }

    /// The sizes that do not vary.
    const fn usual(&self) -> Scale {
        if self.quick {
            // All in one, so that there is little to set up.
            return Scale { flows: 8192, backends: 64, vips: 16, joined: 8192 };
        }
        Scale { flows: 65_536, backends: 16, vips: 1, joined: 0 }
    }

    /// How often a change is made or taken back at each point.
    const fn reloads(&self) -> Reloads {
        if self.quick { Reloads { count: 2, after_sweep: false } } else { Reloads { count: 10, after_sweep: true } }
    }
}

/// Runs the sweeps, telling `step` each figure when it is there.
///
/// # Errors
///
/// The kernel refuses something, packets did not take the path that was to be measured, a controller does not do as it
/// should, or a signal asks for the end.
pub fn run(options: &Options, step: &dyn Fn(&str)) -> Result<Report, BenchError> {
    let most =
        |axis: &Axis| axis.sizes(options.quick).iter().map(|&size| axis.at(size, options.usual()).backends + 1).max();
    let place = Place::make(options.axes.iter().filter_map(most).max().unwrap_or_default())?;
    let (mut packets, mut reloads, mut sweeps) = (Seen::default(), Seen::default(), Vec::new());
    for &axis in Axis::ALL.iter().filter(|axis| options.axes.contains(axis)) {
        let mut figures = Vec::new();
        for &size in axis.sizes(options.quick) {
            if interrupt::requested() {
                return Err(LabError::Interrupted.into());
            }
            let scale = axis.at(size, options.usual());
            let costs = packets.once(scale, || costs(scale, options))?;
            let change = axis.change();
            let taken = reloads.once((scale, change), || place.measure(scale, change, options.reloads()))?;
            let figure = Figure::of(axis, size, costs, &taken);
            step(&format!("{axis} {figure}"));
            figures.push(figure);
        }
        sweeps.push(Sweep { axis, figures });
    }
    Ok(Report::of(options, sweeps))
}

/// What has been measured: where sweeps meet, they show the same figures.
struct Seen<K, V>(Vec<(K, V)>);

impl<K, V> Default for Seen<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Copy + PartialEq, V: Clone> Seen<K, V> {
    fn once(&mut self, of: K, measure: impl FnOnce() -> Result<V, BenchError>) -> Result<V, BenchError> {
        if let Some((_, seen)) = self.0.iter().find(|(key, _)| *key == of) {
            return Ok(seen.clone());
        }
        let measured = measure()?;
        self.0.push((of, measured.clone()));
        Ok(measured)
    }
}

/// Measures packets, on a thread that leaves the lab's network.
fn costs(scale: Scale, options: &Options) -> Result<Costs, BenchError> {
    let measured = thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            make_interfaces()?;
            scale.measure(options.effort(), options.rounds())
        });
        measuring.join()
    });
    measured.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
