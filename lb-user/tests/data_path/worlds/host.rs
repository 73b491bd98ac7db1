//! The decision over plain collections. What the kernel's `send` and `reply` do with it is done here by the same writers.

use super::{
    Memory, Outcome, Verdict, World,
    setup::{CLUSTER_KEY, LOOPBACK, Rules, Setup},
};
use lb_common::{
    answer::answer,
    encap,
    hash::SipKey,
    host::{HostFrame, HostTables},
    ids::{BackendId, FlowHash, PoolId, Tick},
    reason::{Action, Reason},
    recent::{Bucket, bucket_of},
    steer::{Decision, Forward, Refusal, steer},
    tables::{Backend, Exception, FlowEntry, RING_SLOTS, Slot, Tables as _, TokenEntry, TokenKey},
};

pub(crate) struct Host {
    pub(crate) tables: HostTables,
}

impl Host {
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut tables = HostTables::new(SipKey::from_bytes(CLUSTER_KEY));
        let Rules { services, addresses, prefixes } = setup.rules();
        tables.services = services;
        tables.addresses = addresses.into_iter().collect();
        tables.globals.prefixes = u32::try_from(prefixes.len()).expect("few prefixes");
        tables.prefixes = prefixes.into_iter().map(|(address, len, services)| ((len, address), services)).collect();
        tables.quic_servers = setup.quic_servers.iter().copied().collect();
        tables.codecs = setup.codecs.iter().copied().collect();
        tables.bearers = setup.bearers.iter().map(|&(pool, id, bearer)| ((pool, id), bearer)).collect();
        tables.globals.tells = 1;
        tables.globals.entries_per_network = setup.limits.entries_per_network;
        tables.globals.joins_per_token = setup.limits.joins_per_token;
        tables.globals.errors_per_cpu = setup.limits.icmp_errors_per_cpu;
        tables.entries_max = setup.limits.entries as usize;
        tables.tokens_max = setup.limits.entries as usize;
        tables.slots = setup.pools.iter().flat_map(|pool| pool.ring.clone()).collect();
        let mut host = Self { tables };
        for backend in &setup.backends {
            host.write_backend(backend.id, backend.entry());
        }
        host
    }

    fn buckets(&self, memory: Memory) -> &[Bucket] {
        match memory {
            Memory::Pending => &self.tables.pending,
            Memory::Embryonic => &self.tables.embryonic,
            Memory::Closing => &self.tables.closing,
            Memory::Datagrams => &self.tables.datagrams,
            Memory::Fragments => &self.tables.fragments,
        }
    }

    fn buckets_mut(&mut self, memory: Memory) -> &mut [Bucket] {
        match memory {
            Memory::Pending => &mut self.tables.pending,
            Memory::Embryonic => &mut self.tables.embryonic,
            Memory::Closing => &mut self.tables.closing,
            Memory::Datagrams => &mut self.tables.datagrams,
            Memory::Fragments => &mut self.tables.fragments,
        }
    }
}

/// What a balancer does by a decision.
pub(crate) fn outcome(frame: &[u8], decision: &Decision) -> Outcome {
    let vip = decision.vip;
    match decision.verdict {
        Ok(forward) => Outcome {
            vip,
            reason: forward.reason,
            backend: Some(forward.id),
            verdict: if forward.backend.interface == LOOPBACK { Verdict::Transmit } else { Verdict::Redirect },
            counted_bytes: forward.ip.end() as u64,
            bytes: sent(frame, &forward),
        },
        Err(refusal) => {
            let (reason, verdict, bytes) = unsent(frame, refusal);
            Outcome { vip, reason, backend: None, verdict, counted_bytes: frame.len() as u64, bytes }
        }
    }
}

fn sent(frame: &[u8], forward: &Forward) -> Vec<u8> {
    let mut sent = HostFrame::new(frame);
    encap::encapsulate(&mut sent, forward).expect("there is headroom");
    sent.bytes().to_vec()
}

fn unsent(frame: &[u8], Refusal { reason, path_mtu }: Refusal) -> (Reason, Verdict, Vec<u8>) {
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

impl World for Host {
    fn send(&mut self, frame: &[u8]) -> Outcome {
        outcome(frame, &steer(&frame, &mut self.tables))
    }

    fn tokens(&self) -> Vec<(TokenKey, TokenEntry)> {
        self.tables.tokens.iter().map(|(&key, &entry)| (key, entry)).collect()
    }

    fn entries(&self, kind: Exception) -> Vec<(FlowHash, FlowEntry)> {
        self.tables.flows(kind).iter().map(|(&flow, &entry)| (flow, entry)).collect()
    }

    fn memory(&self, memory: Memory) -> Vec<Bucket> {
        self.buckets(memory).to_vec()
    }

    fn bucket(&self, memory: Memory, flow: FlowHash) -> Bucket {
        let buckets = self.buckets(memory);
        buckets[place(flow, buckets)]
    }

    fn write_bucket(&mut self, memory: Memory, flow: FlowHash, bucket: Bucket) {
        let buckets = self.buckets_mut(memory);
        buckets[place(flow, buckets)] = bucket;
    }

    fn write_backend(&mut self, id: BackendId, backend: Backend) {
        let index = usize::from(id.0);
        if self.tables.backends.len() <= index {
            self.tables.backends.resize(index + 1, Backend::GONE);
        }
        self.tables.backends[index] = backend;
    }

    fn write_ring(&mut self, PoolId(pool): PoolId, ring: &[Slot]) {
        let first = usize::from(pool) * RING_SLOTS as usize;
        self.tables.slots[first..first + ring.len()].copy_from_slice(ring);
    }

    fn write_token(&mut self, key: TokenKey, entry: TokenEntry) {
        self.tables.tokens.insert(key, entry);
    }

    fn remove_token(&mut self, key: TokenKey) {
        self.tables.tokens.remove(&key);
    }

    fn age_entry(&mut self, kind: Exception, flow: FlowHash, ticks: u32) {
        let entry = self.tables.flows_mut(kind).get_mut(&flow).expect("an entry");
        entry.seen = Tick(entry.seen.0.wrapping_sub(ticks));
    }

    fn write_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) {
        self.tables.insert_entry(kind, flow, entry).expect("room for a flow");
    }
}

fn place(flow: FlowHash, buckets: &[Bucket]) -> usize {
    bucket_of(flow, u32::try_from(buckets.len()).expect("a small table")) as usize
}
