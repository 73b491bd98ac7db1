//! Load: very many connections of real programs over the kernels' MPTCP, through whatever stands in the middle, while its
//! pool changes. What became of joins is told by the kernels of client and backends, and what became of each body by its
//! hash; latencies are the client's own. What is in the middle is never asked but for its counters, which are shown beside.

mod client;
mod content;
pub(crate) mod html;
mod http;
mod machine;
mod middle;
mod paths;
pub mod peers;
mod plan;
pub(crate) mod plot;
mod report;
mod sample;
mod screen;
mod servers;
mod stage;
mod tally;

use std::path::PathBuf;

pub use machine::Machine;
pub use middle::Way;
pub use plan::Scenario;
pub use report::{Asked, BackendLoad, Latency, Percentile, PoolChange, Report, Run, Totals};
pub use sample::{Cpu, Sample};
pub use screen::Screen;
pub use stage::Stage;

use crate::{BackendCount, LabError, sockets};

/// Connections at a time, at most.
const CONNECTIONS_MAX: usize = 4000;

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// What the connections do
    #[arg(long, value_enum, default_value_t = Scenario::All)]
    pub scenario: Scenario,
    /// How many connections are open at a time; an eighth of that where transfers are long
    #[arg(long, default_value_t = 300, value_parser = connections)]
    pub connections: usize,
    /// How many subflows a connection has (2 to 8); every fourth has one more, over the other family
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=8))]
    pub subflows: u8,
    /// How long new connections are opened in each run, in seconds
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub duration: u64,
    /// How many backends (2 to 64)
    #[arg(long, default_value = "6", value_parser = crate::drill::two_or_more)]
    pub backends: BackendCount,
    /// How subflows are kept together; several, separated by commas, are run one after the other
    #[arg(long, value_name = "WAY", value_enum, value_delimiter = ',', default_value = "learn")]
    pub ways: Vec<Way>,
    /// The client's round trip to the router, in milliseconds; several, separated by commas, are run one after the other
    #[arg(long, value_name = "MS", value_delimiter = ',', default_value = "0", value_parser = clap::value_parser!(u64).range(..=1000))]
    pub rtt: Vec<u64>,
    /// How often the pool changes: every so many seconds; 0 for never
    #[arg(long, value_name = "S", default_value_t = 2)]
    pub churn: u64,
    /// What decides connections, files and changes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Leave the last lab up until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Where the report goes: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE", default_value = "target/load.html")]
    pub report: PathBuf,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// A number of connections at a time that one client's thread, its ports, and memory for what is stored are enough for.
fn connections(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=CONNECTIONS_MAX) => Ok(count),
        _ => Err(format!("not a number from 1 to {CONNECTIONS_MAX}")),
    }
}

/// Runs it all, showing on `screen` what happens; returns the figures, and the last lab.
///
/// # Errors
///
/// If a lab cannot be built, a server or what is in the middle does not start, or a signal asks for the end.
pub fn run(options: &Options, screen: &Screen) -> Result<(Report, Option<Stage>), LabError> {
    sockets::allow_many()?;
    screen.introduce(options);
    let (mut runs, mut last) = (Vec::new(), None);
    for &rtt_ms in &options.rtt {
        for &way in &options.ways {
            drop(last.take());
            screen.sets_up(way, rtt_ms);
            let mut stage = Stage::set_up(options, way, rtt_ms)?;
            for &scenario in options.scenario.parts() {
                runs.push(stage.play(scenario, options, screen)?);
            }
            last = Some(stage);
        }
    }
    let Options { connections, subflows, duration, backends, churn, seed, .. } = *options;
    let asked =
        Asked { connections, subflows, duration_s: duration, backends: backends.number(), churn_s: churn, seed };
    Ok((Report::of(asked, runs), last))
}

/// A count as a number for a plot or a rate; beyond 2^52 it is not exact.
fn real(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "no count here is that large")]
    let real = count as f64;
    real
}
