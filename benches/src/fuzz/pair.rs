//! Both worlds, in step and fast: after each frame only what the decision touched is compared, after each sequence that
//! nothing else is left in the tables of flows and tokens, and now and then everything.
//!
//! The kernel's clock cannot be set, so the host's is set to it; a run in which a tick passed between the two is void.

mod changes;
mod clearing;
mod clock;

use super::{
    sequence::{Sequence, Step},
    touched::{Noting, Touched},
    worlds::{
        KINDS, Outcome, Verdict, World as _,
        host::{self, Host},
        kernel::{self, Kernel},
        oracle,
        setup::Setup,
    },
};
use clock::{calm_tick, tick};
use lb_common::{
    ids::{BackendId, PoolId},
    limits,
    reason::Reason,
    recent::bucket_of,
    steer::steer,
    tables::{Counter, counter_index, join_place},
};
use lb_user::bpf::PerCpuTable;
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    unistd::Pid,
};
use std::collections::HashSet;

/// Reasons that no frame of a test run has: they tell of a driver without room, or of a program that was not loaded.
pub(super) const UNREACHABLE: [Reason; 2] = [Reason::NoProgram, Reason::NoHeadroom];

/// A tick passed while a frame was under way.
#[derive(Debug)]
pub(super) struct Void;

pub(super) struct Pair {
    setup: Setup,
    host: Host,
    kernel: Kernel,
    cpu: usize,
    counted: Vec<Counter>,
    sent: Vec<Counter>,
    touched: HashSet<Touched>,
    gone: HashSet<u16>,
    slots: Vec<(PoolId, u32)>,
    sequences: u64,
    /// How often each reason was given.
    pub(super) reasons: Vec<u64>,
}

impl Pair {
    /// Both worlds of a setup. The thread stays on its CPU from here on: some of the kernel's tables are a CPU's own.
    ///
    /// # Panics
    /// Without root's privileges, or where the kernel does not take the programs; likewise below, and with what differs.
    pub(super) fn new(setup: Setup) -> Self {
        let cpu = sched_getcpu().expect("the kernel tells");
        let mut only = CpuSet::new();
        only.set(cpu).expect("a CPU that there is");
        sched_setaffinity(Pid::from_raw(0), &only).expect("the kernel lets a thread stay");
        let host = Host::new(&setup);
        let kernel = Kernel::of(&setup);
        let mut pair = Self {
            counted: vec![Counter::default(); (setup.vips.len() + 1) * Reason::COUNT],
            sent: vec![Counter::default(); setup.backends.len() + 1],
            host,
            kernel,
            setup,
            cpu,
            touched: HashSet::new(),
            gone: HashSet::new(),
            slots: Vec::new(),
            sequences: 0,
            reasons: vec![0; Reason::COUNT],
        };
        pair.resume();
        pair
    }

    /// Plays a sequence on empty tables, and leaves them empty.
    ///
    /// # Errors
    /// It is void, and has to be played again.
    pub(super) fn play(&mut self, sequence: &Sequence) -> Result<(), Void> {
        let played = sequence.steps.iter().try_for_each(|step| match step {
            Step::Frame(frame) => self.send(frame),
            Step::Change(change) => {
                self.change(*change);
                Ok(())
            }
        });
        self.clear();
        self.sequences += 1;
        played
    }

    fn send(&mut self, frame: &[u8]) -> Result<(), Void> {
        let now = calm_tick();
        self.host.tables.now = now;
        let program = self.kernel.balancer.program().expect("it is loaded");
        let (action, bytes) = kernel::test_run(program, frame, None);
        if tick() != now {
            self.resume();
            return Err(Void);
        }
        let mut noting = Noting { tables: &mut self.host.tables, touched: Vec::new() };
        let outcome = host::outcome(frame, &steer(&frame, &mut noting));
        let touched = noting.touched;
        let verdict = kernel::verdict(action);
        assert_eq!(
            verdict, outcome.verdict,
            "the verdicts of kernel (left) and host (right), here {:?}",
            outcome.reason
        );
        assert!(verdict == Verdict::Drop || bytes == outcome.bytes, "kernel and host send different bytes");
        self.agree_on_counters(&outcome);
        for place in touched {
            self.agree_on(place);
            self.touched.insert(place);
        }
        oracle::judge_bytes(&self.setup, frame, &outcome);
        self.reasons[outcome.reason.index() as usize] += 1;
        Ok(())
    }

    fn agree_on_counters(&mut self, outcome: &Outcome) {
        let counted = Counter { packets: 1, bytes: outcome.counted_bytes };
        let row = counter_index(outcome.vip, outcome.reason);
        count(&mut self.counted, row, counted);
        let balancer = &self.kernel.balancer;
        let by_kernel = total(&balancer.counters, row);
        assert!(by_kernel == self.counted[row as usize], "the kernel did not count {:?}", outcome.reason);
        if let Some(BackendId(id)) = outcome.backend {
            let row = u32::from(id);
            count(&mut self.sent, row, counted);
            assert_eq!(total(&balancer.sent, row), self.sent[row as usize], "sent to backend {id}");
        }
    }

    fn agree_on(&mut self, place: Touched) {
        let differ = "kernel (left) and host (right) remember different things";
        let host = &self.host.tables;
        match place {
            Touched::Recent(memory, flow) => {
                let (by_kernel, by_host) = (self.kernel.bucket(memory, flow), self.host.bucket(memory, flow));
                assert_eq!(by_kernel, by_host, "{differ}: {memory:?}");
            }
            Touched::Entry(flow) => {
                for kind in KINDS {
                    let by_kernel = self.kernel.flows(kind).read(flow).expect("the kernel answers");
                    assert_eq!(by_kernel, host.flows(kind).get(&flow).copied(), "{differ}: {kind:?}");
                }
            }
            Touched::Token(key) => {
                let by_kernel = self.kernel.balancer.tokens.read(key).expect("the kernel answers");
                assert_eq!(by_kernel, host.tokens.get(&key).copied(), "{differ}: a token");
            }
            Touched::Network(network) => {
                let index = bucket_of(network, limits::NETWORKS);
                let by_kernel = self.kernel.balancer.networks.read(index).expect("within the table");
                assert_eq!(by_kernel, host.networks[index as usize], "{differ}: a network's budget");
            }
            Touched::Joins(token) => {
                let index = join_place(token);
                let by_kernel = self.kernel.balancer.joins.read(index).expect("within the table");
                assert_eq!(by_kernel, host.joins[index as usize], "{differ}: a token's budget");
            }
            Touched::Errors => {
                let by_kernel = self.kernel.balancer.errors.read(0).expect("one element")[self.cpu];
                assert_eq!(by_kernel, host.errors, "{differ}: the CPU's budget");
            }
        }
    }
}

fn count(known: &mut [Counter], row: u32, more: Counter) {
    let counter = &mut known[row as usize];
    counter.packets += more.packets;
    counter.bytes += more.bytes;
}

fn total(table: &PerCpuTable<Counter>, row: u32) -> Counter {
    let mut sum = Counter::default();
    for counter in table.read(row).expect("a row of the setup") {
        sum.packets += counter.packets;
        sum.bytes += counter.bytes;
    }
    sum
}
