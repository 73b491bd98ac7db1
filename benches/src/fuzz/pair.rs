//! Both worlds, in step and fast: after each frame only what the decision touched is compared, after each sequence that
//! nothing else is left in the tables of flows and tokens, and now and then everything.
//!
//! The kernel's clock cannot be set, so the host's is set to it; a run in which a tick passed between the two is void.

use super::{
    sequence::{Change, Sequence, Step},
    touched::{Noting, Touched},
    worlds::{
        Outcome, Verdict, World as _,
        host::{self, Host},
        kernel::{self, Kernel},
        oracle,
        setup::{LOOPBACK, Setup},
    },
};
use aya::maps::{Array, MapData, PerCpuArray, PerCpuValues};
use lb_common::{
    answer::answer,
    host::{HostFrame, HostTables},
    ids::{BackendId, FlowHash, PoolId, Tick},
    limits,
    reason::{Action, Reason},
    recent::{Bucket, bucket_of},
    steer::{Refusal, steer},
    tables::{self, Budget, Counter, Exception, FlowEntry, RING_SLOTS, Slot, Tables as _, counter_index},
};
use lb_user::bpf::{ArrayTable, HashTable, PerCpuTable};
use nix::{
    sched::{CpuSet, sched_getcpu, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use std::{collections::HashSet, thread, time::Duration};

/// Reasons that no frame of a test run has: they tell of a driver without room, or of a program that was not loaded.
pub(super) const UNREACHABLE: [Reason; 2] = [Reason::NoProgram, Reason::NoHeadroom];

const KINDS: [Exception; 3] = [Exception::Joined, Exception::Moved, Exception::Pinned];

/// A tick passed while a frame was under way.
#[derive(Debug)]
pub(super) struct Void;

pub(super) struct Pair {
    setup: Setup,
    host: Host,
    kernel: Kernel,
    networks: Array<MapData, u64>,
    errors: PerCpuArray<MapData, u64>,
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
        let mut kernel = Kernel::of(&setup);
        let mut take = |name| kernel.balancer.object().take_map(name).expect("a map of the object");
        let [networks, errors] = ["weir_networks", "weir_errors"].map(&mut take);
        let mut pair = Self {
            networks: networks.try_into().expect("an array of words"),
            errors: errors.try_into().expect("a word for each CPU"),
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
        let (outcome, touched) = decide(&mut self.host.tables, frame);
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
        let (kernel, host) = (&self.kernel.balancer, &mut self.host.tables);
        let differ = "kernel (left) and host (right) remember different things";
        if let Some((flow, buckets)) = buckets_of(host, place) {
            let index = bucket_of(flow, number(buckets.len()));
            let by_kernel = kernel_buckets(kernel, place).read(index).expect("within the table");
            assert_eq!(by_kernel, buckets[index as usize], "{differ}: {place:?}");
            return;
        }
        match place {
            Touched::Entry(flow) => {
                for kind in KINDS {
                    let by_kernel = flows(kernel, kind).read(flow).expect("the kernel answers");
                    assert_eq!(by_kernel, host_flow(host, kind, flow), "{differ}: {kind:?}");
                }
            }
            Touched::Token(key) => {
                let by_kernel = kernel.tokens.read(key).expect("the kernel answers");
                assert_eq!(by_kernel, host.tokens.get(&key).copied(), "{differ}: a token");
            }
            Touched::Network(network) => {
                let index = bucket_of(network, limits::NETWORKS);
                let by_kernel = self.networks.get(&index, 0).expect("within the table");
                assert_eq!(by_kernel, word(host.networks[index as usize]), "{differ}: a network's budget");
            }
            Touched::Errors => {
                let by_kernel = self.errors.get(&0, 0).expect("one element")[self.cpu];
                assert_eq!(by_kernel, word(host.errors), "{differ}: the CPU's budget");
            }
            _ => {}
        }
    }

    fn change(&mut self, change: Change) {
        match change {
            Change::Gone(id) => {
                self.write_backend(id, tables::Backend::GONE);
                self.gone.insert(id);
            }
            Change::Back(id) => self.bring_back(id),
            Change::Slot { pool, slot, owner, previous, pins, keeps } => {
                let mut state = Slot::settled(BackendId(owner));
                if previous != 0 {
                    state = Slot::in_transition(BackendId(owner), BackendId(previous));
                    state = if pins { state.pinning() } else { state };
                    state = if keeps { state.keeping_datagrams() } else { state };
                }
                self.write_slot(PoolId(pool), slot, state);
                self.slots.push((PoolId(pool), slot));
            }
            Change::ForgetTokens => {
                for (key, _) in self.host.tables.tokens.drain() {
                    self.kernel.balancer.tokens.remove(key).expect("the kernel takes it out");
                }
            }
            Change::ForgetFlows => self.forget_flows(),
            Change::Age(ticks) => self.age(ticks),
        }
    }

    fn bring_back(&mut self, id: u16) {
        if self.gone.remove(&id) {
            let backend = self.setup.backends.iter().find(|backend| backend.id == BackendId(id));
            self.write_backend(id, backend.expect("one of the setup").entry());
        }
    }

    fn write_backend(&mut self, id: u16, backend: tables::Backend) {
        self.host.write_backend(BackendId(id), backend);
        self.kernel.write_backend(BackendId(id), backend);
    }

    fn write_slot(&mut self, pool: PoolId, slot: u32, state: Slot) {
        self.host.tables.slots[HostTables::slot_index(pool, slot)] = state;
        let first = HostTables::slot_index(pool, 0);
        let ring = &self.host.tables.slots[first..first + RING_SLOTS as usize];
        self.kernel.balancer.rings.write(pool, ring, &[slot]).expect("room for a ring");
    }

    fn forget_flows(&mut self) {
        for kind in KINDS {
            for (flow, _) in self.host.entries(kind) {
                flows_mut(&mut self.kernel.balancer, kind).remove(flow).expect("the kernel takes it out");
            }
        }
        let host = &mut self.host.tables;
        for table in [&mut host.joined, &mut host.moved, &mut host.pinned] {
            table.clear();
        }
    }

    fn age(&mut self, ticks: u32) {
        let flows = self.touched.iter().filter_map(|place| match place {
            Touched::Datagrams(flow) => Some(*flow),
            _ => None,
        });
        for flow in flows {
            let bucket = self.host.tables.datagrams(flow).expect("a bucket");
            let Some(recent) = bucket.find(flow) else { continue };
            recent.at = Tick(recent.at.0.wrapping_sub(ticks));
            let table = &mut self.kernel.balancer.datagrams;
            table.write(bucket_of(flow, table.len()), *bucket).expect("within the table");
        }
    }

    /// Empties what was touched, and sees that nothing else has an entry.
    fn clear(&mut self) {
        self.change(Change::ForgetTokens);
        self.forget_flows();
        for place in std::mem::take(&mut self.touched) {
            self.clear_place(place);
        }
        for id in std::mem::take(&mut self.gone) {
            self.gone.insert(id);
            self.bring_back(id);
        }
        self.restore_slots();
        if self.sequences.is_multiple_of(16) {
            self.clear_filter();
        }
        let kernel = &self.kernel.balancer;
        assert!(kernel.tokens.entries().next().is_none(), "the kernel has a token that the host has not");
        for kind in KINDS {
            let none = flows(kernel, kind).entries().next().is_none();
            assert!(none, "the kernel has an entry that the host has not: {kind:?}");
        }
    }

    fn restore_slots(&mut self) {
        for (pool, slot) in std::mem::take(&mut self.slots) {
            self.write_slot(pool, slot, self.setup.pools[usize::from(pool.0)].ring[slot as usize]);
        }
    }

    fn clear_place(&mut self, place: Touched) {
        if let Some((flow, buckets)) = buckets_of(&mut self.host.tables, place) {
            let index = bucket_of(flow, number(buckets.len()));
            if buckets[index as usize] != Bucket::default() {
                buckets[index as usize] = Bucket::default();
                kernel_buckets_mut(&mut self.kernel.balancer, place).write(index, Bucket::default()).expect("within");
            }
        }
        match place {
            Touched::Network(network) => {
                let index = bucket_of(network, limits::NETWORKS);
                self.host.tables.networks[index as usize] = Budget::default();
                self.networks.set(index, 0, 0).expect("within the table");
            }
            Touched::Errors => self.clear_errors(),
            _ => {}
        }
    }

    fn clear_errors(&mut self) {
        self.host.tables.errors = Budget::default();
        let cpus = self.errors.get(&0, 0).expect("one element").len();
        let zeros = PerCpuValues::try_from(vec![0; cpus]).expect("a word for each CPU");
        self.errors.set(0, zeros, 0).expect("one element");
    }

    /// While it is nearly empty the filter leaves no mistake about it unseen.
    fn clear_filter(&mut self) {
        let filter = &mut self.kernel.balancer.filter;
        for index in 0..filter.len() {
            filter.write(index, 0).expect("within the table");
        }
    }

    /// Sees that the kernel has nothing in any table, and that it has counted nothing but what the host has.
    pub(super) fn audit(&self) {
        let kernel = &self.kernel.balancer;
        for buckets in [&kernel.pending, &kernel.embryonic, &kernel.closing, &kernel.datagrams, &kernel.fragments] {
            for index in 0..buckets.len() {
                let bucket = buckets.read(index).expect("within the table");
                assert_eq!(bucket, Bucket::default(), "the kernel wrote to a bucket that the host did not touch");
            }
        }
        for index in 0..self.networks.len() {
            assert_eq!(self.networks.get(&index, 0).expect("within"), 0, "the kernel changed another budget");
        }
        for (table, known) in [(&kernel.counters, &self.counted), (&kernel.sent, &self.sent)] {
            for (index, counter) in (0..).zip(known) {
                assert_eq!(total(table, index), *counter, "the kernel (left) counted in another row, {index}, too");
            }
        }
    }

    /// Empties the kernel's tables after a difference, and takes its counters as they are.
    pub(super) fn resume(&mut self) {
        self.restore_slots();
        self.clear_filter();
        let setup = &self.setup;
        self.host = Host::new(setup);
        self.kernel.start_over(setup);
        for index in 0..self.networks.len() {
            self.networks.set(index, 0, 0).expect("within the table");
        }
        self.clear_errors();
        let closing = &mut self.kernel.balancer.closing;
        for index in 0..closing.len() {
            closing.write(index, Bucket::default()).expect("within the table");
        }
        self.touched.clear();
        self.gone.clear();
        let kernel = &self.kernel.balancer;
        for (table, known) in [(&kernel.counters, &mut self.counted), (&kernel.sent, &mut self.sent)] {
            for (index, counter) in (0..).zip(known) {
                *counter = total(table, index);
            }
        }
    }
}

/// What the host makes of a frame, and what it touched in the course.
fn decide(tables: &mut HostTables, frame: &[u8]) -> (Outcome, Vec<Touched>) {
    let mut noting = Noting { tables, touched: Vec::new() };
    let decision = steer(&frame, &mut noting);
    let vip = decision.vip;
    let outcome = match decision.verdict {
        Ok(forward) => Outcome {
            vip,
            reason: forward.reason,
            backend: Some(forward.id),
            verdict: if forward.backend.interface == LOOPBACK { Verdict::Transmit } else { Verdict::Redirect },
            counted_bytes: forward.ip.end() as u64,
            bytes: host::sent(frame, &forward),
        },
        Err(refusal) => {
            let (reason, verdict, bytes) = refuse(frame, refusal);
            Outcome { vip, reason, backend: None, verdict, counted_bytes: frame.len() as u64, bytes }
        }
    };
    (outcome, noting.touched)
}

fn refuse(frame: &[u8], Refusal { reason, path_mtu }: Refusal) -> (Reason, Verdict, Vec<u8>) {
    match reason.action() {
        Action::Pass => (reason, Verdict::Pass, frame.to_vec()),
        Action::Drop | Action::Forward => (reason, Verdict::Drop, frame.to_vec()),
        Action::Reply => {
            let mut reply = HostFrame::new(frame);
            match answer(&mut reply, reason, path_mtu) {
                Some(()) => (reason, Verdict::Transmit, reply.bytes().to_vec()),
                None => (Reason::NoRoomForAnswer, Verdict::Drop, frame.to_vec()),
            }
        }
    }
}

fn buckets_of(host: &mut HostTables, place: Touched) -> Option<(FlowHash, &mut Vec<Bucket>)> {
    match place {
        Touched::Pending(flow) => Some((flow, &mut host.pending)),
        Touched::Embryonic(flow) => Some((flow, &mut host.embryonic)),
        Touched::Closing(flow) => Some((flow, &mut host.closing)),
        Touched::Datagrams(flow) => Some((flow, &mut host.datagrams)),
        Touched::Fragments(flow) => Some((flow, &mut host.fragments)),
        _ => None,
    }
}

fn kernel_buckets(kernel: &lb_user::bpf::Balancer, place: Touched) -> &ArrayTable<Bucket> {
    match place {
        Touched::Pending(_) => &kernel.pending,
        Touched::Embryonic(_) => &kernel.embryonic,
        Touched::Closing(_) => &kernel.closing,
        Touched::Datagrams(_) => &kernel.datagrams,
        _ => &kernel.fragments,
    }
}

fn kernel_buckets_mut(kernel: &mut lb_user::bpf::Balancer, place: Touched) -> &mut ArrayTable<Bucket> {
    match place {
        Touched::Pending(_) => &mut kernel.pending,
        Touched::Embryonic(_) => &mut kernel.embryonic,
        Touched::Closing(_) => &mut kernel.closing,
        Touched::Datagrams(_) => &mut kernel.datagrams,
        _ => &mut kernel.fragments,
    }
}

const fn flows(kernel: &lb_user::bpf::Balancer, kind: Exception) -> &HashTable<FlowHash, FlowEntry> {
    match kind {
        Exception::Joined => &kernel.joined,
        Exception::Moved => &kernel.moved,
        Exception::Pinned => &kernel.pinned,
    }
}

const fn flows_mut(kernel: &mut lb_user::bpf::Balancer, kind: Exception) -> &mut HashTable<FlowHash, FlowEntry> {
    match kind {
        Exception::Joined => &mut kernel.joined,
        Exception::Moved => &mut kernel.moved,
        Exception::Pinned => &mut kernel.pinned,
    }
}

fn host_flow(host: &HostTables, kind: Exception, flow: FlowHash) -> Option<FlowEntry> {
    let table = match kind {
        Exception::Joined => &host.joined,
        Exception::Moved => &host.moved,
        Exception::Pinned => &host.pinned,
    };
    table.get(&flow).copied()
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

fn number(len: usize) -> u32 {
    u32::try_from(len).expect("a small table")
}

fn word(budget: Budget) -> u64 {
    zerocopy::transmute!(budget)
}

/// The tick that the kernel's programs read.
fn tick() -> Tick {
    Tick::from_nanos(nanos())
}

fn nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("every kernel has this clock");
    Duration::from(time).as_nanos().try_into().expect("584 years")
}

/// The same, when the next is not near.
fn calm_tick() -> Tick {
    const NEAR_NS: u64 = 9_000_000;
    loop {
        let now = nanos();
        if now % Tick::NANOS < Tick::NANOS - NEAR_NS {
            return Tick::from_nanos(now);
        }
        thread::sleep(Duration::from_millis(2));
    }
}
