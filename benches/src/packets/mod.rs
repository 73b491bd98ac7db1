//! Packets of a generator through Weir: how many a second one CPU steers, beside a program that sends each packet back and
//! one that also puts a tunnel on, on links of the same kind; and what floods at half of that rate do to real MPTCP
//! connections.
//!
//! Rates are those of the balancer's interface, counted by the kernel, and the three take turns in one run: the quotients are
//! what counts. The time of a packet, one by its rate, tells where it goes: what the reflector needs is the link's, what a
//! tunnel needs is every balancer's, and the rest is Weir's decision. In a lab of its own Weir is measured beside the reflector
//! where its backend is on the link, so that it only puts another address on each packet, as the reflector does.

mod flood;
mod generator;
mod link;
mod rate;
mod report;

use clap::Args;
use lb_common::bench::Hop;

use crate::{
    BackendCount, Lab, LabError,
    addresses::{BALANCER, VIP},
    bench::OBJECT,
    topology::{INTERFACE, links::BALANCER_SIDE},
    weir::{Join, PoolBackend, Weir, WeirConfig},
    xdp::Attached,
};
use generator::{Generator, Packets};
use link::{BALANCER_CPU, End};

pub use report::{Flood, OnLink, Quality, Rate, Report};

/// The links of the programs that Weir is measured beside, by their names at the router and at the balancer.
const REFLECTOR: [&str; 2] = ["reflect0", "reflect1"];
const TUNNEL: [&str; 2] = ["tunnel0", "tunnel1"];
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
    /// The same of the reflector's, and of the one that tunnels.
    reflectors: [End; 2],
    tunnels: [End; 2],
    _programs: [Attached; 4],
    /// Last, so that all else is gone before its namespaces.
    lab: Lab,
}

/// Runs it all, telling `step` what happens; returns the figures, and what did not go as it should.
///
/// # Errors
///
/// If the lab cannot be built, the kernel refuses a program, or a signal asks for the end.
pub fn run(options: Options, step: &dyn Fn(&str)) -> Result<(Report, Vec<String>), LabError> {
    let on_link = rate::measure_on_link(&Stage::set_up_on_link(options)?, options, step)?;
    let stage = Stage::set_up(options)?;
    let rates = rate::measure(&stage, options, step)?;
    let half = rate::of(&rates, "syn").weir_pps / 2;
    let (calm, floods) = flood::measure(&stage, options, half, step)?;
    let report = Report { options: report::Asked::from(options), rates, on_link, calm, floods };
    let failures = report.objections();
    Ok((report, failures))
}

impl Stage {
    /// Every packet goes to a backend in a tunnel.
    fn set_up(options: Options) -> Result<Self, LabError> {
        Self::set_up_with(options, |lab| WeirConfig::for_lab(lab, Join::Learn))
    }

    /// Every packet goes to the router, as a backend on the same link.
    fn set_up_on_link(options: Options) -> Result<Self, LabError> {
        Self::set_up_with(options, |lab| {
            let all = PoolBackend { backend: &lab.backends[0], weight: 1, state: "up" };
            let router = BALANCER.router().v4.to_string();
            WeirConfig::for_lab(lab, Join::Learn).with_backends(vec![all]).with_address(0, &router).with_forward("l2")
        })
    }

    fn set_up_with(options: Options, config: impl FnOnce(&Lab) -> WeirConfig) -> Result<Self, LabError> {
        let mut lab = Lab::builder().backends(options.backends).build()?;
        let (router, balancer) = (lab.router.namespace.clone(), lab.balancer.namespace.clone());
        router.ip_batch(&format!("link add {} type veth peer name {}\n", IDLE[0], IDLE[1]))?;
        for [at_router, at_balancer] in [REFLECTOR, TUNNEL] {
            let peer = balancer.name();
            router.ip_batch(&format!(
                "link add {at_router} type veth peer name {at_balancer} netns {peer}\nlink set {at_router} up\n"
            ))?;
            balancer.ip_batch(&format!("link set {at_balancer} up\n"))?;
        }
        let hop = Hop::new(VIP.v4, VIP.v6, BALANCER.v4, lab.backends[0].address.v4);
        let programs = [
            Attached::attach(&router, REFLECTOR[0], OBJECT, "weir_sink")?,
            Attached::attach(&balancer, REFLECTOR[1], OBJECT, "weir_reflect")?,
            Attached::attach(&router, TUNNEL[0], OBJECT, "weir_sink")?,
            Attached::wrapping(&balancer, TUNNEL[1], hop)?,
        ];
        lab.router.replace_program(OBJECT, "weir_sink")?;
        let weir = Weir::start(&lab, &config(&lab))?;
        let ends = |[router_side, balancer_side]: [&'static str; 2]| {
            [
                End { namespace: router.clone(), interface: router_side },
                End { namespace: balancer.clone(), interface: balancer_side },
            ]
        };
        let (weirs, reflectors, tunnels) = (ends([BALANCER_SIDE, INTERFACE]), ends(REFLECTOR), ends(TUNNEL));
        for [_, balancer_side] in [&weirs, &reflectors, &tunnels] {
            balancer_side.poll_on(BALANCER_CPU)?;
        }
        Ok(Self { _weir: weir, weirs, reflectors, tunnels, _programs: programs, lab })
    }

    /// One whose packets come to the balancer by this link.
    fn generator([from, to]: &[End; 2], packets: &Packets) -> Result<Generator, LabError> {
        Generator::open(from, IDLE[0], to.ethernet()?, packets)
    }
}

const _: () = assert!(VIP.v4.to_bits() == 0xc000_020a, "the packets of benchmarks are for this VIP");
