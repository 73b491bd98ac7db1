//! Runs packets through the wrapped balancer and through the wrapped stub in turn, and checks that the balancer did with
//! every one of them what it was to be measured for.

use std::time::Duration;

use aya::{
    maps::{Array, MapData},
    programs::{TestRun as _, TestRunOptions, Xdp, XdpMode},
};
use lb_common::{
    bench::{Plan, Varies},
    ids::VipId,
    reason::Reason,
    tables::counter_index,
};
use lb_user::{
    bpf::{Balancer, LoadError, Pod, Sizes, verified},
    refilter,
};

use super::{
    BenchError, Effort,
    farm::{self, Farm, Outer},
    interfaces,
    load::{Baseline, Load},
};

const BALANCER: &str = "weir_bench";
const TRACK: &str = "weir_bench_track";
const STUBS: [&str; 4] = ["weir_bench_0", "weir_bench_20", "weir_bench_40", "weir_bench_32"];

impl Baseline {
    const fn program(self) -> &'static str {
        match self {
            Self::Empty => STUBS[0],
            Self::Push(Outer::V4) => STUBS[1],
            Self::Push(Outer::V6) => STUBS[2],
            Self::Push(Outer::Gue) => STUBS[3],
        }
    }
}

/// Nanoseconds a packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// The balancer, without the wrapper and without what its stub does.
    pub(crate) net: f64,
    /// The stub, without the wrapper.
    pub(crate) stub: f64,
    /// The wrapper, around nothing.
    pub(crate) floor: f64,
}

/// A filled balancer, ready to be measured.
pub(super) struct Bench {
    farm: Farm,
    balancer: Balancer,
    plan: Array<MapData, Pod<Plan>>,
    effort: Effort,
    /// Tokens that are in the table.
    learned: u32,
    /// Flows that have an entry.
    tracked: u32,
}

impl Bench {
    pub(super) fn open(farm: Farm, sizes: &Sizes, outer: Outer, effort: Effort) -> Result<Self, BenchError> {
        let mut balancer = farm.open(sizes, outer)?;
        for name in STUBS.into_iter().chain([BALANCER, TRACK]) {
            let program = program(&mut balancer, name)?;
            verified(|| program.load()).map_err(|error| LoadError::Program { program: name, error })?;
        }
        for (name, interface) in STUBS.into_iter().chain([BALANCER]).zip(interfaces::NAMES) {
            let attached = program(&mut balancer, name)?.attach(interface, XdpMode::Skb);
            attached.map_err(|error| LoadError::Program { program: name, error })?;
        }
        let plan = balancer.object().take_map("weir_bench_plan").ok_or(LoadError::Missing("weir_bench_plan"))?;
        Ok(Self { farm, balancer, plan: Array::try_from(plan)?, effort, learned: 0, tracked: 0 })
    }

    /// Has so many connections' tokens in the table, if there are fewer.
    pub(super) fn learn(&mut self, tokens: u32) -> Result<(), BenchError> {
        self.farm.learn(&mut self.balancer, self.learned..tokens)?;
        self.learned = self.learned.max(tokens);
        Ok(())
    }

    /// Has tokens name backends by themselves from now on.
    pub(super) fn name_by_tokens(&mut self) -> Result<(), BenchError> {
        self.farm.name_by_tokens(&mut self.balancer)
    }

    /// What a packet of `load` costs where so many flows and tokens take turns.
    pub(super) fn measure(&mut self, load: &Load, flows: u32, tokens: u32) -> Result<Cost, BenchError> {
        let mut plan = self.plan(load, flows, tokens);
        let mut net = Vec::new();
        let mut stub = Vec::new();
        let mut floor = Vec::new();
        for batch in 0..=self.effort.batches {
            if load.varies == Varies::KEY {
                farm::forget(&mut self.balancer, self.effort.packets / 2)?;
            }
            let empty = self.run(Baseline::Empty.program(), load, &mut plan.clone())?;
            let baseline = self.run(load.baseline.program(), load, &mut plan.clone())?;
            let whole = self.run_checked(load, &mut plan)?;
            // The first batch only warms the caches.
            if batch > 0 {
                net.push(nanos(whole) - nanos(baseline));
                stub.push(nanos(baseline) - nanos(empty));
                floor.push(nanos(empty));
            }
        }
        Ok(Cost { net: median(net), stub: median(stub), floor: median(floor) })
    }

    /// Has so many flows in the table of joined flows, if there are fewer, from the clients with this address on.
    pub(super) fn track(&mut self, load: &Load, client: u32, flows: u32) -> Result<(), BenchError> {
        if flows <= self.tracked {
            return Ok(());
        }
        let mut plan = Plan { client, ..self.plan(load, flows, 1) };
        self.run_program(TRACK, &load.frames[0], flows, &mut plan)?;
        self.tracked = flows;
        refilter::renew_if_unfit(&mut self.balancer, flows.into())?;
        if plan.tracked == flows { Ok(()) } else { Err(BenchError::Untracked { flows, found: plan.tracked }) }
    }

    /// How the packets are made, for all of the farm's VIPs.
    fn plan(&self, load: &Load, flows: u32, tokens: u32) -> Plan {
        Plan { vips: self.farm.vips.into(), ..load.plan(flows, tokens) }
    }

    /// A batch of the balancer: every packet must have an expected reason, each as often as the others.
    fn run_checked(&mut self, load: &Load, plan: &mut Plan) -> Result<Duration, BenchError> {
        let before = self.counts(load)?;
        let took = self.run(BALANCER, load, plan)?;
        let moved: Vec<_> = self
            .counts(load)?
            .into_iter()
            .zip(before)
            .map(|(now, before)| Counted { packets: now.packets - before.packets, ..now })
            .filter(|moved| moved.packets > 0)
            .collect();
        let share = u64::from(self.effort.packets) / load.expected.len() as u64;
        let right = |&Counted { reason, of_vips, packets }: &Counted| {
            load.expected.contains(&reason) && packets == share && (of_vips || reason == Reason::NotVip)
        };
        if moved.len() == load.expected.len() && moved.iter().all(right) {
            return Ok(took);
        }
        let moved = moved.iter().map(|Counted { reason, packets, .. }| format!("{} {packets} times", reason.as_str()));
        Err(BenchError::OtherPath {
            expected: load.expected.iter().map(|reason| reason.as_str()).collect::<Vec<_>>().join(", "),
            share,
            found: moved.collect::<Vec<_>>().join(", "),
        })
    }

    fn run(&mut self, program: &'static str, load: &Load, plan: &mut Plan) -> Result<Duration, BenchError> {
        self.run_program(program, &load.frames[0], self.effort.packets, plan)
    }

    /// A batch of a program. The packet must come out of it as long as it went in: the wrapper has undone everything.
    fn run_program(
        &mut self,
        name: &'static str,
        frame: &[u8],
        packets: u32,
        plan: &mut Plan,
    ) -> Result<Duration, BenchError> {
        plan.packets = 0;
        self.plan.set(0, Pod(*plan), 0)?;
        let mut after = vec![0; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut after),
            repeat: packets,
            ..TestRunOptions::default()
        };
        let program = program(&mut self.balancer, name)?;
        let result = program.test_run(options).map_err(|error| LoadError::Program { program: name, error })?;
        let Pod(used) = self.plan.get(&0, 0)?;
        *plan = used;
        let expected_action = [XDP_PASS, XDP_TX].contains(&result.return_value);
        if !expected_action || result.data_size_out as usize != frame.len() || used.packets != packets {
            return Err(BenchError::Wrapper {
                program: name,
                action: result.return_value,
                len: result.data_size_out,
                packets: used.packets,
            });
        }
        Ok(result.duration)
    }

    /// What has been counted, of no VIP and of all together. Of all VIPs but the first only what is expected is read: that
    /// this is as many as there are packets leaves none for another reason.
    fn counts(&self, load: &Load) -> Result<Vec<Counted>, BenchError> {
        let mut counts = Vec::new();
        for &reason in Reason::ALL {
            let read = if load.expected.contains(&reason) { usize::MAX } else { 1 };
            let of_vips = self.farm.vips().take(read).map(|vip| self.packets(vip, reason)).sum::<Result<u64, _>>()?;
            counts.push(Counted { reason, of_vips: true, packets: of_vips });
            counts.push(Counted { reason, of_vips: false, packets: self.packets(VipId::NONE, reason)? });
        }
        Ok(counts)
    }

    fn packets(&self, vip: VipId, reason: Reason) -> Result<u64, BenchError> {
        let counters = self.balancer.counters.read(counter_index(vip, reason))?;
        Ok(counters.iter().map(|counter| counter.packets).sum())
    }
}

/// Packets that had a reason.
#[derive(Debug, Clone, Copy)]
struct Counted {
    reason: Reason,
    /// Whether they were for a VIP.
    of_vips: bool,
    packets: u64,
}

const XDP_PASS: u32 = 2;
const XDP_TX: u32 = 3;

pub(super) fn program<'b>(balancer: &'b mut Balancer, name: &'static str) -> Result<&'b mut Xdp, LoadError> {
    let program = balancer.object().program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|error| LoadError::Program { program: name, error })
}

pub(super) fn nanos(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let half = figures.len() / 2;
    figures.get(half).copied().unwrap_or_default()
}
