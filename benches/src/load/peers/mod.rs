//! Peers: what else could stand in Weir's place, in the same lab, in the same run, between the same client and the same
//! servers. Each has a machine of its own at the router, and the router's route to the VIPs says whose turn it is. All are
//! asked for the same; whoever else uses the machine meanwhile is in the figures too, so they are medians over rounds in
//! turn, and quotients of neighbours.

mod client;
mod figures;
mod haproxy;
mod nftables;
mod nginx;
mod page;
mod place;
mod report;
mod rounds;
mod screen;
mod stage;
mod stub;
mod tables;

use std::{fmt, path::PathBuf};

use serde::Serialize;

pub use figures::{Cpu, Figures};
pub use report::{Added, Asked, Joins, LeftOut, Ratios, Report, Standing};
pub use screen::Screen;

use super::{Machine, middle::Middle};
use crate::{BackendCount, LabError, addresses::BACKENDS_MAX, command, sockets};
use stage::Stage;

/// Each backend is there for Weir and once more without a tunnel's end, and the stub has one.
const BACKENDS_EACH_MAX: u8 = (BACKENDS_MAX - 1) / 2;

/// What can stand in the middle beside Weir.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Peer {
    /// `HAProxy` in TCP mode under `mptcpize`: connections end there
    Haproxy,
    /// nginx's stream module under `mptcpize`: connections end there
    NginxStream,
    /// The kernel's address translation, by a hash of address and port
    Nftables,
    /// Bare XDP programs on the hops of Weir's way, for one backend
    Stub,
}

impl Peer {
    /// Its name, as on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::NginxStream => "nginx-stream",
            Self::Nftables => "nftables",
            Self::Stub => "stub",
        }
    }

    /// Sees that what it needs is installed, before there is a lab.
    fn look_for_tools(self) -> Result<(), LabError> {
        match self {
            Self::Haproxy => command::look_for(haproxy::PROGRAM, "haproxy"),
            Self::NginxStream => nginx::module().map(drop),
            Self::Nftables => command::look_for(nftables::PROGRAM, "nftables"),
            Self::Stub => Ok(()),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What to run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Who stands beside Weir, separated by commas
    #[arg(
        long,
        value_name = "PEER",
        value_enum,
        value_delimiter = ',',
        default_value = "haproxy,nginx-stream,nftables,stub"
    )]
    pub peers: Vec<Peer>,
    /// How often each peer is measured, each time beside Weir
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// How many connections are open at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub connections: u16,
    /// How much is transferred in a round, in megabytes
    #[arg(long, value_name = "MB", default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub megabytes: u64,
    /// How many short connections there are in a round, with a request each
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub requests: u64,
    /// How many connections are opened to see what becomes of their joins
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub joins: u16,
    /// How many backends joins can go astray between (2 to 31); what is measured goes to one of them
    #[arg(long, default_value = "4", value_parser = backends)]
    pub backends: BackendCount,
    /// Where the report goes: one HTML file that needs nothing else
    #[arg(long, value_name = "FILE", default_value = "target/load-peers.html")]
    pub report: PathBuf,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

fn backends(text: &str) -> Result<BackendCount, String> {
    match text.parse() {
        Ok(count @ 2..=BACKENDS_EACH_MAX) => BackendCount::try_from(count).map_err(|error| error.to_string()),
        _ => Err(format!("not a number from 2 to {BACKENDS_EACH_MAX}")),
    }
}

/// Runs it all, showing on `screen` what happens.
///
/// # Errors
///
/// If the lab cannot be built, a program is missing, a server or somebody in the middle does not start, or a signal asks for
/// the end.
pub fn run(options: &Options, screen: Screen) -> Result<Report, LabError> {
    options.peers.iter().try_for_each(|peer| peer.look_for_tools())?;
    sockets::allow_many()?;
    screen.introduce(options);
    let (mut stage, left_out) = Stage::set_up(options)?;
    left_out.iter().for_each(screen::leave_out);
    let mut standings = rounds::measure(&stage, options, screen)?;
    for (index, standing) in standings.iter_mut().enumerate() {
        if let Some((joins, counts)) = stage.count_joins(index, options.joins)? {
            standing.joins = Some(joins);
            standing.add(counts);
        }
    }
    Ok(Report::conclude(Asked::from(options), standings, left_out))
}
