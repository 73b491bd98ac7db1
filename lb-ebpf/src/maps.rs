//! The maps, and the decision's view of them. Nothing here decides anything.
//!
//! The controller sets the real sizes at load, from the configuration; those written here are the defaults.

use crate::prefix;
use aya_ebpf::{
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf},
    helpers::generated::bpf_ktime_get_coarse_ns,
    macros::btf_map,
};
use core::arch::asm;
use lb_common::{
    addresses, flow,
    hash::{Schedule, sha1, sha256},
    ids::{BackendId, FlowHash, PoolId, Tick, Token, VipId},
    limits,
    mptcp::Version,
    reason::Reason,
    recent::{Bucket, bucket_of, buckets_for, filter_place, filter_words},
    rekey::{self, Kind, Names},
    share::Event,
    stateless::{self, BEARER_CHUNKS, Bearer, Bearers, Codec, TokenId, bearer_place},
    steer::Arrival,
    tables::{
        Backend, Budget, Counter, Exception, FlowEntry, Globals, InsertError, JoinBudget, QuicKey, RING_CHUNKS,
        Service, Services, Slot, SlotWords, Tables, TokenEntry, TokenKey, counter_index, join_place,
    },
    wire::ip::Address,
};

const COUNTERS_MAX: usize = (limits::VIPS_MAX as usize + 1) * Reason::COUNT;
const BACKENDS: usize = limits::BACKENDS_MAX as usize + 1;
const CHUNKS: usize = limits::POOLS_MAX as usize * RING_CHUNKS as usize;
const PENDING_BUCKETS: usize = buckets_for(limits::PENDING_HANDSHAKES.default) as usize;
const EMBRYONIC_BUCKETS: usize = buckets_for(limits::EMBRYONIC_FLOWS.default) as usize;
const DATAGRAM_BUCKETS: usize = buckets_for(limits::DATAGRAM_FLOWS.default) as usize;
const FRAGMENT_BUCKETS: usize = buckets_for(limits::FRAGMENTED_DATAGRAMS.default) as usize;
const CLOSING_BUCKETS: usize = buckets_for(limits::CLOSING_SIGNS) as usize;

#[btf_map(name = "weir_globals")]
static GLOBALS: Array<Globals, 1> = Array::new();
#[btf_map(name = "weir_addresses")]
static ADDRESSES: Array<addresses::Row, { addresses::ALL_ROWS as usize }> = Array::new();
#[btf_map(name = "weir_prefixes")]
static PREFIXES: LpmTrie<Address, Services, { limits::PREFIXES_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "weir_services")]
static SERVICES: Array<Service, { limits::SERVICES_MAX as usize }> = Array::new();
#[btf_map(name = "weir_owners")]
static OWNERS: Array<SlotWords, CHUNKS> = Array::new();
#[btf_map(name = "weir_previous")]
static PREVIOUS: Array<SlotWords, CHUNKS> = Array::new();
#[btf_map(name = "weir_backends")]
static BACKENDS_BY_ID: Array<Backend, BACKENDS> = Array::new();
#[btf_map(name = "weir_joined")]
static JOINED: HashMap<FlowHash, FlowEntry, { limits::JOINED_FLOWS.default as usize }> = HashMap::new();
#[btf_map(name = "weir_moved")]
static MOVED: HashMap<FlowHash, FlowEntry, { limits::MOVED_FLOWS.default as usize }> = HashMap::new();
#[btf_map(name = "weir_pinned")]
static PINNED: HashMap<FlowHash, FlowEntry, { limits::PINNED_FLOWS.default as usize }> = HashMap::new();
#[btf_map(name = "weir_tokens")]
static TOKENS: HashMap<TokenKey, TokenEntry, { limits::TOKENS.default as usize }> = HashMap::new();
#[btf_map(name = "weir_pending")]
static PENDING: Array<Bucket, PENDING_BUCKETS> = Array::new();
#[btf_map(name = "weir_embryonic")]
static EMBRYONIC: Array<Bucket, EMBRYONIC_BUCKETS> = Array::new();
#[btf_map(name = "weir_closing")]
static CLOSING: Array<Bucket, CLOSING_BUCKETS> = Array::new();
#[btf_map(name = "weir_datagrams")]
static DATAGRAMS: Array<Bucket, DATAGRAM_BUCKETS> = Array::new();
#[btf_map(name = "weir_fragments")]
static FRAGMENTS: Array<Bucket, FRAGMENT_BUCKETS> = Array::new();
#[btf_map(name = "weir_quic")]
static QUIC_SERVERS: HashMap<QuicKey, BackendId, { limits::QUIC_SERVERS_MAX as usize }> = HashMap::new();
#[btf_map(name = "weir_codecs")]
static CODECS: Array<Codec, { limits::POOLS_MAX as usize }> = Array::new();
#[btf_map(name = "weir_bearers")]
static BEARERS: Array<Bearers, { BEARER_CHUNKS as usize }> = Array::new();
#[btf_map(name = "weir_networks")]
static NETWORKS: Array<Budget, { limits::NETWORKS as usize }> = Array::new();
#[btf_map(name = "weir_joins")]
static JOINS: Array<JoinBudget, { limits::JOIN_BUDGETS as usize }> = Array::new();
#[btf_map(name = "weir_errors")]
static ERRORS: PerCpuArray<Budget, 1> = PerCpuArray::new();
#[btf_map(name = "weir_counters")]
static COUNTERS: PerCpuArray<Counter, COUNTERS_MAX> = PerCpuArray::new();
#[btf_map(name = "weir_sent")]
static SENT: PerCpuArray<Counter, BACKENDS> = PerCpuArray::new();
#[btf_map(name = "weir_filter")]
static FILTER: Array<u64, { 2 * filter_words(limits::JOINED_FLOWS.default) as usize }> = Array::new();

/// What the controller is to tell others; what finds no room is counted.
#[btf_map(name = "weir_events")]
static EVENTS: RingBuf<(), { limits::EVENTS_BYTES as usize }> = RingBuf::new();
#[btf_map(name = "weir_lost")]
static EVENTS_LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Whether a table has ever been written to: until then there is no need to look into it, or into its filter.
#[btf_map(name = "weir_marks")]
static MARKS: Array<Marks, 1> = Array::new();

#[repr(C)]
struct Marks {
    entries: u32,
    handshakes: u32,
}

/// Where a decision writes down what it reads.
#[btf_map(name = "weir_arrival")]
static ARRIVAL: PerCpuArray<Arrival, 1> = PerCpuArray::new();

/// The place for what this CPU's decision reads.
#[inline(always)]
pub fn arrival() -> Option<&'static mut Arrival> {
    // SAFETY: the element is this CPU's own, and all zeros are an arrival; nobody asks for it twice in a run.
    ARRIVAL.get_ptr_mut(0).map(|arrival| unsafe { &mut *arrival })
}

/// Where SHA-256 has its message schedule: on the stack there is no room for it.
#[btf_map(name = "weir_schedule")]
static SCHEDULE: PerCpuArray<ScheduleMemory, 1> = PerCpuArray::new();

/// A struct, for the kernel takes no array of arrays as a map's type.
#[repr(C)]
struct ScheduleMemory(Schedule);

/// The kernel's tables.
pub struct KernelTables;

/// A value of an array map, to be changed in place.
macro_rules! element {
    ($map:ident, $index:expr) => {{
        let place = $map.get_ptr_mut($index)?;
        // SAFETY: the kernel checked the index and keeps the element as long as the map. Another CPU may write it at the
        // same time; every type here is plain data, and whoever reads it copes with a mix of two writes.
        Some(unsafe { &mut *place })
    }};
}

impl Tables for KernelTables {
    #[inline(always)]
    fn globals(&self) -> Option<&Globals> {
        GLOBALS.get(0)
    }

    #[inline(always)]
    fn now(&self) -> Tick {
        // SAFETY: a helper without arguments.
        Tick::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn services(&self, address: &Address) -> Option<Services> {
        let globals = self.globals()?;
        match addresses::find(&globals.addresses, address, |index| ADDRESSES.get(index)) {
            Some(services) => Some(services),
            None if globals.prefixes > 0 => prefix::longest(&PREFIXES, address).copied(),
            None => None,
        }
    }

    #[inline(always)]
    fn service(&self, index: u32) -> Option<&Service> {
        SERVICES.get(index)
    }

    #[inline(always)]
    fn search(&self, services: Services, protocol: u8, port: u16) -> Option<u32> {
        let found = search_services(services.first, services.count, u32::from(protocol), u32::from(port));
        if found == NO_SERVICE { None } else { Some(found) }
    }

    #[inline(always)]
    fn slot(&self, pool: PoolId, slot: u32) -> Option<Slot> {
        let (chunk, place) = flow::slot_place(pool, slot);
        let owner = OWNERS.get(chunk)?[place];
        Slot::from_words(owner, || Some(PREVIOUS.get(chunk)?[place]))
    }

    #[inline(always)]
    fn backend(&self, id: BackendId) -> Option<&Backend> {
        BACKENDS_BY_ID.get(u32::from(id.0))
    }

    #[inline(always)]
    fn may_have_entry(&self, flow: FlowHash) -> bool {
        if MARKS.get(0).is_some_and(|marks| marks.entries == 0) {
            return false;
        }
        let Some(globals) = self.globals() else { return true };
        let [first, second] = globals.filters;
        let (index, bits) = filter_place(flow, if globals.filter_asked == 0 { first } else { second });
        FILTER.get(index).is_none_or(|word| word & bits == bits)
    }

    #[inline(always)]
    fn entry(&mut self, flow: FlowHash) -> Option<&mut FlowEntry> {
        let place = match JOINED.get_ptr_mut(flow) {
            Some(place) => place,
            None => match MOVED.get_ptr_mut(flow) {
                Some(place) => place,
                None => PINNED.get_ptr_mut(flow)?,
            },
        };
        // SAFETY: as for the elements of arrays; an entry that is removed meanwhile stays readable until the program ends.
        Some(unsafe { &mut *place })
    }

    #[inline(always)]
    fn entry_of(&mut self, kind: Exception, flow: FlowHash) -> Option<FlowEntry> {
        let place = match kind {
            Exception::Joined => JOINED.get_ptr_mut(flow)?,
            Exception::Moved => MOVED.get_ptr_mut(flow)?,
            Exception::Pinned => PINNED.get_ptr_mut(flow)?,
        };
        // SAFETY: as for the entry itself.
        Some(unsafe { *place })
    }

    #[inline(always)]
    fn insert_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) -> Result<(), InsertError> {
        let inserted = match kind {
            Exception::Joined => JOINED.insert(flow, entry, BPF_NOEXIST),
            Exception::Moved => MOVED.insert(flow, entry, BPF_NOEXIST),
            Exception::Pinned => PINNED.insert(flow, entry, BPF_NOEXIST),
        };
        inserted.map_err(insert_error)?;
        if let Some(marks) = MARKS.get_ptr_mut(0) {
            // SAFETY: a plain store of a word; all CPUs write the same.
            unsafe { (*marks).entries = 1 };
        }
        if let Some(globals) = self.globals() {
            for filter in globals.filters {
                let (index, bits) = filter_place(flow, filter);
                add_to_filter(index, bits);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn remove_entry(&mut self, flow: FlowHash) {
        // A flow has an entry of one kind; another CPU may have removed it first.
        let _ = JOINED.remove(flow);
        let _ = MOVED.remove(flow);
        let _ = PINNED.remove(flow);
    }

    #[inline(always)]
    fn token(&mut self, key: &TokenKey) -> Option<&mut TokenEntry> {
        element!(TOKENS, key)
    }

    #[inline(always)]
    fn insert_token(&mut self, key: &TokenKey, entry: TokenEntry) -> Result<(), InsertError> {
        TOKENS.insert(key, entry, BPF_NOEXIST).map_err(insert_error)
    }

    #[inline(always)]
    fn may_be_pending(&self) -> bool {
        MARKS.get(0).is_none_or(|marks| marks.handshakes != 0)
    }

    #[inline(always)]
    fn note_pending(&mut self) {
        if let Some(marks) = MARKS.get_ptr_mut(0) {
            // SAFETY: as for the entries.
            unsafe { (*marks).handshakes = 1 };
        }
    }

    #[inline(always)]
    fn pending(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        let buckets = self.globals()?.pending_buckets;
        element!(PENDING, bucket_of(flow, buckets))
    }

    #[inline(always)]
    fn embryonic(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        let buckets = self.globals()?.embryonic_buckets;
        element!(EMBRYONIC, bucket_of(flow, buckets))
    }

    #[inline(always)]
    fn closing(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        element!(CLOSING, bucket_of(flow, CLOSING_BUCKETS as u32))
    }

    #[inline(always)]
    fn datagrams(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        let buckets = self.globals()?.datagram_buckets;
        element!(DATAGRAMS, bucket_of(flow, buckets))
    }

    #[inline(always)]
    fn fragments(&mut self, datagram: FlowHash) -> Option<&mut Bucket> {
        let buckets = self.globals()?.fragment_buckets;
        element!(FRAGMENTS, bucket_of(datagram, buckets))
    }

    #[inline(always)]
    fn quic_server(&self, key: &QuicKey) -> Option<BackendId> {
        // SAFETY: the value is copied at once; the controller replaces entries, it does not write into them.
        unsafe { QUIC_SERVERS.get(key).copied() }
    }

    #[inline(always)]
    fn codec(&self, pool: PoolId) -> Option<&Codec> {
        CODECS.get(u32::from(pool.0))
    }

    #[inline(always)]
    fn bearer(&self, pool: PoolId, id: TokenId) -> Bearer {
        let (chunk, place) = bearer_place(pool, id);
        BEARERS.get(chunk).map_or(Bearer::NOBODY, |bearers| bearers[place])
    }

    #[inline(always)]
    fn named_by(&self, pool: PoolId, token: Token) -> Bearer {
        Bearer::from_word(token_names(u32::from(pool.0), u32::from_ne_bytes(token.to_wire())))
    }

    #[inline(always)]
    fn tell(&mut self, event: &Event) {
        let kind_and_pool = u32::from(event.kind) << 16 | u32::from(event.pool.0);
        tell(event.flow.0, event.value, event.at.0, kind_and_pool, u32::from(event.backend.0));
    }

    #[inline(always)]
    fn network_budget(&mut self, network: FlowHash) -> Option<&mut Budget> {
        element!(NETWORKS, bucket_of(network, limits::NETWORKS))
    }

    #[inline(always)]
    fn join_budget(&mut self, token: Token) -> Option<&mut JoinBudget> {
        element!(JOINS, join_place(token))
    }

    #[inline(always)]
    fn error_budget(&mut self) -> Option<&mut Budget> {
        element!(ERRORS, 0)
    }

    #[inline(always)]
    fn goes_by_former(&mut self, names: Names, pool: PoolId, kind: Kind) -> bool {
        goes_by_former(names.present.0, names.former.0, u32::from(pool.0), kind as u32) != 0
    }

    #[inline(always)]
    fn derive_token(version: Version, key: [u8; 8]) -> Token {
        let key = u64::from_ne_bytes(key);
        let word = match version {
            Version::V0 => token_v0(key),
            Version::V1 => token_v1(key),
        };
        Token::from_wire(word.to_ne_bytes())
    }
}

#[inline(always)]
fn add_to_filter(index: u32, bits: u64) {
    if let Some(word) = FILTER.get_ptr_mut(index) {
        // SAFETY: the word is an element of a map; the instruction is atomic, for other CPUs set other bits of it.
        unsafe { asm!("lock *(u64 *)({0} + 0) |= {1}", in(reg) word, in(reg) bits, options(nostack)) };
    }
}

/// A function of its own: the verifier walks it once, and what it writes is not on the stack of who calls it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell(flow: u64, value: u32, at: u32, kind_and_pool: u32, backend: u32) -> u32 {
    if let Some(mut place) = EVENTS.reserve_untyped::<Event>(0) {
        place.write(Event {
            flow: FlowHash(flow),
            value,
            at: Tick(at),
            pool: PoolId(kind_and_pool as u16),
            backend: BackendId(backend as u16),
            kind: (kind_and_pool >> 16) as u16,
            reserved: 0,
        });
        place.submit(0);
    } else if let Some(lost) = EVENTS_LOST.get_ptr_mut(0) {
        // SAFETY: the element is this CPU's own.
        unsafe { *lost += 1 };
    }
    0
}

const NO_SERVICE: u32 = u32::MAX;

/// A function of its own: the verifier walks the search once, not once for each way that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_services(first: u32, count: u32, protocol: u32, port: u32) -> u32 {
    Services { first, count }.search(&KernelTables, protocol as u8, port as u16).unwrap_or(NO_SERVICE)
}

/// A function of its own, as the search is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn token_names(pool: u32, token: u32) -> u32 {
    stateless::named_by(&KernelTables, PoolId(pool as u16), Token::from_wire(token.to_ne_bytes())).to_word()
}

fn insert_error(errno: i32) -> InsertError {
    if errno == -EEXIST { InsertError::Exists } else { InsertError::Full }
}

const EEXIST: i32 = 17;
const BPF_NOEXIST: u64 = 1;

/// A function of its own: it is only ever called while the cluster key is changed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn goes_by_former(present: u64, former: u64, pool: u32, kind: u32) -> u32 {
    let names = Names { present: FlowHash(present), former: FlowHash(former) };
    u32::from(rekey::goes_by_former(&mut KernelTables, names, PoolId(pool as u16), Kind::from_number(kind)))
}

/// A function of its own, so that the verifier sees the digest once and its variables have their own stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn token_v0(key: u64) -> u32 {
    u32::from_ne_bytes(sha1::first_word(key.to_ne_bytes()))
}

/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn token_v1(key: u64) -> u32 {
    let Some(schedule) = SCHEDULE.get_ptr_mut(0) else { return 0 };
    // SAFETY: the element is this CPU's own.
    u32::from_ne_bytes(sha256::first_word_with(key.to_ne_bytes(), unsafe { &mut (*schedule).0 }))
}

/// Counts a packet for its VIP and reason.
#[inline(always)]
pub fn count(vip: VipId, reason: Reason, bytes: usize) {
    if let Some(counter) = COUNTERS.get_ptr_mut(counter_index(vip, reason)) {
        add(counter, bytes);
    }
}

/// Counts a packet sent to a backend.
#[inline(always)]
pub fn count_sent(backend: BackendId, bytes: usize) {
    if let Some(counter) = SENT.get_ptr_mut(u32::from(backend.0)) {
        add(counter, bytes);
    }
}

#[inline(always)]
fn add(counter: *mut Counter, bytes: usize) {
    // SAFETY: the element is this CPU's own.
    unsafe {
        (*counter).packets += 1;
        (*counter).bytes += bytes as u64;
    }
}
