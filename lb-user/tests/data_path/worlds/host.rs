//! The decision over plain collections. What the kernel's `send` and `reply` do with it is done here by the same writers.

use super::{
    Memory, Outcome, Verdict, World,
    setup::{CLUSTER_KEY, LOOPBACK, Setup},
};
use lb_common::{
    encap,
    hash::SipKey,
    host::HostTables,
    ids::{BackendId, FlowHash, PoolId},
    limits,
    reason::{Action, Reason},
    recent::{Bucket, bucket_of, buckets_for},
    reset::{self, AnySyn},
    steer::{Forward, steer},
    tables::{Backend, Encap, Exception, FlowEntry, RING_SLOTS, Slot, Tables as _, TokenEntry, TokenKey},
    wire::ethernet,
};

pub(crate) struct Host {
    tables: HostTables,
}

impl Host {
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut tables = HostTables::new(SipKey::from_bytes(CLUSTER_KEY));
        let (services, addresses) = setup.rules();
        tables.services = services;
        tables.addresses = addresses.into_iter().collect();
        tables.slots = setup.pools.iter().flat_map(|pool| pool.ring.clone()).collect();
        tables.closing = vec![Bucket::default(); buckets_for(limits::CLOSING_SIGNS) as usize];
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
        }
    }
}

impl World for Host {
    fn send(&mut self, frame: &[u8]) -> Outcome {
        let decision = steer(&frame, &mut self.tables);
        let vip = decision.vip;
        match decision.verdict {
            Ok(forward) => Outcome {
                vip,
                reason: forward.reason,
                backend: Some(forward.id),
                verdict: if forward.backend.interface == LOOPBACK { Verdict::Transmit } else { Verdict::Redirect },
                counted_bytes: forward.ip.len as u64,
                bytes: sent(frame, &forward),
            },
            Err(reason) => {
                let (verdict, bytes) = unsent(frame, reason);
                Outcome { vip, reason, backend: None, verdict, counted_bytes: 0, bytes }
            }
        }
    }

    fn tokens(&self) -> Vec<(TokenKey, TokenEntry)> {
        self.tables.tokens.iter().map(|(&key, &entry)| (key, entry)).collect()
    }

    fn entries(&self, kind: Exception) -> Vec<(FlowHash, FlowEntry)> {
        let table = match kind {
            Exception::Joined => &self.tables.joined,
            Exception::Moved => &self.tables.moved,
            Exception::Pinned => &self.tables.pinned,
        };
        table.iter().map(|(&flow, &entry)| (flow, entry)).collect()
    }

    fn memory(&self, memory: Memory) -> Vec<Bucket> {
        self.buckets(memory).to_vec()
    }

    fn bucket(&self, memory: Memory, flow: FlowHash) -> Bucket {
        let buckets = self.buckets(memory);
        buckets[bucket_of(flow, u32::try_from(buckets.len()).expect("a small table")) as usize]
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

    fn write_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) {
        self.tables.insert_entry(kind, flow, entry).expect("room for a flow");
    }
}

fn sent(frame: &[u8], forward: &Forward) -> Vec<u8> {
    match forward.backend.encap {
        Encap::IPIP4 => {
            let mut outer = [0; encap::OUTER_V4];
            encap::write_v4(&mut outer, forward.backend, &forward.ip);
            [&outer, &frame[ethernet::HEADER_LEN..]].concat()
        }
        Encap::IPIP6 => {
            let mut outer = [0; encap::OUTER_V6];
            encap::write_v6(&mut outer, forward.backend, &forward.ip, forward.flow);
            [&outer, &frame[ethernet::HEADER_LEN..]].concat()
        }
        _ => {
            let mut bytes = frame.to_vec();
            encap::write_link(bytes.first_chunk_mut().expect("a whole header"), forward.backend);
            bytes
        }
    }
}

fn unsent(frame: &[u8], reason: Reason) -> (Verdict, Vec<u8>) {
    match reason.action() {
        Action::Pass => (Verdict::Pass, frame.to_vec()),
        Action::Reply => (Verdict::Transmit, reset_of(frame)),
        Action::Drop | Action::Forward => (Verdict::Drop, frame.to_vec()),
    }
}

fn reset_of(frame: &[u8]) -> Vec<u8> {
    match reset::read(&frame).expect("what is reset is a SYN") {
        AnySyn::V4(syn) => {
            let mut bytes = *frame.first_chunk().expect("shorter than the SYN");
            reset::write_v4(&mut bytes, &syn);
            bytes.to_vec()
        }
        AnySyn::V6(syn) => {
            let mut bytes = *frame.first_chunk().expect("shorter than the SYN");
            reset::write_v6(&mut bytes, &syn);
            bytes.to_vec()
        }
    }
}
