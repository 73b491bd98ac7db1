//! The agent's programs, and what a packet costs there that they do not touch. Such a packet stays what it is, so the kernel
//! can repeat it without a wrapper; a program of the same kind that does nothing runs in turn and is subtracted.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use aya::programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, TestRunResult};
use lb_common::{
    clamp::Rule,
    mint::{Listener, Service},
    wire::ip::Address,
};
use lb_user::{
    bpf::{AgentPrograms, Balancer, Decapsulator, LoadError, Sizes, verified},
    config::Prefix,
};

use super::{
    BenchError, Effort,
    farm::{self, PORT, VIP_V4, VIP_V6},
    measure::{Cost, median, nanos},
    packet::{Way, foreign},
};

const CLASSIFIER_STUB: &str = "weir_bench_tc";
const XDP_STUB: &str = "weir_pass";
const DECAP: &str = "weir_decap";
/// Keys that there is room for; none is given out.
const KEYS: u32 = 64;
/// A balancer, whose tunnels are taken.
const BALANCER: Ipv4Addr = Ipv4Addr::new(10, 0, 255, 1);

/// The length of the prefix that is one address.
const HOST: u32 = 128;

const XDP_PASS: u32 = 2;
/// `TC_ACT_UNSPEC`: on to whoever comes next.
const ON: u32 = u32::MAX;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    Decap,
    Mint,
    Clamp,
    Plain,
}

impl Program {
    const fn name(self) -> &'static str {
        match self {
            Self::Decap => DECAP,
            Self::Mint => "weir_mint",
            Self::Clamp => "weir_clamp",
            Self::Plain => "weir_plain",
        }
    }

    const fn way(self) -> Way {
        match self {
            Self::Decap | Self::Mint => Way::In,
            Self::Clamp | Self::Plain => Way::Out,
        }
    }

    const fn pass(self) -> u32 {
        match self {
            Self::Decap => XDP_PASS,
            Self::Mint | Self::Clamp | Self::Plain => ON,
        }
    }

    /// What a packet costs at most of those that it does not touch.
    pub(super) fn measure(self, effort: Effort) -> Result<Cost, BenchError> {
        let mut bench = Bench::open(effort)?;
        let mut costliest: Option<Cost> = None;
        for frame in foreign(self.way()) {
            let cost = bench.measure(self, &frame)?;
            if costliest.is_none_or(|former| former.net < cost.net) {
                costliest = Some(cost);
            }
        }
        Ok(costliest.expect("there are packets"))
    }
}

/// The programs with the tables of a backend that serves both VIPs, and the stubs.
struct Bench {
    programs: AgentPrograms,
    decap: Decapsulator,
    stubs: Balancer,
    effort: Effort,
}

impl Bench {
    fn open(effort: Effort) -> Result<Self, BenchError> {
        let mut stubs = farm::open_bare(&Sizes { pools: 1, ..Sizes::default() })?;
        let classifier = classifier(&mut stubs)?;
        verified(|| classifier.load()).map_err(failed(CLASSIFIER_STUB))?;
        let xdp = super::measure::program(&mut stubs, XDP_STUB)?;
        verified(|| xdp.load()).map_err(failed(XDP_STUB))?;
        let mut decap = Decapsulator::load()?;
        decap.accept(Prefix::from(IpAddr::V4(BALANCER)), lb_common::encap::GUE_PORT)?;
        let mut programs = AgentPrograms::load(Some(KEYS))?;
        let rule = Rule::new(1400, &[[PORT, PORT]]).expect("one range");
        for vip in [Address::v4(VIP_V4.octets()), Address::v6(VIP_V6.octets())] {
            let listener = Listener { until: u64::MAX, mss: 1400, window: 64_400, wscale: 7, flags: 0, zero: 0 };
            let tables = programs.mint().expect("there is room for keys");
            tables.listeners.write(Service::new(vip, PORT), listener)?;
            tables.vips.write(HOST, vip, rule)?;
        }
        for vip in [IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)] {
            programs.clamp(Prefix::from(vip), rule)?;
        }
        Ok(Self { programs, decap, stubs, effort })
    }

    fn measure(&mut self, program: Program, frame: &[u8]) -> Result<Cost, BenchError> {
        let (mut net, mut floor) = (Vec::new(), Vec::new());
        for batch in 0..=self.effort.batches {
            let stub = self.run_stub(program, frame)?;
            let whole = self.run(program, frame)?;
            // The first batch only warms the caches.
            if batch > 0 {
                net.push(nanos(whole) - nanos(stub));
                floor.push(nanos(stub));
            }
        }
        Ok(Cost { net: median(net), stub: 0.0, floor: median(floor) })
    }

    fn run_stub(&mut self, program: Program, frame: &[u8]) -> Result<Duration, BenchError> {
        let packets = self.effort.packets;
        match program {
            Program::Decap => {
                let stub = super::measure::program(&mut self.stubs, XDP_STUB)?;
                checked(XDP_STUB, program.pass(), frame, packets, |options| stub.test_run(options))
            }
            Program::Mint | Program::Clamp | Program::Plain => {
                let stub = classifier(&mut self.stubs)?;
                checked(CLASSIFIER_STUB, program.pass(), frame, packets, |options| stub.test_run(options))
            }
        }
    }

    fn run(&mut self, program: Program, frame: &[u8]) -> Result<Duration, BenchError> {
        let (name, packets) = (program.name(), self.effort.packets);
        match program {
            Program::Decap => {
                let decap = self.decap.program()?;
                checked(name, program.pass(), frame, packets, |options| decap.test_run(options))
            }
            Program::Mint | Program::Clamp | Program::Plain => {
                let classifier = self.programs.program(name)?;
                checked(name, program.pass(), frame, packets, |options| classifier.test_run(options))
            }
        }
    }
}

/// A batch of a program, out of which the packet must come as it went in, to go on its way.
fn checked(
    name: &'static str,
    pass: u32,
    frame: &[u8],
    packets: u32,
    run: impl FnOnce(TestRunOptions<'_>) -> Result<TestRunResult, ProgramError>,
) -> Result<Duration, BenchError> {
    let mut after = vec![0; frame.len() + 64];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut after),
        repeat: packets,
        ..TestRunOptions::default()
    };
    let result = run(options).map_err(failed(name))?;
    after.truncate(result.data_size_out as usize);
    if result.return_value == pass && after == frame {
        return Ok(result.duration);
    }
    Err(BenchError::Touched { program: name, action: result.return_value })
}

fn failed(program: &'static str) -> impl FnOnce(ProgramError) -> LoadError {
    move |error| LoadError::Program { program, error }
}

fn classifier(stubs: &mut Balancer) -> Result<&mut SchedClassifier, LoadError> {
    let program = stubs.object().program_mut(CLASSIFIER_STUB).ok_or(LoadError::Missing(CLASSIFIER_STUB))?;
    program.try_into().map_err(failed(CLASSIFIER_STUB))
}
