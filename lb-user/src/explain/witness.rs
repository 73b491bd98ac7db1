//! The host's tables with a witness: whatever a decision asks them is noted, so that it can be told afterwards, and copied
//! from the running balancer before. What the running balancer holds is only ever read.

use aya::maps::MapError;
use lb_common::{
    host::HostTables,
    ids::{BackendId, FlowHash, PoolId, Tick, Token},
    limits::NETWORKS,
    recent::{Bucket, Recent, bucket_of},
    share::Event,
    stateless::{Bearer, Codec, TokenId},
    tables::{
        Backend, Budget, Exception, FlowEntry, Globals, InsertError, JoinBudget, QuicKey, Service, Services, Slot,
        Tables, TokenEntry, TokenKey, join_place,
    },
    wire::ip::Address,
};
use std::{cell::Cell, collections::HashSet};

/// The kinds of entries.
pub const KINDS: [Exception; 3] = [Exception::Joined, Exception::Moved, Exception::Pinned];

/// A table of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// MPTCP handshakes.
    Pending,
    /// Flows that wait for their confirmation.
    Embryonic,
    /// Flows of datagrams.
    Datagrams,
    /// Datagrams in pieces.
    Fragments,
    /// Closing signs.
    Closing,
}

/// What the running balancer remembers.
pub trait Live {
    /// A flow's entry.
    ///
    /// # Errors
    /// The kernel refuses to tell; likewise below.
    fn entry(&self, kind: Exception, flow: FlowHash) -> Result<Option<FlowEntry>, MapError>;
    /// A token's entry.
    ///
    /// # Errors
    /// As above.
    fn token(&self, key: TokenKey) -> Result<Option<TokenEntry>, MapError>;
    /// A bucket.
    ///
    /// # Errors
    /// As above.
    fn bucket(&self, memory: Memory, flow: FlowHash) -> Result<Bucket, MapError>;
}

/// Something that was copied from the running balancer because a frame asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// An entry.
    Entry(Exception, FlowHash, FlowEntry),
    /// A token.
    Token(TokenKey, TokenEntry),
    /// The bucket of a flow.
    Bucket(Memory, FlowHash, Bucket),
}

/// What one decision has asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// What had to be copied for it.
    pub copied: Vec<Copied>,
    /// The flow whose entry it looked for.
    pub flow: Option<FlowHash>,
    /// The entry, as it was found.
    pub entry: Option<FlowEntry>,
    /// The token that it looked for, and what was known of it.
    pub token: Option<(Token, Option<TokenEntry>)>,
    /// Whom the token names by itself, if that was asked.
    pub named: Option<Bearer>,
    /// The slot that it looked at.
    pub slot: Option<(u32, Slot)>,
    /// The entry that it made.
    pub entered: Option<(Exception, BackendId)>,
    /// The flow of datagrams that it looked for.
    pub datagram: Option<FlowHash>,
    /// Whose budget it spent.
    pub network: Option<u32>,
    /// Which budget of joins it spent.
    pub joins: Option<u32>,
    /// The buckets that it may have written to, with what was known of the flow.
    pub memories: Vec<(Memory, FlowHash, Option<Recent>)>,
    trouble: Option<MapError>,
}

impl Asked {
    /// What the kernel refused to tell, if it did.
    ///
    /// # Errors
    /// It did.
    pub fn check(&mut self) -> Result<(), MapError> {
        self.trouble.take().map_or(Ok(()), Err)
    }
}

/// What is in the tables for good, so that it is copied once.
#[derive(Debug, Default)]
pub struct Known {
    flows: HashSet<FlowHash>,
    tokens: HashSet<TokenKey>,
    buckets: HashSet<(Memory, u32)>,
}

/// The tables and the witness, for one decision.
pub struct Witness<'w> {
    tables: &'w mut HostTables,
    live: Option<&'w dyn Live>,
    known: &'w mut Known,
    asked: Asked,
    slot: Cell<Option<(u32, Slot)>>,
    named: Cell<Option<Bearer>>,
}

impl<'w> Witness<'w> {
    /// A witness of the next decision.
    pub fn new(tables: &'w mut HostTables, live: Option<&'w dyn Live>, known: &'w mut Known) -> Self {
        Self { tables, live, known, asked: Asked::default(), slot: Cell::new(None), named: Cell::new(None) }
    }

    /// What was asked.
    pub fn asked(self) -> Asked {
        Asked { slot: self.slot.get(), named: self.named.get(), ..self.asked }
    }

    fn note<T>(&mut self, told: Result<T, MapError>) -> Option<T> {
        told.map_err(|error| self.asked.trouble = Some(error)).ok()
    }

    fn copy_flow(&mut self, flow: FlowHash) {
        let Some(live) = self.live.filter(|_| self.known.flows.insert(flow)) else { return };
        for kind in KINDS {
            if let Some(Some(entry)) = self.note(live.entry(kind, flow)) {
                let _ = self.tables.insert_entry(kind, flow, entry);
                self.asked.copied.push(Copied::Entry(kind, flow, entry));
            }
        }
    }

    fn copy_token(&mut self, key: TokenKey) {
        let Some(live) = self.live.filter(|_| self.known.tokens.insert(key)) else { return };
        if let Some(Some(entry)) = self.note(live.token(key)) {
            self.tables.tokens.insert(key, entry);
            self.asked.copied.push(Copied::Token(key, entry));
        }
    }

    /// The bucket of a flow, as the decision may change it.
    fn bucket(&mut self, memory: Memory, flow: FlowHash) -> Option<&mut Bucket> {
        let buckets = u32::try_from(buckets(self.tables, memory).len()).ok()?;
        let index = bucket_of(flow, buckets);
        let live = self.live.filter(|_| self.known.buckets.insert((memory, index)));
        if let Some(bucket) = live.and_then(|live| self.note(live.bucket(memory, flow))) {
            buckets_mut(self.tables, memory)[index as usize] = bucket;
            self.asked.copied.push(Copied::Bucket(memory, flow, bucket));
        }
        let bucket = buckets_mut(self.tables, memory).get_mut(index as usize)?;
        if !self.asked.memories.iter().any(|(seen, of, _)| (*seen, *of) == (memory, flow)) {
            self.asked.memories.push((memory, flow, bucket.of(flow).copied()));
        }
        Some(bucket)
    }
}

/// The buckets of a table.
pub fn buckets(tables: &HostTables, memory: Memory) -> &[Bucket] {
    match memory {
        Memory::Pending => &tables.pending,
        Memory::Embryonic => &tables.embryonic,
        Memory::Datagrams => &tables.datagrams,
        Memory::Fragments => &tables.fragments,
        Memory::Closing => &tables.closing,
    }
}

fn buckets_mut(tables: &mut HostTables, memory: Memory) -> &mut Vec<Bucket> {
    match memory {
        Memory::Pending => &mut tables.pending,
        Memory::Embryonic => &mut tables.embryonic,
        Memory::Datagrams => &mut tables.datagrams,
        Memory::Fragments => &mut tables.fragments,
        Memory::Closing => &mut tables.closing,
    }
}

impl Tables for Witness<'_> {
    fn globals(&self) -> Option<&Globals> {
        self.tables.globals()
    }

    fn now(&self) -> Tick {
        self.tables.now
    }

    fn services(&self, address: &Address) -> Option<Services> {
        self.tables.services(address)
    }

    fn service(&self, index: u32) -> Option<&Service> {
        self.tables.service(index)
    }

    fn slot(&self, pool: PoolId, slot: u32) -> Option<Slot> {
        let found = self.tables.slot(pool, slot);
        // The first is the flow's; while the cluster key is changed it has one under the former key too.
        self.slot.set(self.slot.get().or_else(|| found.map(|found| (slot, found))));
        found
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.tables.backend(id)
    }

    // No false "no": the entry itself is looked for, and copied if need be.
    fn may_have_entry(&self, _flow: FlowHash) -> bool {
        true
    }

    fn entry(&mut self, flow: FlowHash) -> Option<&mut FlowEntry> {
        self.copy_flow(flow);
        let first = self.asked.flow.replace(flow).is_none();
        let entry = self.tables.entry(flow);
        if first {
            self.asked.entry = entry.as_deref().copied();
        }
        entry
    }

    fn entry_of(&mut self, kind: Exception, flow: FlowHash) -> Option<FlowEntry> {
        self.copy_flow(flow);
        let entry = self.tables.entry_of(kind, flow);
        // What is known under the former cluster key is known.
        self.asked.entry = self.asked.entry.or(entry);
        entry
    }

    fn insert_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) -> Result<(), InsertError> {
        let inserted = self.tables.insert_entry(kind, flow, entry);
        if inserted.is_ok() {
            self.asked.entered = Some((kind, entry.backend));
        }
        inserted
    }

    fn remove_entry(&mut self, flow: FlowHash) {
        self.tables.remove_entry(flow);
    }

    fn token(&mut self, key: &TokenKey) -> Option<&mut TokenEntry> {
        self.copy_token(*key);
        let first = self.asked.token.is_none();
        let entry = self.tables.token(key);
        if first {
            self.asked.token = Some((key.token, entry.as_deref().copied()));
        }
        entry
    }

    fn insert_token(&mut self, key: &TokenKey, entry: TokenEntry) -> Result<(), InsertError> {
        self.tables.insert_token(key, entry)
    }

    fn pending(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.bucket(Memory::Pending, flow)
    }

    fn embryonic(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.bucket(Memory::Embryonic, flow)
    }

    fn closing(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.bucket(Memory::Closing, flow)
    }

    fn datagrams(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.asked.datagram = Some(flow);
        self.bucket(Memory::Datagrams, flow)
    }

    fn fragments(&mut self, datagram: FlowHash) -> Option<&mut Bucket> {
        self.bucket(Memory::Fragments, datagram)
    }

    fn quic_server(&self, key: &QuicKey) -> Option<BackendId> {
        self.tables.quic_server(key)
    }

    fn codec(&self, pool: PoolId) -> Option<&Codec> {
        self.tables.codec(pool)
    }

    fn bearer(&self, pool: PoolId, id: TokenId) -> Bearer {
        self.tables.bearer(pool, id)
    }

    fn named_by(&self, pool: PoolId, token: Token) -> Bearer {
        let named = self.tables.named_by(pool, token);
        self.named.set(Some(named));
        named
    }

    // Nobody is to hear of what is only told.
    fn tell(&mut self, _event: &Event) {}

    fn network_budget(&mut self, network: FlowHash) -> Option<&mut Budget> {
        self.asked.network = Some(bucket_of(network, NETWORKS));
        self.tables.network_budget(network)
    }

    fn join_budget(&mut self, token: Token) -> Option<&mut JoinBudget> {
        self.asked.joins = Some(join_place(token));
        self.tables.join_budget(token)
    }

    fn error_budget(&mut self) -> Option<&mut Budget> {
        self.tables.error_budget()
    }
}
