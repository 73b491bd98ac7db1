//! The tables as plain collections: what the decision asks on the host, in tests, under the fuzzer and in `weir explain`.

use crate::{
    flow,
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId, Tick},
    limits,
    recent::{Bucket, bucket_of, buckets_for},
    tables::{
        Backend, Exception, FlowEntry, Globals, InsertError, RING_SLOTS, Service, Services, Slot, Tables, TokenEntry,
        TokenKey,
    },
    wire::ip::Address,
};
use std::collections::HashMap;

/// Tables on the host; every field is open, for tests to set and to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTables {
    /// What holds for the whole balancer.
    pub globals: Globals,
    /// The clock, moved by hand.
    pub now: Tick,
    /// The addresses of VIPs.
    pub addresses: HashMap<Address, Services>,
    /// Their port rules.
    pub services: Vec<Service>,
    /// The rings, one after the other.
    pub slots: Vec<Slot>,
    /// The backends by id.
    pub backends: Vec<Backend>,
    /// Joined subflows that the ring does not answer.
    pub joined: HashMap<FlowHash, FlowEntry>,
    /// Flows that began in a slot in transition.
    pub moved: HashMap<FlowHash, FlowEntry>,
    /// Flows that outlive the transition of their slot.
    pub pinned: HashMap<FlowHash, FlowEntry>,
    /// How many of each of these three kinds there may be.
    pub entries_max: usize,
    /// Learned tokens.
    pub tokens: HashMap<TokenKey, TokenEntry>,
    /// How many of them there may be.
    pub tokens_max: usize,
    /// MPTCP handshakes.
    pub pending: Vec<Bucket>,
    /// Flows that wait for confirmation.
    pub embryonic: Vec<Bucket>,
    /// Closing signs.
    pub closing: Vec<Bucket>,
}

impl HostTables {
    /// Empty tables of the smallest size that the limits allow.
    pub fn new(cluster_key: SipKey) -> Self {
        let buckets = |entries| vec![Bucket::default(); buckets_for(entries) as usize];
        Self {
            globals: Globals {
                cluster_key,
                pending_buckets: buckets_for(limits::PENDING_HANDSHAKES.min),
                embryonic_buckets: buckets_for(limits::EMBRYONIC_FLOWS.min),
                filter_words: 1,
                reserved: 0,
            },
            now: Tick(1000),
            addresses: HashMap::new(),
            services: Vec::new(),
            slots: Vec::new(),
            backends: vec![Backend::GONE],
            joined: HashMap::new(),
            moved: HashMap::new(),
            pinned: HashMap::new(),
            entries_max: limits::JOINED_FLOWS.min as usize,
            tokens: HashMap::new(),
            tokens_max: limits::TOKENS.min as usize,
            pending: buckets(limits::PENDING_HANDSHAKES.min),
            embryonic: buckets(limits::EMBRYONIC_FLOWS.min),
            closing: buckets(limits::EMBRYONIC_FLOWS.min),
        }
    }

    /// Adds a pool whose ring is `owners`, one per slot, and returns its id.
    ///
    /// # Panics
    /// With more pools than a `u16` counts; likewise below.
    pub fn add_pool(&mut self, owners: impl IntoIterator<Item = u16>) -> PoolId {
        let pool = self.slots.len() / RING_SLOTS as usize;
        let slots = owners.into_iter().map(|id| Slot::settled(BackendId(id)));
        self.slots.extend(slots);
        self.slots.resize((pool + 1) * RING_SLOTS as usize, Slot::default());
        PoolId(u16::try_from(pool).expect("a pool id has 16 bits"))
    }

    /// Adds a backend and returns its id.
    ///
    /// # Panics
    /// With more backends than a `u16` counts.
    pub fn add_backend(&mut self, backend: Backend) -> BackendId {
        self.backends.push(backend);
        BackendId(u16::try_from(self.backends.len() - 1).expect("a backend id has 16 bits"))
    }

    /// Adds the rules of a VIP's address, which must be sorted by protocol and first port, without overlap.
    ///
    /// # Panics
    /// With more rules than a `u32` counts.
    pub fn add_services(&mut self, address: Address, rules: &[Service]) {
        let number = |n: usize| u32::try_from(n).expect("few rules");
        let services = Services { first: number(self.services.len()), count: number(rules.len()) };
        self.services.extend(rules);
        self.addresses.insert(address, services);
    }

    fn bucket(buckets: &mut [Bucket], flow: FlowHash) -> Option<&mut Bucket> {
        let count = u32::try_from(buckets.len()).ok()?;
        buckets.get_mut(bucket_of(flow, count) as usize)
    }
}

impl Tables for HostTables {
    fn globals(&self) -> Option<&Globals> {
        Some(&self.globals)
    }

    fn now(&self) -> Tick {
        self.now
    }

    fn services(&self, address: &Address) -> Option<Services> {
        self.addresses.get(address).copied()
    }

    fn service(&self, index: u32) -> Option<Service> {
        self.services.get(index as usize).copied()
    }

    fn slot(&self, pool: PoolId, slot: u32) -> Option<Slot> {
        self.slots.get(flow::slot_index(pool, slot) as usize).copied()
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.backends.get(usize::from(id.0))
    }

    fn may_have_entry(&self, _flow: FlowHash) -> bool {
        !(self.joined.is_empty() && self.moved.is_empty() && self.pinned.is_empty())
    }

    fn entry(&mut self, flow: FlowHash) -> Option<&mut FlowEntry> {
        let Self { joined, moved, pinned, .. } = self;
        [joined, moved, pinned].into_iter().find_map(|table| table.get_mut(&flow))
    }

    fn insert_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) -> Result<(), InsertError> {
        let table = match kind {
            Exception::Joined => &mut self.joined,
            Exception::Moved => &mut self.moved,
            Exception::Pinned => &mut self.pinned,
        };
        insert(table, self.entries_max, flow, entry)
    }

    fn remove_entry(&mut self, flow: FlowHash) {
        for table in [&mut self.joined, &mut self.moved, &mut self.pinned] {
            table.remove(&flow);
        }
    }

    fn token(&mut self, key: &TokenKey) -> Option<&mut TokenEntry> {
        self.tokens.get_mut(key)
    }

    fn insert_token(&mut self, key: &TokenKey, entry: TokenEntry) -> Result<(), InsertError> {
        insert(&mut self.tokens, self.tokens_max, *key, entry)
    }

    fn pending(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        Self::bucket(&mut self.pending, flow)
    }

    fn embryonic(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        Self::bucket(&mut self.embryonic, flow)
    }

    fn closing(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        Self::bucket(&mut self.closing, flow)
    }
}

fn insert<K: Eq + std::hash::Hash, V>(
    table: &mut HashMap<K, V>,
    max: usize,
    key: K,
    value: V,
) -> Result<(), InsertError> {
    if table.contains_key(&key) {
        return Err(InsertError::Exists);
    }
    if table.len() >= max {
        return Err(InsertError::Full);
    }
    table.insert(key, value);
    Ok(())
}
