//! Packets of a generator through Weir: how many a second one CPU steers, beside the plainest balancer on a link of the same
//! kind; and what floods at half of that rate do to real MPTCP connections.
//!
//! Rates are those of the balancer's interface, counted by the kernel, and the two take turns in one run: the quotient is
//! what counts.

mod flood;
mod generator;
mod link;
mod rate;
mod report;

use clap::Args;

use crate::{
    BackendCount, Lab, LabError,
    addresses::VIP,
    bench::OBJECT,
    topology::{INTERFACE, links::BALANCER_SIDE},
    weir::{Join, Weir, WeirConfig},
    xdp::Attached,
};
use generator::{Generator, Packets};
use link::{BALANCER_CPU, End};

pub use report::{Flood, Quality, Rate, Report};

/// The link of the plainest balancer, by its names at the router and at the balancer.
const REFLECTOR: [&str; 2] = ["reflect0", "reflect1"];
/// Interfaces of the router by which nothing comes.
const IDLE: [&str; 2] = ["idle0", "idle1"];

/// What to run.
#[derive(Debug, Clone, Copy, Args)]
pub struct Options {
    /// How many flows take turns
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(2..=16_777_216))]
    pub flows: u32,
    /// How often each rate is measured
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// For how long, each time, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    pub span: u64,
    /// How many MPTCP connections are opened without a flood, and as many in each
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub connections: u32,
    /// How many backends (2 to 64)
    #[arg(long, default_value = "4", value_parser = crate::drill::two_or_more)]
    pub backends: BackendCount,
    /// Print one JSON object and nothing else on standard output
    #[arg(long)]
    pub json: bool,
}

/// A lab with a generator beside its balancer.
struct Stage {
    _weir: Weir,
    /// The router's and the balancer's end of the link that Weir serves.
    weirs: [End; 2],
    /// The same of the reflector's.
    reflectors: [End; 2],
    _reflector: [Attached; 2],
    /// Last, so that all else is gone before its namespaces.
    lab: Lab,
}

/// Runs it all, telling `step` what happens; returns the figures, and what did not go as it should.
///
/// # Errors
///
/// If the lab cannot be built, the kernel refuses a program, or a signal asks for the end.
pub fn run(options: Options, step: &dyn Fn(&str)) -> Result<(Report, Vec<String>), LabError> {
    let stage = Stage::set_up(options)?;
    let rates = rate::measure(&stage, options, step)?;
    let half = rate::of(&rates, "syn").weir_pps / 2;
    let (calm, floods) = flood::measure(&stage, options, half, step)?;
    let report = Report { options: report::Asked::from(options), rates, calm, floods };
    let failures = report.objections();
    Ok((report, failures))
}

impl Stage {
    fn set_up(options: Options) -> Result<Self, LabError> {
        let mut lab = Lab::builder().backends(options.backends).build()?;
        let (router, balancer) = (lab.router.namespace.clone(), lab.balancer.namespace.clone());
        let [at_router, at_balancer] = REFLECTOR;
        router.ip_batch(&format!(
            "link add {at_router} type veth peer name {at_balancer} netns {}\nlink set {at_router} up\n\
             link add {} type veth peer name {}\n",
            balancer.name(),
            IDLE[0],
            IDLE[1],
        ))?;
        balancer.ip_batch(&format!("link set {at_balancer} up\n"))?;
        let reflector = [
            Attached::attach(&router, at_router, OBJECT, "weir_sink")?,
            Attached::attach(&balancer, at_balancer, OBJECT, "weir_reflect")?,
        ];
        lab.router.replace_program(OBJECT, "weir_sink")?;
        let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn))?;
        let ends = |[router_side, balancer_side]: [&'static str; 2]| {
            [
                End { namespace: router.clone(), interface: router_side },
                End { namespace: balancer.clone(), interface: balancer_side },
            ]
        };
        let (weirs, reflectors) = (ends([BALANCER_SIDE, INTERFACE]), ends(REFLECTOR));
        for [_, balancer_side] in [&weirs, &reflectors] {
            balancer_side.poll_on(BALANCER_CPU)?;
        }
        Ok(Self { _weir: weir, weirs, reflectors, _reflector: reflector, lab })
    }

    fn generator_before_weir(&self, packets: &Packets) -> Result<Generator, LabError> {
        let [from, to] = &self.weirs;
        Generator::open(from, IDLE[0], to.ethernet()?, packets)
    }

    fn generator_before_reflector(&self, packets: &Packets) -> Result<Generator, LabError> {
        let [from, to] = &self.reflectors;
        Generator::open(from, IDLE[1], to.ethernet()?, packets)
    }
}

const _: () = assert!(VIP.v4.to_bits() == 0xc000_020a, "the packets of benchmarks are for this VIP");
