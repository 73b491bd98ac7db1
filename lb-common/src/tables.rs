//! The tables that the decision asks: their keys and values, byte for byte as the kernel holds them, and the trait by
//! which it asks. In XDP the trait is BPF maps, on the host plain collections.
//!
//! Any change to a layout here is a change of [`ABI`].

use crate::{
    addresses::Turn,
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId, Tick, Token, VipId},
    limits::SERVICES_PER_ADDRESS_MAX,
    mptcp::{Version, token},
    packet::Packet,
    reason::Reason,
    recent::Bucket,
    rekey::{self, Kind, Names, Rotation},
    share::Event,
    stateless::{self, Bearer, Codec, TokenId},
    wire::ip::Address,
};
use core::cmp::Ordering;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

mod budget;
mod slot;

pub use budget::{Budget, JoinBudget, join_place};
pub use slot::{RING_CHUNKS, RING_SLOTS, SLOTS_PER_CHUNK, Slot, SlotWords};

/// The version of everything below; part of the path under which maps are pinned.
pub const ABI: u32 = 6;

/// What holds for the whole balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Globals {
    /// The keys of the flow hash, the same on all balancers of a cluster; which of them holds says `rotation`.
    pub keys: [SipKey; 2],
    /// Buckets of the pending handshakes, a power of two; likewise below.
    pub pending_buckets: u32,
    /// Buckets of the embryonic flows.
    pub embryonic_buckets: u32,
    /// Buckets of the datagram flows.
    pub datagram_buckets: u32,
    /// Buckets of the datagrams in pieces.
    pub fragment_buckets: u32,
    /// The two filters in front of the flows that have an entry: new entries are added to both.
    pub filters: [Span; 2],
    /// Which of them is asked, 0 or 1.
    pub filter_asked: u32,
    /// Entries that the clients of one network may have made in a tick.
    pub entries_per_network: u32,
    /// Joins that one token may bring in a tick.
    pub joins_per_token: u32,
    /// ICMP errors that a CPU may send in a tick.
    pub errors_per_cpu: u32,
    /// How many VIPs are prefixes; without any, no prefix is looked for.
    pub prefixes: u32,
    /// Whether others want to know of tokens that are learned and flows that join: 0 or 1.
    pub tells: u32,
    /// Which key holds, and whether flows of the other one are still about.
    pub rotation: Rotation,
    #[doc(hidden)]
    pub reserved: u32,
    /// Where the addresses of VIPs are.
    pub addresses: Turn,
}

const _: () = assert!(size_of::<Globals>() == 120);

impl Globals {
    /// The key that names new flows.
    #[inline(always)]
    pub const fn key(&self) -> &SipKey {
        &self.keys[self.rotation.index()]
    }

    /// The key that named flows before the last rotation.
    #[inline(always)]
    pub const fn former_key(&self) -> &SipKey {
        &self.keys[1 - self.rotation.index()]
    }
}

/// A run of elements of a table. Aligned, so that no CPU sees half of one that the controller writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Span {
    /// The index of the first.
    pub first: u32,
    /// How many there are.
    pub len: u32,
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counter {
    /// How many packets.
    pub packets: u64,
    /// How many bytes their frames had as they came: to the end of the IP packet where one was forwarded, else all.
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

impl Services {
    /// The index of the one in the middle.
    #[inline(always)]
    pub const fn middle(self) -> u32 {
        self.first + self.count / 2
    }

    /// Binary search for the rule of a port; its index.
    #[inline(always)]
    pub fn search<T: Tables + ?Sized>(mut self, tables: &T, protocol: u8, port: u16) -> Option<u32> {
        const STEPS: u32 = SERVICES_PER_ADDRESS_MAX.ilog2() + 1;
        for _ in 0..STEPS {
            if self.count == 0 {
                return None;
            }
            let middle = self.middle();
            match tables.service(middle)?.compare(protocol, port) {
                Ordering::Equal => return Some(middle),
                Ordering::Greater => self.count /= 2,
                Ordering::Less => {
                    self.count -= self.count / 2 + 1;
                    self.first = middle + 1;
                }
            }
        }
        None
    }
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
    /// Each backend has a port or an address of its own for joins: no packet but one to it is known by this way.
    pub const ENDPOINT: Self = Self(4);
    /// Agents on the backends tell the tokens; the data path only looks them up.
    pub const REPORT: Self = Self(8);
    /// Tokens name the backend by themselves.
    pub const TOKEN: Self = Self(16);
    /// Beside [`Self::TOKEN`]: tokens are known that would name another backend than their own.
    pub const KNOWN: Self = Self(32);

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

    /// Whether the token of a join may be known: not where all tokens name their backend.
    #[inline(always)]
    pub const fn may_know_tokens(self) -> bool {
        self.0 & Self::TOKEN.0 == 0 || self.0 & (Self::LEARN.0 | Self::REPORT.0 | Self::KNOWN.0) != 0
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

/// What else sets a pool's packets apart, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Traits(pub u8);

impl Traits {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// All flows of a source address go to one backend.
    pub const SOURCE_AFFINITY: Self = Self(1);
    /// TCP segments in pieces are forwarded, not dropped.
    pub const TCP_FRAGMENTS: Self = Self(2);

    /// Both sets together.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `traits` are in this set.
    #[inline(always)]
    pub const fn has(self, traits: Self) -> bool {
        self.0 & traits.0 == traits.0
    }
}

/// A VIP: a range of ports of an address that a pool serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
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
    /// What else the pool asks for.
    pub traits: Traits,
    /// Who serves it.
    pub pool: PoolId,
    /// The row of its counters.
    pub vip: VipId,
    /// Bytes of the server id in the connection ids of QUIC, 1 to 15; 0 where they are not looked at.
    pub quic_id_len: u8,
    #[doc(hidden)]
    pub reserved: u8,
    /// The only backend of a join endpoint; none where the pool's ring and tables decide.
    pub endpoint: BackendId,
}

const _: () = assert!(size_of::<Service>() == 16);

impl Service {
    /// What is no rule.
    pub const NONE: Self = Self {
        port_first: 0,
        port_last: 0,
        protocol: 0,
        ways: Ways::OFF,
        unknown_join: UnknownJoin::DROP,
        traits: Traits::NONE,
        pool: PoolId(0),
        vip: VipId::NONE,
        quic_id_len: 0,
        reserved: 0,
        endpoint: BackendId::NONE,
    };

    /// A copy, in two words: LLVM would copy the rest of a rule of which it knows a part byte by byte, in the kernel.
    #[inline(always)]
    pub(crate) fn copied_by<P: Packet>(&self) -> Self {
        let words: [u64; 2] = zerocopy::transmute!(*self);
        zerocopy::transmute!(words.map(P::merged))
    }

    /// Where this rule lies in the order of its address's, seen from a port.
    #[inline(always)]
    pub fn compare(&self, protocol: u8, port: u16) -> Ordering {
        let wanted = (protocol, port);
        if wanted < (self.protocol, self.port_first) {
            Ordering::Greater
        } else if wanted > (self.protocol, self.port_last) {
            Ordering::Less
        } else {
            Ordering::Equal
        }
    }
}

/// The name of a server in QUIC connection ids (draft-ietf-quic-load-balancers, 5.2: the plaintext form).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuicKey {
    /// Whose servers.
    pub pool: PoolId,
    /// The three bits that tell how the connection id is made.
    pub rotation: u8,
    /// Bytes of the server id.
    pub len: u8,
    #[doc(hidden)]
    pub reserved: u32,
    /// The server id and zeros, as little-endian words.
    pub id: [u64; 2],
}

impl QuicKey {
    /// Bytes of a server id at most.
    pub const ID_MAX: usize = 15;

    /// The key of a server.
    ///
    /// # Panics
    /// If the id is longer than [`Self::ID_MAX`].
    pub fn new(pool: PoolId, rotation: u8, id: &[u8]) -> Self {
        assert!(id.len() <= Self::ID_MAX, "a server id has 15 bytes at most");
        let mut words = [0; 2];
        for (i, &byte) in id.iter().enumerate() {
            words[i / 8] |= u64::from(byte) << (i % 8 * 8);
        }
        #[expect(clippy::cast_possible_truncation, reason = "15 at most")]
        Self { pool, rotation, len: id.len() as u8, reserved: 0, id: words }
    }
}

const _: () = assert!(size_of::<QuicKey>() == 24);

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
    /// In UDP over IPv4 (draft-ietf-intarea-gue-09, variant 0).
    pub const GUE4: Self = Self(4);
    /// In UDP over IPv6, likewise.
    pub const GUE6: Self = Self(5);
}

/// Bytes that stand in front of the inner packet at most: Ethernet, IPv6, UDP and GUE.
pub const OUTER_MAX: usize = 66;

/// Bytes of two VLAN tags.
pub const TAGS_MAX: usize = 8;

/// A backend, as the data path knows it: the outer header that the controller has made ready, and where to send it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Backend {
    /// The interface to send on.
    pub interface: u32,
    /// The bits of the tunnel's source address that the flow's hash fills in, from the last byte on.
    pub spread: u32,
    /// The longest IP packet, tunnel included, that the path takes, in bytes.
    pub mtu: u16,
    /// The ones' complement sum of the IPv4 header in `outer`, not yet inverted.
    pub checksum: u16,
    /// How packets travel.
    pub encap: Encap,
    /// Bytes of VLAN tags in front of the outer header's `EtherType`: 0, 4 or 8.
    pub tags_len: u8,
    /// Ethernet, IP, UDP and GUE header with all fields that no packet changes; zeros in those that one does.
    pub outer: [u8; OUTER_MAX],
    /// The tags, outermost first.
    pub tags: [u8; TAGS_MAX],
    #[doc(hidden)]
    pub reserved: [u8; 8],
}

const _: () = assert!(size_of::<Backend>() == 96);

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
    /// No packet has come since the one that made the entry: whoever sent that may have been a stranger.
    pub const UNPROVEN: u16 = 8;
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
    /// A flow of datagrams, in a slot in transition.
    pub const DATAGRAM: u16 = 7;
    /// What a datagram in pieces has as its state: this and its VIP's number.
    pub const PIECES: u16 = 0x8000;
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
    /// The port rules of an address, if it is a VIP's, or lies in the longest prefix that is one's.
    fn services(&self, address: &Address) -> Option<Services>;
    /// A port rule.
    fn service(&self, index: u32) -> Option<&Service>;
    /// The rule of an address for a port, by its index; the kernel searches in a function of its own.
    fn search(&self, services: Services, protocol: u8, port: u16) -> Option<u32> {
        services.search(self, protocol, port)
    }
    /// A slot of a pool's ring; `slot` is below [`RING_SLOTS`].
    fn slot(&self, pool: PoolId, slot: u32) -> Option<Slot>;
    /// A backend.
    fn backend(&self, id: BackendId) -> Option<&Backend>;

    /// Whether a flow may have an entry: no false "no", few false "yes".
    fn may_have_entry(&self, flow: FlowHash) -> bool;
    /// A flow's entry, of whatever kind.
    fn entry(&mut self, flow: FlowHash) -> Option<&mut FlowEntry>;
    /// A copy of a flow's entry, if it has one of this kind.
    fn entry_of(&mut self, kind: Exception, flow: FlowHash) -> Option<FlowEntry>;
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

    /// Whether any handshake has ever been remembered.
    fn may_be_pending(&self) -> bool {
        true
    }
    /// One is about to be.
    fn note_pending(&mut self) {}
    /// Where the handshakes of MPTCP connections are remembered.
    fn pending(&mut self, flow: FlowHash) -> Option<&mut Bucket>;
    /// Where new flows wait for their confirmation.
    fn embryonic(&mut self, flow: FlowHash) -> Option<&mut Bucket>;
    /// Where the closing of flows is noted for the controller.
    fn closing(&mut self, flow: FlowHash) -> Option<&mut Bucket>;
    /// Where flows of datagrams are remembered while their slot is in transition.
    fn datagrams(&mut self, flow: FlowHash) -> Option<&mut Bucket>;
    /// Where datagrams in pieces are remembered.
    fn fragments(&mut self, datagram: FlowHash) -> Option<&mut Bucket>;

    /// The backend that a QUIC server id names.
    fn quic_server(&self, key: &QuicKey) -> Option<BackendId>;

    /// What reads the stateless tokens of a pool.
    fn codec(&self, pool: PoolId) -> Option<&Codec>;
    /// Who has an id in a pool's stateless tokens.
    fn bearer(&self, pool: PoolId, id: TokenId) -> Bearer;
    /// Whom a token of a pool names; the kernel asks in a function of its own.
    fn named_by(&self, pool: PoolId, token: Token) -> Bearer {
        stateless::named_by(self, pool, token)
    }

    /// Tells the controller what others are to know too; what finds no room is lost, and counted.
    fn tell(&mut self, event: &Event);

    /// What the clients of a network have spent on entries.
    fn network_budget(&mut self, network: FlowHash) -> Option<&mut Budget>;
    /// What the clients of a connection, and of those that share its place, have spent on joins.
    fn join_budget(&mut self, token: Token) -> Option<&mut JoinBudget>;
    /// What this CPU has spent on ICMP errors.
    fn error_budget(&mut self) -> Option<&mut Budget>;

    /// Whether a flow goes by the name that it had under the former cluster key: [`rekey::goes_by_former`], which the
    /// kernel calls as a function of its own.
    fn goes_by_former(&mut self, names: Names, pool: PoolId, kind: Kind) -> bool {
        rekey::goes_by_former(self, names, pool, kind)
    }

    /// The token of a key: [`token::derive`], which the kernel calls as a function of its own.
    fn derive_token(version: Version, key: [u8; 8]) -> Token {
        token::derive(version, key)
    }
}
