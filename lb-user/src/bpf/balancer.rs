//! The XDP balancer: its maps by their types, and its link to an interface.

use super::{ArrayTable, HashTable, LoadError, PerCpuTable, Value};
use crate::object::OBJECT;
use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{Xdp, XdpMode, xdp::XdpLinkId},
};
use lb_common::{
    ids::FlowHash,
    limits,
    recent::{Bucket, buckets_for, filter_words},
    tables::{Backend, Counter, FlowEntry, Globals, RING_SLOTS, Service, Services, Slot, TokenEntry, TokenKey},
    wire::ip::Address,
};

const PROGRAM: &str = "weir_balancer";

/// How large the tables are that the operator may size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Pools, each with a ring.
    pub pools: u32,
    /// Learned tokens.
    pub tokens: u32,
    /// Joined subflows that the ring does not answer.
    pub joined_flows: u32,
    /// Flows that began in a slot in transition.
    pub moved_flows: u32,
    /// Flows that outlive the transition of their slot.
    pub pinned_flows: u32,
    /// MPTCP handshakes that have not ended.
    pub pending_handshakes: u32,
    /// Joins that no ACK has confirmed.
    pub embryonic_flows: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            pools: limits::POOLS_MAX,
            tokens: limits::TOKENS.default,
            joined_flows: limits::JOINED_FLOWS.default,
            moved_flows: limits::MOVED_FLOWS.default,
            pinned_flows: limits::PINNED_FLOWS.default,
            pending_handshakes: limits::PENDING_HANDSHAKES.default,
            embryonic_flows: limits::EMBRYONIC_FLOWS.default,
        }
    }
}

impl Sizes {
    /// Words of the filter in front of all entries.
    const fn filter_words(&self) -> u32 {
        filter_words(self.joined_flows + self.moved_flows + self.pinned_flows)
    }

    /// What the data path must know of them, with the key of the flow hash.
    pub fn globals(&self, cluster_key: lb_common::hash::SipKey) -> Globals {
        Globals {
            cluster_key,
            pending_buckets: buckets_for(self.pending_handshakes),
            embryonic_buckets: buckets_for(self.embryonic_flows),
            filter_words: self.filter_words(),
            reserved: 0,
        }
    }
}

/// The balancer, loaded into the kernel.
#[expect(missing_docs, reason = "each field is the map of the same name in lb_common::tables::Tables")]
pub struct Balancer {
    ebpf: Ebpf,
    pub globals: ArrayTable<Globals>,
    pub addresses: HashTable<Address, Services>,
    pub services: ArrayTable<Service>,
    pub slots: ArrayTable<Slot>,
    pub backends: ArrayTable<Backend>,
    pub joined: HashTable<FlowHash, FlowEntry>,
    pub moved: HashTable<FlowHash, FlowEntry>,
    pub pinned: HashTable<FlowHash, FlowEntry>,
    pub tokens: HashTable<TokenKey, TokenEntry>,
    pub pending: ArrayTable<Bucket>,
    pub embryonic: ArrayTable<Bucket>,
    pub closing: ArrayTable<Bucket>,
    pub counters: PerCpuTable<Counter>,
    pub sent: PerCpuTable<Counter>,
}

/// The balancer's hold on an interface; it ends with [`Balancer::detach`], or with the process.
#[derive(Debug)]
pub struct Attached(XdpLinkId);

impl Balancer {
    /// Loads the program and makes its maps, all empty.
    ///
    /// # Errors
    /// The kernel refuses, each reason with its own message.
    pub fn load(sizes: &Sizes) -> Result<Self, LoadError> {
        if OBJECT.is_empty() {
            return Err(LoadError::NoObject);
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("weir_slots", sizes.pools.max(1) * RING_SLOTS)
            .map_max_entries("weir_tokens", sizes.tokens)
            .map_max_entries("weir_joined", sizes.joined_flows)
            .map_max_entries("weir_pending", buckets_for(sizes.pending_handshakes))
            .map_max_entries("weir_embryonic", buckets_for(sizes.embryonic_flows))
            .map_max_entries("weir_moved", sizes.moved_flows)
            .map_max_entries("weir_pinned", sizes.pinned_flows)
            .map_max_entries("weir_filter", sizes.filter_words())
            .load(OBJECT)
            .map_err(LoadError::object)?;
        program(&mut ebpf)?.load().map_err(|error| LoadError::program(PROGRAM, error))?;
        Ok(Self {
            globals: array(&mut ebpf, "weir_globals")?,
            addresses: hash(&mut ebpf, "weir_addresses")?,
            services: array(&mut ebpf, "weir_services")?,
            slots: array(&mut ebpf, "weir_slots")?,
            backends: array(&mut ebpf, "weir_backends")?,
            joined: hash(&mut ebpf, "weir_joined")?,
            moved: hash(&mut ebpf, "weir_moved")?,
            pinned: hash(&mut ebpf, "weir_pinned")?,
            tokens: hash(&mut ebpf, "weir_tokens")?,
            pending: array(&mut ebpf, "weir_pending")?,
            embryonic: array(&mut ebpf, "weir_embryonic")?,
            closing: array(&mut ebpf, "weir_closing")?,
            counters: per_cpu(&mut ebpf, "weir_counters")?,
            sent: per_cpu(&mut ebpf, "weir_sent")?,
            ebpf,
        })
    }

    /// The program itself, for a test run.
    ///
    /// # Errors
    /// None once it is loaded.
    pub fn program(&mut self) -> Result<&mut Xdp, LoadError> {
        program(&mut self.ebpf)
    }

    /// Attaches the program to an interface.
    ///
    /// # Errors
    /// Another program is there, the driver has no XDP of this mode, or the kernel refuses.
    pub fn attach(&mut self, interface: &str, mode: XdpMode) -> Result<Attached, LoadError> {
        let link = self.program()?.attach(interface, mode).map_err(|error| LoadError::attach(interface, error))?;
        Ok(Attached(link))
    }

    /// Takes the program off the interface.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&mut self, Attached(link): Attached) -> Result<(), LoadError> {
        self.program()?.detach(link).map_err(|error| LoadError::program(PROGRAM, error))
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Xdp, LoadError> {
    let program = ebpf.program_mut(PROGRAM).ok_or(LoadError::Missing(PROGRAM))?;
    program.try_into().map_err(|error| LoadError::program(PROGRAM, error))
}

pub(super) fn take(ebpf: &mut Ebpf, map: &'static str) -> Result<Map, LoadError> {
    ebpf.take_map(map).ok_or(LoadError::Missing(map))
}

pub(super) fn array<V: Value>(ebpf: &mut Ebpf, map: &'static str) -> Result<ArrayTable<V>, LoadError> {
    ArrayTable::new(take(ebpf, map)?).map_err(|error| LoadError::Map { map, error })
}

pub(super) fn hash<K: Value, V: Value>(ebpf: &mut Ebpf, map: &'static str) -> Result<HashTable<K, V>, LoadError> {
    HashTable::new(take(ebpf, map)?).map_err(|error| LoadError::Map { map, error })
}

pub(super) fn per_cpu<V: Value>(ebpf: &mut Ebpf, map: &'static str) -> Result<PerCpuTable<V>, LoadError> {
    PerCpuTable::new(take(ebpf, map)?).map_err(|error| LoadError::Map { map, error })
}
