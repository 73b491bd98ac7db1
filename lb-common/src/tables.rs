//! The tables that the decision asks: their keys and values, byte for byte as the kernel holds them, and the trait by
//! which it asks. In XDP the trait is BPF maps, on the host plain collections.
//!
//! Any change to a layout here is a change of [`ABI`].

use crate::{
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId, Tick, Token, VipId},
    mptcp::{Version, token},
    reason::Reason,
    recent::Bucket,
    wire::ip::Address,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version of everything below; part of the path under which maps are pinned.
pub const ABI: u32 = 1;

/// Slots of a ring: a prime, and large enough for 1 % accuracy with hundreds of backends (Maglev, NSDI 2016, 5.3).
pub const RING_SLOTS: u32 = 65_537;

/// What holds for the whole balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Globals {
    /// The key of the flow hash; the same on all balancers of a cluster.
    pub cluster_key: SipKey,
    /// Buckets of the pending handshakes, a power of two; likewise below.
    pub pending_buckets: u32,
    /// Buckets of the embryonic flows.
    pub embryonic_buckets: u32,
    /// Words of the filter in front of the joined flows.
    pub filter_words: u32,
    #[doc(hidden)]
    pub reserved: u32,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// How many packets.
    pub packets: u64,
    /// How many bytes their IP packets had, without a tunnel; frames where there is no IP packet count none.
    pub bytes: u64,
}

/// Where the packets of a VIP that had a reason are counted.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a few dozen reasons")]
pub const fn counter_index(vip: VipId, reason: Reason) -> u32 {
    vip.0 as u32 * Reason::COUNT as u32 + reason.index()
}

/// The port rules of a VIP's address: a run of [`Service`]s, sorted by protocol and first port, without overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Services {
    /// The index of the first.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// Ways that a pool has to keep the subflows of a connection together, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Ways(pub u8);

impl Ways {
    /// None: a join is a SYN like any other.
    pub const OFF: Self = Self(0);
    /// Tokens are learned from third packets.
    pub const LEARN: Self = Self(1);
    /// Also from those whose handshake this balancer did not see begin.
    pub const LEARN_UNSEEN: Self = Self(2);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `ways` are in this set.
    #[inline(always)]
    pub const fn has(self, ways: Self) -> bool {
        self.0 & ways.0 == ways.0
    }

    /// Whether a join is looked up at all.
    #[inline(always)]
    pub const fn any(self) -> bool {
        self.0 != 0
    }
}

/// What becomes of a join that names no known connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct UnknownJoin(pub u8);

impl UnknownJoin {
    /// Dropped: the client sends it again after 1 s and 2 s.
    pub const DROP: Self = Self(0);
    /// Sent by the ring like any SYN: right with probability 1/n.
    pub const HASH: Self = Self(1);
    /// Answered by a reset with `MP_TCPRST`: the client never tries this path again.
    pub const RESET: Self = Self(2);
}

/// A VIP: a range of ports of an address that a pool serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Service {
    /// The first port.
    pub port_first: u16,
    /// The last port.
    pub port_last: u16,
    /// The IP protocol.
    pub protocol: u8,
    /// The pool's ways to keep subflows together.
    pub ways: Ways,
    /// The pool's policy for joins that none of the ways knows.
    pub unknown_join: UnknownJoin,
    #[doc(hidden)]
    pub reserved: u8,
    /// Who serves it.
    pub pool: PoolId,
    /// The row of its counters.
    pub vip: VipId,
}

const _: () = assert!(size_of::<Service>() == 12);

/// A slot of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4))]
pub struct Slot {
    /// Who takes new connections.
    pub owner: BackendId,
    /// Read by [`Self::previous`] and [`Self::pins`].
    previous: BackendId,
}

impl Slot {
    /// The bit of `previous` that asks for entries for the survivors, see [`Self::pins`].
    const PINS: u16 = 1 << 15;

    /// A slot that no change has touched.
    pub const fn settled(owner: BackendId) -> Self {
        Self { owner, previous: BackendId::NONE }
    }

    /// A slot whose connections without an entry are its previous owner's.
    pub const fn in_transition(owner: BackendId, previous: BackendId) -> Self {
        Self { owner, previous }
    }

    /// Who took new connections before the change, while the slot is in transition; else none.
    #[inline(always)]
    pub const fn previous(self) -> BackendId {
        BackendId(self.previous.0 & !Self::PINS)
    }

    /// Whether connections of two owners may be open here.
    #[inline(always)]
    pub const fn is_in_transition(self) -> bool {
        self.previous.0 != 0
    }

    /// Whether the transition is about to end: what is still open at the previous owner gets an entry.
    #[inline(always)]
    pub const fn pins(self) -> bool {
        self.previous.0 & Self::PINS != 0
    }

    /// The same slot, about to end its transition.
    #[must_use]
    pub const fn pinning(self) -> Self {
        Self { owner: self.owner, previous: BackendId(self.previous.0 | Self::PINS) }
    }

    /// Whether a connection of `backend` in this slot needs no entry, now and when the transition is over.
    #[inline(always)]
    pub fn answers_for(self, backend: BackendId) -> bool {
        self.established() == backend && (!self.pins() || self.owner == backend)
    }

    /// Who has the connections of this slot that nothing else is known of.
    #[inline(always)]
    pub const fn established(self) -> BackendId {
        if self.is_in_transition() { self.previous() } else { self.owner }
    }
}

/// How packets travel to a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Encap(pub u8);

impl Encap {
    /// No such backend, or no way to it: packets for it are dropped.
    pub const GONE: Self = Self(0);
    /// As they are, to the backend's MAC address.
    pub const L2: Self = Self(1);
    /// In IPv4 (RFC 2003, RFC 4213).
    pub const IPIP4: Self = Self(2);
    /// In IPv6 (RFC 2473).
    pub const IPIP6: Self = Self(3);
}

/// Bytes that stand in front of the inner packet at most: Ethernet and IPv6.
pub const OUTER_MAX: usize = 54;

/// A backend, as the data path knows it: the outer header that the controller has made ready, and where to send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    /// Ethernet and IP header with all fields that no packet changes; zeros in those that one does.
    pub outer: [u8; OUTER_MAX],
    /// The ones' complement sum of the IPv4 header in `outer`, not yet inverted.
    pub checksum: u16,
    /// The interface to send on.
    pub interface: u32,
    /// The longest IP packet, tunnel included, that the path takes, in bytes.
    pub mtu: u16,
    /// How packets travel.
    pub encap: Encap,
    #[doc(hidden)]
    pub reserved: u8,
}

const _: () = assert!(size_of::<Backend>() == 64);

/// The name of a connection in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TokenKey {
    /// A connection belongs to a pool, not to a VIP.
    pub pool: PoolId,
    #[doc(hidden)]
    pub reserved: u16,
    /// The server's token.
    pub token: Token,
}

impl TokenKey {
    /// The key of a token in a pool.
    #[inline(always)]
    pub const fn new(pool: PoolId, token: Token) -> Self {
        Self { pool, reserved: 0, token }
    }
}

/// A connection that holds a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Holder {
    /// Its first subflow.
    pub flow: FlowHash,
    /// When it was learned, or when its first subflow closed.
    pub since: Tick,
    /// Where it lives.
    pub backend: BackendId,
    /// One of the constants below.
    pub state: u16,
}

impl Holder {
    /// Nobody.
    pub const VACANT: u16 = 0;
    /// A connection whose first subflow is open, as far as is known.
    pub const OPEN: u16 = 1;
    /// A connection whose first subflow has closed; others may live on and be joined.
    pub const CLOSED: u16 = 2;
    /// More connections than there is room for hold the token: it stays ambiguous until its entry ends by age.
    pub const CROWD: u16 = 3;

    /// Whether a connection (or a crowd) holds the token here.
    #[inline(always)]
    pub const fn is_some(&self) -> bool {
        self.state != Self::VACANT
    }
}

/// Who holds a token: one connection, or more when chance has it (`N^2 / 2^33` pairs among `N` connections).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TokenEntry {
    /// The first that was learned, and another on another backend.
    pub holders: [Holder; 2],
}

const _: () = assert!(size_of::<TokenEntry>() == 32);

/// A flow that the ring does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowEntry {
    /// The client's initial sequence number: a SYN with another one is a new connection, or a lie.
    pub sequence: u32,
    /// When its last packet came.
    pub seen: Tick,
    /// Where it lives.
    pub backend: BackendId,
    /// One of the constants below.
    pub state: u16,
}

const _: () = assert!(size_of::<FlowEntry>() == 12);

impl FlowEntry {
    /// The flow is open.
    pub const OPEN: u16 = 1;
    /// A FIN or RST has come from the client.
    pub const CLOSED: u16 = 2;
    /// A SYN has come for the same 5-tuple: the embryonic table may know a successor.
    pub const CONTESTED: u16 = 4;
}

/// Kinds of [`crate::recent::Recent`] memory.
pub mod state {
    /// A handshake of MPTCP v0 has begun.
    pub const BEGUN_V0: u16 = 1;
    /// A handshake of MPTCP v1 has begun.
    pub const BEGUN_V1: u16 = 2;
    /// The handshake has taught its token; it teaches no other.
    pub const TAUGHT: u16 = 3;
    /// A joined subflow waits for the ACK that confirms it.
    pub const JOINING: u16 = 4;
    /// A new connection waits for the ACK that confirms it.
    pub const OPENING: u16 = 6;
    /// The client has sent FIN or RST.
    pub const CLOSING: u16 = 5;
}

/// Why a flow is an exception to the ring. Each kind has a table of its own, so that none can fill another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exception {
    /// A subflow that joined a connection on another backend than the ring's.
    Joined,
    /// A connection begun in a slot in transition, at its new owner.
    Moved,
    /// A connection older than the transition of its slot, which outlives it at the previous owner.
    Pinned,
}

/// Why a table took no new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// Another CPU inserted the same key first.
    Exists,
    /// The table has reached its limit.
    Full,
}

/// The tables, as the decision sees them.
pub trait Tables {
    /// What holds for the whole balancer.
    fn globals(&self) -> Option<&Globals>;
    /// The kernel's monotonic clock.
    fn now(&self) -> Tick;
    /// The port rules of an address, if it is a VIP's.
    fn services(&self, address: &Address) -> Option<Services>;
    /// A port rule.
    fn service(&self, index: u32) -> Option<Service>;
    /// A slot of a pool's ring; `slot` is below [`RING_SLOTS`].
    fn slot(&self, pool: PoolId, slot: u32) -> Option<Slot>;
    /// A backend.
    fn backend(&self, id: BackendId) -> Option<&Backend>;

    /// Whether a flow may have an entry: no false "no", few false "yes".
    fn may_have_entry(&self, flow: FlowHash) -> bool;
    /// A flow's entry, of whatever kind.
    fn entry(&mut self, flow: FlowHash) -> Option<&mut FlowEntry>;
    /// A new entry for a flow.
    ///
    /// # Errors
    /// `Full` at the limit of this kind, `Exists` where there is one of this kind.
    fn insert_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) -> Result<(), InsertError>;
    /// Ends a flow's entry, of whatever kind.
    fn remove_entry(&mut self, flow: FlowHash);

    /// A token's entry.
    fn token(&mut self, key: &TokenKey) -> Option<&mut TokenEntry>;
    /// A new entry for a token.
    ///
    /// # Errors
    /// `Full` at the limit, `Exists` where there is one.
    fn insert_token(&mut self, key: &TokenKey, entry: TokenEntry) -> Result<(), InsertError>;

    /// Where the handshakes of MPTCP connections are remembered.
    fn pending(&mut self, flow: FlowHash) -> Option<&mut Bucket>;
    /// Where new flows wait for their confirmation.
    fn embryonic(&mut self, flow: FlowHash) -> Option<&mut Bucket>;
    /// Where the closing of flows is noted for the controller.
    fn closing(&mut self, flow: FlowHash) -> Option<&mut Bucket>;

    /// The token of a key: [`token::derive`], which the kernel calls as a function of its own.
    fn derive_token(version: Version, key: [u8; 8]) -> Token {
        token::derive(version, key)
    }
}
