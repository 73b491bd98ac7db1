//! Nanoseconds a packet: the balancer's own code under `BPF_PROG_TEST_RUN`, with as many flows as a farm has.
//!
//! A wrapper program makes every packet anew, calls the balancer and undoes the tunnel; the same wrapper around a stub is
//! run in turn and subtracted. A case whose packets did not all take the path that it claims fails.

mod agent;
mod case;
mod farm;
mod interfaces;
pub(crate) mod load;
mod measure;
mod memory;
pub(crate) mod packet;
mod plot;
mod report;
mod scale;

use aya::{maps::MapError, programs::ProgramError};
use lb_user::bpf::LoadError;

use crate::LabError;

pub use self::{
    case::{Case, Point},
    memory::MapMemory,
    scale::Scale,
};
pub(crate) use self::{
    farm::OBJECT,
    interfaces::make as make_interfaces,
    measure::{Cost, median},
    memory::of_pinned,
    scale::Costs,
};

/// What the stub takes on the machine that the design's targets are for, in nanoseconds.
pub const DESIGN_STUB_NS: f64 = 11.0;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The kernel does not take a program or a map.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The lab cannot be made, or what runs in it does not do as it should.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// A table could not be filled or read.
    #[error("the kernel refused a table: {0}")]
    Map(#[from] MapError),
    /// The kernel does not describe a program.
    #[error("the kernel does not describe its program: {0}")]
    Info(#[source] ProgramError),
    /// The kernel does not describe a map.
    #[error("cannot read {path}: {error}")]
    FdInfo {
        /// Where its description is.
        path: String,
        /// Why not.
        #[source]
        error: std::io::Error,
    },
    /// The plot could not be drawn.
    #[error("cannot draw {path}: {reason}")]
    Plot {
        /// The file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// The packets were not what the case is about.
    #[error(
        "packets went another way than the one to be measured: expected {expected}, {share} times each; found {found}"
    )]
    OtherPath {
        /// The reasons that were to be.
        expected: String,
        /// How often each.
        share: u64,
        /// The reasons that were, and how often.
        found: String,
    },
    /// The table of joined flows was not filled.
    #[error("{found} of {flows} joined flows have an entry")]
    Untracked {
        /// How many were to have one.
        flows: u32,
        /// How many have one.
        found: u32,
    },
    /// A reload was answered, and the tables are not what it was for.
    #[error("weir has reloaded, and its tables are to hold {wanted}, not {held}")]
    NotInForce {
        /// What was to stand there.
        wanted: String,
        /// What does.
        held: String,
    },
    /// A packet that was to be left alone was not.
    #[error("{program} did not leave a packet as it was: action {action}")]
    Touched {
        /// The program.
        program: &'static str,
        /// What it returned last.
        action: u32,
    },
    /// The wrapper did not leave the packet as it was.
    #[error("the wrapper {program} failed: action {action}, {len} bytes left, {packets} packets made")]
    Wrapper {
        /// The program.
        program: &'static str,
        /// What it returned last.
        action: u32,
        /// The packet's length after it.
        len: u32,
        /// How many packets it made.
        packets: u32,
    },
}

/// How much is run for a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// Batches, of which the median is taken.
    pub batches: u32,
    /// Packets in each: so few that a batch is shorter than a tick of the scheduler, and most are not interrupted.
    pub packets: u32,
}

impl Effort {
    /// A few minutes.
    pub const FULL: Self = Self { batches: 101, packets: 10_000 };
    /// Some seconds, most of which go into filling tables: to see that it works.
    pub const QUICK: Self = Self { batches: 5, packets: 4_000 };
}

/// What was measured.
#[derive(Debug, Clone)]
pub struct Figure {
    /// Of what.
    pub point: Point,
    /// Nanoseconds a packet, without the wrapper and the stub.
    pub ns: f64,
    /// What the stub took in the same batches: room for the tunnel's header, and taking it off again.
    pub stub_ns: f64,
    /// What the wrapper took around nothing: to make a packet, and to leave it.
    pub floor_ns: f64,
}

/// Everything that was measured in a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Nanoseconds that the stub takes: room for an IPv4 header, and taking it off again.
    pub stub_ns: f64,
    /// How much was run for each figure.
    pub effort: Effort,
    /// The cases.
    pub figures: Vec<Figure>,
    /// Bytes that the kernel has locked for each map of a balancer of default sizes.
    pub memory: Vec<MapMemory>,
}

impl Report {
    /// Measures these cases; `progress` sees each figure when it is there. The thread leaves the host's network for good.
    ///
    /// # Errors
    /// The kernel refuses something, or packets did not take the path that was to be measured.
    pub fn measure(effort: Effort, cases: &[Case], mut progress: impl FnMut(&Figure)) -> Result<Self, BenchError> {
        interfaces::make()?;
        let mut figures = Vec::new();
        for &case in cases {
            case.measure(effort, |point, cost| {
                let figure = Figure { point, ns: cost.net, stub_ns: cost.stub, floor_ns: cost.floor };
                progress(&figure);
                figures.push(figure);
            })?;
        }
        let over_stub = figures.iter().filter(|figure| figure.point.case.is_over_ipv4_stub());
        let stub_ns = median(over_stub.map(|figure| figure.stub_ns).collect());
        Ok(Self { stub_ns, effort, figures, memory: memory::of_defaults()? })
    }
}
