//! The tables as plain collections: what the decision asks on the host, in tests, under the fuzzer and in `weir explain`.

use crate::{
    addresses::Turn,
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId, Tick, Token},
    limits,
    packet::{Frame, Packet},
    recent::{Bucket, bucket_of, buckets_for},
    rekey::Rotation,
    share::Event,
    stateless::{Bearer, Codec, TokenId},
    tables::{
        Backend, Budget, Exception, FlowEntry, Globals, InsertError, JoinBudget, QuicKey, RING_SLOTS, Service,
        Services, Slot, Span, Tables, TokenEntry, TokenKey, join_place,
    },
    wire::ip::Address,
};
use std::collections::HashMap;

/// A frame in a buffer with room in front of it, as a driver gives to XDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFrame {
    buffer: Vec<u8>,
    start: usize,
}

impl HostFrame {
    /// `XDP_PACKET_HEADROOM`.
    const HEADROOM: usize = 256;

    /// A frame of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self { buffer: [&[0; Self::HEADROOM][..], bytes].concat(), start: Self::HEADROOM }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

impl Packet for HostFrame {
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes().load(offset)
    }

    fn holds(&self, end: usize) -> bool {
        self.bytes().holds(end)
    }
}

impl Frame for HostFrame {
    fn place<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        self.buffer.get_mut(self.start + offset..)?.first_chunk_mut()
    }

    fn move_start(&mut self, bytes: i32) -> bool {
        let moved = self.start.checked_add_signed(bytes as isize);
        // The kernel keeps at least an Ethernet header in a frame.
        let Some(start) = moved.filter(|start| start + ETHERNET <= self.buffer.len()) else { return false };
        self.start = start;
        true
    }

    fn cut_to(&mut self, len: usize) -> bool {
        let fits = len >= ETHERNET && len <= self.bytes().len();
        if fits {
            self.buffer.truncate(self.start + len);
        }
        fits
    }
}

const ETHERNET: usize = crate::wire::ethernet::HEADER_LEN;

/// Tables on the host; every field is open, for tests to set and to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTables {
    /// What holds for the whole balancer.
    pub globals: Globals,
    /// The clock, moved by hand.
    pub now: Tick,
    /// The addresses of VIPs.
    pub addresses: HashMap<Address, Services>,
    /// The VIPs that are prefixes, by their length in bits, IPv4 mapped into IPv6.
    pub prefixes: HashMap<(u32, Address), Services>,
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
    /// Flows of datagrams in slots in transition.
    pub datagrams: Vec<Bucket>,
    /// Datagrams in pieces.
    pub fragments: Vec<Bucket>,
    /// The servers that QUIC connection ids name.
    pub quic_servers: HashMap<QuicKey, BackendId>,
    /// What reads the stateless tokens of each pool.
    pub codecs: HashMap<PoolId, Codec>,
    /// Who has an id in them.
    pub bearers: HashMap<(PoolId, TokenId), Bearer>,
    /// What the clients of each network have spent on entries.
    pub networks: Vec<Budget>,
    /// What has been spent on joins with each token.
    pub joins: Vec<JoinBudget>,
    /// What has been spent on ICMP errors.
    pub errors: Budget,
    /// What the controller was told.
    pub told: Vec<Event>,
}

impl HostTables {
    /// Empty tables of the smallest size that the limits allow.
    pub fn new(cluster_key: SipKey) -> Self {
        let buckets = |entries| vec![Bucket::default(); buckets_for(entries) as usize];
        Self {
            globals: Globals {
                keys: [cluster_key; 2],
                pending_buckets: buckets_for(limits::PENDING_HANDSHAKES.min),
                embryonic_buckets: buckets_for(limits::EMBRYONIC_FLOWS.min),
                datagram_buckets: buckets_for(limits::DATAGRAM_FLOWS.min),
                fragment_buckets: buckets_for(limits::FRAGMENTED_DATAGRAMS.min),
                filters: [Span { first: 0, len: 1 }; 2],
                filter_asked: 0,
                entries_per_network: limits::ENTRIES_PER_NETWORK.default,
                joins_per_token: limits::JOINS_PER_TOKEN.default,
                errors_per_cpu: limits::ICMP_ERRORS_PER_CPU.default,
                prefixes: 0,
                tells: 0,
                rotation: Rotation::settled(0),
                reserved: 0,
                addresses: Turn::default(),
            },
            now: Tick(1000),
            addresses: HashMap::new(),
            prefixes: HashMap::new(),
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
            closing: buckets(limits::CLOSING_SIGNS),
            datagrams: buckets(limits::DATAGRAM_FLOWS.min),
            fragments: buckets(limits::FRAGMENTED_DATAGRAMS.min),
            quic_servers: HashMap::new(),
            codecs: HashMap::new(),
            bearers: HashMap::new(),
            networks: vec![Budget::default(); limits::NETWORKS as usize],
            joins: vec![JoinBudget::default(); limits::JOIN_BUDGETS as usize],
            errors: Budget::default(),
            told: Vec::new(),
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

    /// Where a pool's slot is in [`Self::slots`].
    pub const fn slot_index(PoolId(pool): PoolId, slot: u32) -> usize {
        (pool as u32 * RING_SLOTS + slot) as usize
    }

    /// The flows that have an entry of a kind.
    pub const fn flows(&self, kind: Exception) -> &HashMap<FlowHash, FlowEntry> {
        match kind {
            Exception::Joined => &self.joined,
            Exception::Moved => &self.moved,
            Exception::Pinned => &self.pinned,
        }
    }

    /// The same, to be changed.
    pub const fn flows_mut(&mut self, kind: Exception) -> &mut HashMap<FlowHash, FlowEntry> {
        match kind {
            Exception::Joined => &mut self.joined,
            Exception::Moved => &mut self.moved,
            Exception::Pinned => &mut self.pinned,
        }
    }

    /// The rules of the longest prefix that an address lies in.
    fn services_of_prefix(&self, address: &Address) -> Option<Services> {
        (0..=128).rev().find_map(|len| self.prefixes.get(&(len, address.masked(len))).copied())
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
        let exact = self.addresses.get(address).copied();
        if self.globals.prefixes > 0 { exact.or_else(|| self.services_of_prefix(address)) } else { exact }
    }

    fn service(&self, index: u32) -> Option<&Service> {
        self.services.get(index as usize)
    }

    fn slot(&self, pool: PoolId, slot: u32) -> Option<Slot> {
        self.slots.get(Self::slot_index(pool, slot)).copied()
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

    fn entry_of(&mut self, kind: Exception, flow: FlowHash) -> Option<FlowEntry> {
        self.flows(kind).get(&flow).copied()
    }

    fn insert_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) -> Result<(), InsertError> {
        let max = self.entries_max;
        insert(self.flows_mut(kind), max, flow, entry)
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

    fn datagrams(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        Self::bucket(&mut self.datagrams, flow)
    }

    fn fragments(&mut self, datagram: FlowHash) -> Option<&mut Bucket> {
        Self::bucket(&mut self.fragments, datagram)
    }

    fn quic_server(&self, key: &QuicKey) -> Option<BackendId> {
        self.quic_servers.get(key).copied()
    }

    fn codec(&self, pool: PoolId) -> Option<&Codec> {
        self.codecs.get(&pool)
    }

    fn bearer(&self, pool: PoolId, id: TokenId) -> Bearer {
        self.bearers.get(&(pool, id)).copied().unwrap_or_default()
    }

    fn tell(&mut self, event: &Event) {
        self.told.push(*event);
    }

    fn network_budget(&mut self, network: FlowHash) -> Option<&mut Budget> {
        self.networks.get_mut(bucket_of(network, limits::NETWORKS) as usize)
    }

    fn join_budget(&mut self, token: Token) -> Option<&mut JoinBudget> {
        self.joins.get_mut(join_place(token) as usize)
    }

    fn error_budget(&mut self) -> Option<&mut Budget> {
        Some(&mut self.errors)
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
