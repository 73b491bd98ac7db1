//! The decision as the kernel runs it: the XDP program under `BPF_PROG_TEST_RUN`, judged by its verdict, its bytes and
//! the counters that it moved.

use super::{
    KINDS, Memory, Outcome, Verdict, World, oracle,
    packet::Flow,
    setup::{CLUSTER_KEY, Limits, Rules, Setup},
};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use lb_common::{
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId, Tick, VipId},
    limits,
    reason::Reason,
    recent::{Bucket, bucket_of},
    share::Event,
    stateless::{Bearer, Codec, TokenId},
    tables::{
        Backend, Budget, Counter, Exception, FlowEntry, Globals, RING_SLOTS, Slot, TokenEntry, TokenKey, counter_index,
    },
    wire::ip::Family,
};
use lb_user::{
    bpf::{ArrayTable, Balancer, HashTable, PerCpuTable, Sizes},
    sweep::Sweeper,
};
use std::{collections::BTreeSet, sync::Mutex};

/// Room for the longest frame that a test sends, and a tunnel.
const OUT: usize = 1 << 14;
/// Backends whose counters are watched; the tests have fewer.
const BACKENDS: u32 = 16;
/// Where `struct xdp_md` has its `data_end`, and its size.
const DATA_END: usize = 4;
const XDP_MD: usize = 24;

pub(crate) struct Kernel {
    pub(crate) balancer: Balancer,
    counters: Vec<Counter>,
    sent: Vec<Counter>,
    closing_buckets: BTreeSet<u32>,
    /// The slots of all rings, as they were written.
    slots: Vec<Slot>,
    /// The ids that a backend has had in stateless tokens.
    bearers: Vec<(PoolId, TokenId)>,
    limits: Limits,
}

/// Balancers that a test is done with: to load one and to fill its rings takes a second, to set it up anew a hundredth.
static IDLE: Mutex<Vec<Kernel>> = Mutex::new(Vec::new());

impl Kernel {
    /// A balancer of this setup that remembers nothing.
    ///
    /// # Panics
    /// Without root's privileges, or where the kernel does not take the program.
    pub(crate) fn of(setup: &Setup) -> Self {
        let mut idle = IDLE.lock().expect("no test fails while it holds this");
        let place = idle.iter().position(|kernel| kernel.fits(setup));
        let found = place.map(|place| idle.swap_remove(place));
        drop(idle);
        let mut kernel = found.unwrap_or_else(|| Self::new(setup));
        kernel.start_over(setup);
        kernel
    }

    /// Forgets everything, and is told of this setup, which must fit.
    pub(crate) fn start_over(&mut self, setup: &Setup) {
        self.forget();
        self.fill(setup);
    }

    /// Leaves the balancer to other tests.
    pub(crate) fn leave(self) {
        IDLE.lock().expect("no test fails while it holds this").push(self);
    }

    fn fits(&self, setup: &Setup) -> bool {
        self.slots.len() == setup.pools.len() * RING_SLOTS as usize
            && self.counters.len() == watched(setup).len()
            && self.limits == setup.limits
    }

    /// A balancer of its own, to which things happen that happen to no host.
    pub(crate) fn alone(test: impl Fn(&mut Self, Flow)) {
        for family in [Family::V4, Family::V6] {
            let mut kernel = Self::of(&Setup::farm());
            test(&mut kernel, Flow::new(family));
            kernel.leave();
        }
    }

    fn new(setup: &Setup) -> Self {
        let balancer = Balancer::load(&sizes(setup)).unwrap_or_else(|error| panic!("{error}"));
        Self {
            balancer,
            counters: watched(setup),
            sent: vec![Counter::default(); BACKENDS as usize],
            closing_buckets: BTreeSet::new(),
            slots: vec![Slot::default(); setup.pools.len() * RING_SLOTS as usize],
            bearers: Vec::new(),
            limits: setup.limits,
        }
    }

    fn fill(&mut self, setup: &Setup) {
        // Of a test that has had this kernel before, and did not ask.
        self.told();
        let balancer = &mut self.balancer;
        let globals = Globals { tells: 1, ..sizes(setup).globals(SipKey::from_bytes(CLUSTER_KEY)) };
        balancer.globals.write(0, globals).expect("one element");
        let Rules { services, addresses, prefixes } = setup.rules();
        for (index, service) in (0..).zip(services) {
            balancer.services.write(index, service).expect("room for a rule");
        }
        balancer.write_addresses(&addresses, &prefixes).expect("room for the addresses");
        for &(key, backend) in &setup.quic_servers {
            balancer.quic_servers.write(key, backend).expect("room for a server's id");
        }
        for &(pool, codec) in &setup.codecs {
            balancer.codecs.write(u32::from(pool.0), codec).expect("room for a pool");
        }
        for &(pool, id, bearer) in &setup.bearers {
            balancer.bearers.write(pool, id, bearer).expect("room for an id");
            self.bearers.push((pool, id));
        }
        for backend in &setup.backends {
            self.write_backend(backend.id, backend.entry());
        }
        for (pool, index) in setup.pools.iter().zip(0..) {
            self.write_ring(PoolId(index), &pool.ring);
        }
    }

    fn forget(&mut self) {
        for (token, _) in self.tokens() {
            self.balancer.tokens.remove(token).expect("it is there");
        }
        for kind in KINDS {
            for (flow, _) in self.entries(kind) {
                self.flows(kind).remove(flow).expect("it is there");
            }
        }
        let servers =
            self.balancer.quic_servers.entries().collect::<Result<Vec<_>, _>>().expect("the kernel lists them");
        for (key, _) in servers {
            self.balancer.quic_servers.remove(key).expect("it is there");
        }
        for pool in 0..self.balancer.codecs.len() {
            self.balancer.codecs.write(pool, Codec::NONE).expect("within the table");
        }
        for (pool, id) in std::mem::take(&mut self.bearers) {
            self.balancer.bearers.write(pool, id, Bearer::NOBODY).expect("within the table");
        }
        for memory in [Memory::Pending, Memory::Embryonic, Memory::Datagrams, Memory::Fragments] {
            let buckets = self.buckets_mut(memory);
            for index in 0..buckets.len() {
                buckets.write(index, Bucket::default()).expect("within the table");
            }
        }
        self.balancer.errors.fill(0, Budget::default()).expect("one element");
        for index in std::mem::take(&mut self.closing_buckets) {
            self.balancer.closing.write(index, Bucket::default()).expect("within the table");
        }
    }

    /// What the last frames have had to be told to others.
    pub(crate) fn told(&mut self) -> Vec<Event> {
        let events = self.balancer.events.as_mut().expect("nobody has taken them");
        std::iter::from_fn(|| events.take()).collect()
    }

    /// Sends a frame of which only the first `head` bytes lie in the linear part of the buffer.
    pub(crate) fn send_with_head(&mut self, frame: &[u8], head: usize) -> Outcome {
        let mut context = [0; XDP_MD];
        context[DATA_END..DATA_END + 4].copy_from_slice(&u32::try_from(head).expect("a short head").to_ne_bytes());
        self.run(frame, Some(&context))
    }

    /// Does what the controller does every few seconds, as if so many seconds had passed since the flow closed.
    ///
    /// # Panics
    /// If no packet has closed the flow.
    pub(crate) fn sweep_after(&mut self, seconds: u64, closed: FlowHash, sweeper: &mut Sweeper) {
        let sign = *self.bucket(Memory::Closing, closed).of(closed).expect("a closing sign");
        let passed = Tick::from_nanos(seconds * 1_000_000_000);
        sweeper.sweep(&mut self.balancer, Tick(sign.at.0 + passed.0)).expect("the kernel lets it");
    }

    fn run(&mut self, frame: &[u8], context: Option<&[u8]>) -> Outcome {
        if let Some(flow) = oracle::flow_of(frame) {
            self.closing_buckets.insert(bucket_of(flow.hash(), self.balancer.closing.len()));
        }
        let (action, bytes) = test_run(self.balancer.program().expect("it is loaded"), frame, context);
        let (vip, reason, counted) = self.counted_as();
        let backend = self.sent_to(counted);
        Outcome { vip, reason, backend, verdict: verdict(action), counted_bytes: counted.bytes, bytes }
    }

    /// The reason of the last packet: the one counter that moved, by one.
    fn counted_as(&mut self) -> (VipId, Reason, Counter) {
        let moved = moved(&self.balancer.counters, &mut self.counters);
        let [(index, counter)] = moved[..] else { panic!("one counter must move for a packet: {moved:?}") };
        assert_eq!(counter.packets, 1, "a packet was counted more than once");
        let rows = (0..).map(VipId).flat_map(|vip| Reason::ALL.iter().map(move |&reason| (vip, reason)));
        let (vip, reason) = rows.into_iter().nth(index).expect("every index is a reason's");
        assert_eq!(counter_index(vip, reason) as usize, index);
        (vip, reason, counter)
    }

    /// The backend whose counter moved, if one did, by what the reason's counter moved.
    fn sent_to(&mut self, counted: Counter) -> Option<BackendId> {
        let moved = moved(&self.balancer.sent, &mut self.sent);
        match moved[..] {
            [] => None,
            [(index, moved)] => {
                assert_eq!(moved, counted, "the backend's counter and the VIP's differ");
                Some(BackendId(u16::try_from(index).expect("a small id")))
            }
            _ => panic!("a packet was sent to more than one backend: {moved:?}"),
        }
    }

    pub(crate) const fn flows(&mut self, kind: Exception) -> &mut HashTable<FlowHash, FlowEntry> {
        match kind {
            Exception::Joined => &mut self.balancer.joined,
            Exception::Moved => &mut self.balancer.moved,
            Exception::Pinned => &mut self.balancer.pinned,
        }
    }

    pub(crate) const fn buckets(&self, memory: Memory) -> &ArrayTable<Bucket> {
        match memory {
            Memory::Pending => &self.balancer.pending,
            Memory::Embryonic => &self.balancer.embryonic,
            Memory::Closing => &self.balancer.closing,
            Memory::Datagrams => &self.balancer.datagrams,
            Memory::Fragments => &self.balancer.fragments,
        }
    }

    pub(crate) const fn buckets_mut(&mut self, memory: Memory) -> &mut ArrayTable<Bucket> {
        match memory {
            Memory::Pending => &mut self.balancer.pending,
            Memory::Embryonic => &mut self.balancer.embryonic,
            Memory::Closing => &mut self.balancer.closing,
            Memory::Datagrams => &mut self.balancer.datagrams,
            Memory::Fragments => &mut self.balancer.fragments,
        }
    }
}

/// The counters of a setup, none of which has moved: a row for each VIP and one for packets of none.
fn watched(setup: &Setup) -> Vec<Counter> {
    vec![Counter::default(); (setup.vips.len() + 1) * Reason::COUNT]
}

/// Runs a program once: what it answers, and the frame after it.
pub(crate) fn test_run(program: &mut Xdp, frame: &[u8], context: Option<&[u8]>) -> (u32, Vec<u8>) {
    let mut bytes = vec![0; OUT];
    let options = TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut bytes),
        ctx_in: context,
        ..TestRunOptions::default()
    };
    let result = program.test_run(options).unwrap_or_else(|error| panic!("a test run: {error:?}"));
    bytes.truncate(result.data_size_out as usize);
    (result.return_value, bytes)
}

/// The sizes that the host's tables have too.
fn sizes(setup: &Setup) -> Sizes {
    Sizes {
        pools: u32::try_from(setup.pools.len()).expect("few pools"),
        tokens: setup.limits.entries,
        joined_flows: setup.limits.entries,
        moved_flows: setup.limits.entries,
        pinned_flows: setup.limits.entries,
        pending_handshakes: limits::PENDING_HANDSHAKES.min,
        embryonic_flows: limits::EMBRYONIC_FLOWS.min,
        datagram_flows: limits::DATAGRAM_FLOWS.min,
        fragmented_datagrams: limits::FRAGMENTED_DATAGRAMS.min,
        entries_per_network: setup.limits.entries_per_network,
        joins_per_token: setup.limits.joins_per_token,
        icmp_errors_per_cpu: setup.limits.icmp_errors_per_cpu,
    }
}

pub(crate) fn verdict(action: u32) -> Verdict {
    match action {
        1 => Verdict::Drop,
        2 => Verdict::Pass,
        3 => Verdict::Transmit,
        4 => Verdict::Redirect,
        _ => panic!("XDP action {action}"),
    }
}

/// The counters that have moved since the last call, and by how much.
fn moved(table: &PerCpuTable<Counter>, known: &mut [Counter]) -> Vec<(usize, Counter)> {
    let mut moved = Vec::new();
    for (index, known) in known.iter_mut().enumerate() {
        let row = u32::try_from(index).expect("a small table");
        let mut sum = Counter::default();
        for counter in table.read(row).expect("a watched row") {
            sum.packets += counter.packets;
            sum.bytes += counter.bytes;
        }
        if sum != *known {
            moved.push((index, Counter { packets: sum.packets - known.packets, bytes: sum.bytes - known.bytes }));
            *known = sum;
        }
    }
    moved
}

impl World for Kernel {
    fn send(&mut self, frame: &[u8]) -> Outcome {
        self.run(frame, None)
    }

    fn tokens(&self) -> Vec<(TokenKey, TokenEntry)> {
        self.balancer.tokens.entries().collect::<Result<_, _>>().expect("the kernel lists its tokens")
    }

    fn entries(&self, kind: Exception) -> Vec<(FlowHash, FlowEntry)> {
        let table = match kind {
            Exception::Joined => &self.balancer.joined,
            Exception::Moved => &self.balancer.moved,
            Exception::Pinned => &self.balancer.pinned,
        };
        table.entries().collect::<Result<_, _>>().expect("the kernel lists its flows")
    }

    fn memory(&self, memory: Memory) -> Vec<Bucket> {
        let buckets = self.buckets(memory);
        (0..buckets.len()).map(|index| buckets.read(index).expect("within the table")).collect()
    }

    fn bucket(&self, memory: Memory, flow: FlowHash) -> Bucket {
        let buckets = self.buckets(memory);
        buckets.read(bucket_of(flow, buckets.len())).expect("within the table")
    }

    fn write_bucket(&mut self, memory: Memory, flow: FlowHash, bucket: Bucket) {
        let buckets = self.buckets_mut(memory);
        buckets.write(bucket_of(flow, buckets.len()), bucket).expect("within the table");
    }

    fn write_backend(&mut self, id: BackendId, backend: Backend) {
        self.balancer.backends.write(u32::from(id.0), backend).expect("room for a backend");
    }

    fn write_ring(&mut self, pool: PoolId, ring: &[Slot]) {
        let known = &mut self.slots[usize::from(pool.0) * RING_SLOTS as usize..][..ring.len()];
        let changed: Vec<u32> =
            (0..).zip(known.iter().zip(ring)).filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
        self.balancer.rings.write(pool, ring, &changed).expect("room for a ring");
        known.copy_from_slice(ring);
    }

    fn write_token(&mut self, key: TokenKey, entry: TokenEntry) {
        self.balancer.tokens.write(key, entry).expect("room for a token");
    }

    fn remove_token(&mut self, key: TokenKey) {
        self.balancer.tokens.remove(key).expect("the kernel takes it out");
    }

    fn age_entry(&mut self, kind: Exception, flow: FlowHash, ticks: u32) {
        let entry = self.flows(kind).read(flow).expect("the kernel answers").expect("an entry");
        let aged = FlowEntry { seen: Tick(entry.seen.0.wrapping_sub(ticks)), ..entry };
        self.write_entry(kind, flow, aged);
    }

    fn write_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) {
        self.flows(kind).write(flow, entry).expect("room for a flow");
    }
}
