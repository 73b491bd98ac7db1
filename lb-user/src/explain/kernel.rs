//! The real XDP program, in private maps that nothing is pinned of: each frame is a test run of it. What became of a frame is
//! read from the program's verdict and bytes, and from the counters that it moved.

use super::{
    decide::Decided,
    line::Action,
    plan::Plan,
    witness::{Asked, Copied, Memory},
};
use crate::{
    bpf::{ArrayTable, Balancer, LoadError, PerCpuTable},
    clock,
};
use aya::{
    maps::MapError,
    programs::{ProgramError, TestRun as _, TestRunOptions},
};
use lb_common::{
    ids::{BackendId, FlowHash, Tick, VipId},
    reason::{self, Reason},
    recent::{Bucket, bucket_of, filter_place},
    tables::{Budget, Counter, Exception, RING_SLOTS, counter_index},
};
use std::{
    collections::{BTreeMap, HashMap},
    thread,
    time::Duration,
};

/// Room for the longest frame, and a tunnel.
const OUT: usize = 1 << 14;

/// By how much the clock that the program reads may be behind.
const COARSE: Duration = Duration::from_millis(12);
/// Within which a frame is run.
const RUN: Duration = Duration::from_millis(30);

/// Why the kernel did not explain a frame.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The program could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A private table could not be read or written.
    #[error("the kernel refused an entry of the private tables: {0}")]
    Table(#[from] MapError),
    /// The program could not be run.
    #[error("the kernel did not run the program: {0}")]
    Run(#[from] ProgramError),
    /// The program's counters do not tell.
    #[error("the program counted no reason for a frame; weir and its XDP program are of different versions")]
    Uncounted,
}

/// The program and its private maps.
pub(super) struct Kernel {
    balancer: Balancer,
    vips: Vec<VipId>,
    backends: Vec<BackendId>,
    counted: BTreeMap<u32, u64>,
    sent: BTreeMap<u32, u64>,
    time: Time,
}

/// The kernel's clock cannot be moved. So what a frame looks at is aged by the time that a capture says has passed, and not
/// by the time that passes here.
#[derive(Default)]
struct Time {
    /// When the last ICMP error was due, and how many were in that tick.
    errors: (u32, u32),
    networks: HashMap<u32, u32>,
    joins: HashMap<u32, u32>,
    datagrams: HashMap<FlowHash, u32>,
}

impl Kernel {
    /// Loads the program and fills its maps.
    ///
    /// # Errors
    /// The kernel refuses, for want of privilege most likely.
    pub(super) fn load(plan: &Plan) -> Result<Self, KernelError> {
        let mut balancer = Balancer::load(&plan.sizes)?;
        balancer.globals.write(0, plan.globals)?;
        for (index, &service) in (0..).zip(&plan.services) {
            balancer.services.write(index, service)?;
        }
        balancer.write_addresses(&plan.addresses, &plan.prefixes)?;
        for &(key, backend) in &plan.quic_servers {
            balancer.quic_servers.write(key, backend)?;
        }
        for &(pool, codec) in &plan.codecs {
            balancer.codecs.write(u32::from(pool.0), codec)?;
        }
        for (pool, bearers) in &plan.bearers {
            balancer.bearers.write_pool(*pool, bearers)?;
        }
        for &(id, backend) in &plan.backends {
            balancer.backends.write(u32::from(id.0), backend)?;
        }
        let all: Vec<u32> = (0..RING_SLOTS).collect();
        for (pool, slots) in &plan.rings {
            balancer.rings.write(*pool, slots, &all)?;
        }
        // Entries and handshakes may be copied into the tables, which the data path does not see otherwise.
        balancer.marks.write(0, [1; 2])?;
        Ok(Self {
            balancer,
            vips: std::iter::once(VipId::NONE).chain(plan.names.vips.keys().copied()).collect(),
            backends: plan.backends.iter().map(|&(id, _)| id).collect(),
            counted: BTreeMap::new(),
            sent: BTreeMap::new(),
            time: Time::default(),
        })
    }

    /// Runs the program on a frame, `now` ticks after the first. `asked` is what it will look at, `expected` what it is likely
    /// to do: where to look first for what it has done.
    ///
    /// # Errors
    /// The kernel refuses an access or the run.
    pub(super) fn send(
        &mut self,
        frame: &[u8],
        now: u32,
        asked: &Asked,
        expected: &Decided,
    ) -> Result<Decided, KernelError> {
        for &copied in &asked.copied {
            self.copy(copied)?;
        }
        self.age(now, asked, expected)?;
        let mut bytes = vec![0; OUT];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut bytes), ..TestRunOptions::default() };
        let run = self.balancer.program()?.test_run(options)?;
        bytes.truncate(run.data_size_out as usize);
        let (vip, reason) = self.counted_as(expected)?;
        let action = match run.return_value {
            2 => Action::Pass,
            3 => Action::Tx,
            4 => Action::Redirect,
            _ => Action::Drop,
        };
        let backend = if reason.action() == reason::Action::Forward { self.sent_to(expected)? } else { None };
        let out = matches!(action, Action::Tx | Action::Redirect).then_some(bytes);
        Ok(Decided { vip, reason, action, backend, out })
    }

    fn copy(&mut self, copied: Copied) -> Result<(), MapError> {
        match copied {
            Copied::Entry(kind, flow, entry) => {
                let table = match kind {
                    Exception::Joined => &mut self.balancer.joined,
                    Exception::Moved => &mut self.balancer.moved,
                    Exception::Pinned => &mut self.balancer.pinned,
                };
                table.write(flow, entry)?;
                let globals = self.balancer.globals.read(0)?;
                let (index, bits) = filter_place(flow, globals.filters[0]);
                let word = self.balancer.filter.read(index)?;
                self.balancer.filter.write(index, word | bits)
            }
            Copied::Token(key, entry) => self.balancer.tokens.write(key, entry),
            Copied::Bucket(memory, flow, bucket) => {
                let table = self.buckets(memory);
                let index = bucket_of(flow, table.len());
                table.write(index, bucket)
            }
        }
    }

    const fn buckets(&mut self, memory: Memory) -> &mut ArrayTable<Bucket> {
        match memory {
            Memory::Pending => &mut self.balancer.pending,
            Memory::Embryonic => &mut self.balancer.embryonic,
            Memory::Datagrams => &mut self.balancer.datagrams,
            Memory::Fragments => &mut self.balancer.fragments,
            Memory::Closing => &mut self.balancer.closing,
        }
    }

    /// Makes what the frame will look at as old as the capture says.
    fn age(&mut self, now: u32, asked: &Asked, expected: &Decided) -> Result<(), MapError> {
        if let Some(network) = asked.network {
            let is_same_tick = self.time.networks.insert(network, now) == Some(now);
            let [_, spent]: [u32; 2] = zerocopy::transmute!(self.balancer.networks.read(network)?);
            let spent = if is_same_tick { spent } else { 0 };
            self.balancer.networks.write(network, spent_by_now(spent))?;
        }
        if let Some(place) = asked.joins {
            let is_same_tick = self.time.joins.insert(place, now) == Some(now);
            let [_, spent]: [u8; 2] = zerocopy::transmute!(self.balancer.joins.read(place)?);
            let [tick, ..] = begun_tick().0.to_le_bytes();
            let spent = if is_same_tick { spent } else { 0 };
            self.balancer.joins.write(place, zerocopy::transmute!([tick, spent]))?;
        }
        if matches!(expected.reason, Reason::TooBig | Reason::TooBigQuiet) {
            let (at, sent) = self.time.errors;
            let sent = if at == now { sent } else { 0 };
            self.balancer.errors.fill(0, spent_by_now(sent))?;
            self.time.errors = (now, sent + 1);
        }
        if let Some(flow) = asked.datagram {
            let passed = now - self.time.datagrams.insert(flow, now).unwrap_or(0);
            let index = bucket_of(flow, self.balancer.datagrams.len());
            let mut bucket = self.balancer.datagrams.read(index)?;
            if let Some(remembered) = bucket.find(flow).filter(|_| passed > 0) {
                remembered.at = Tick(remembered.at.0.wrapping_sub(passed));
                self.balancer.datagrams.write(index, bucket)?;
            }
        }
        Ok(())
    }

    /// The reason of the last frame: the counter that has moved.
    fn counted_as(&mut self, expected: &Decided) -> Result<(VipId, Reason), KernelError> {
        let likely = std::iter::once((expected.vip, expected.reason));
        let all = self.vips.iter().flat_map(|&vip| Reason::ALL.iter().map(move |&reason| (vip, reason)));
        for (vip, reason) in likely.chain(all) {
            if has_moved(&self.balancer.counters, counter_index(vip, reason), &mut self.counted)? {
                return Ok((vip, reason));
            }
        }
        Err(KernelError::Uncounted)
    }

    /// The backend that the last frame was sent to.
    fn sent_to(&mut self, expected: &Decided) -> Result<Option<BackendId>, MapError> {
        for id in expected.backend.into_iter().chain(self.backends.iter().copied()) {
            if has_moved(&self.balancer.sent, u32::from(id.0), &mut self.sent)? {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }
}

/// A budget of which so much is spent in the kernel's present tick.
fn spent_by_now(spent: u32) -> Budget {
    zerocopy::transmute!([begun_tick().0, spent])
}

/// The kernel's present tick; returns when that has begun, and lasts for a while.
fn begun_tick() -> Tick {
    const NANOS: Duration = Duration::from_nanos(Tick::NANOS);
    let passed = clock::now().as_nanos() % NANOS.as_nanos();
    let passed = Duration::from_nanos(u64::try_from(passed).unwrap_or_default());
    if passed < COARSE {
        thread::sleep(COARSE.saturating_sub(passed));
    } else if passed > NANOS.saturating_sub(RUN) {
        thread::sleep(NANOS.saturating_sub(passed) + COARSE);
    }
    clock::tick()
}

/// Whether a counter has moved since it was last asked for.
fn has_moved(table: &PerCpuTable<Counter>, row: u32, known: &mut BTreeMap<u32, u64>) -> Result<bool, MapError> {
    let packets = table.read(row)?.iter().map(|counter| counter.packets).sum();
    Ok(known.insert(row, packets).unwrap_or(0) != packets)
}
