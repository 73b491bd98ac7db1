//! Every limit of Weir, by name, with its reason. The controller checks a configuration against them and shows them to
//! the operator; the kernel side sizes its maps by them.

/// A limit that the operator may move between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The smallest value that still works.
    pub min: u32,
    /// What an unconfigured balancer gets.
    pub default: u32,
    /// The largest value whose memory is still sane.
    pub max: u32,
}

/// A limit as it is told of.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub bound: Bound,
    /// What it limits, and why so.
    pub why: &'static str,
}

/// What a limit is.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// What the operator may choose.
    Range(Limit),
    /// What nobody may.
    Fixed(u64),
}

macro_rules! bound {
    (Limit, $name:ident) => {
        Bound::Range($name)
    };
    ($fixed:ident, $name:ident) => {
        Bound::Fixed($name as u64)
    };
}

macro_rules! limits {
    ($($(#[doc = $doc:literal])+ pub const $name:ident: $type:ident = $value:expr;)+) => {
        $($(#[doc = $doc])+ pub const $name: $type = $value;)+

        /// All of them, in the order of this file.
        pub const ALL: &[Named] = &[
            $(Named { name: stringify!($name), bound: bound!($type, $name), why: concat!($($doc),+) },)+
        ];
    };
}

limits! {
    /// VIPs of a balancer. Counters are kept per VIP and reason: 1,024 cost about 1 MiB a CPU.
    pub const VIPS_MAX: u32 = 1024;

    /// Pools of a balancer. Each has two words of 16 bits for a slot, allocated at load: 64 cost 16 MiB.
    pub const POOLS_MAX: u32 = 64;

    /// Port ranges of a VIP's address whose SYNs an agent looks at. The program compares each with every one of them.
    pub const CLAMP_RANGES_MAX: usize = 8;

    /// Addresses and ports of a backend's VIPs whose listeners an agent mints for. It looks at each of them twenty times a second.
    pub const LISTENERS_MAX: u32 = 1024;

    /// Keys that were given out and have not come back, on a backend: two and a half minutes of 1,700 handshakes a second that
    /// are never completed. More are plain TCP.
    pub const MINTED_OUT_MAX: u32 = 1 << 18;

    /// Keys that a backend has ready to give out. With 12 bits of id one CPU finds about 1,000 in a second, with 8 bits 16
    /// times as many; what is ready carries a burst. Each takes 8 bytes.
    pub const MINT_KEYS: Limit = Limit { min: 64, default: 8192, max: 1 << 20 };

    /// Bytes of events about MPTCP connections that the kernel keeps while an agent is busy. It charges about 1 KiB for one, two
    /// for each connection: 4 MiB are a burst of 2,000. What does not fit is lost, and heals by a look at all sockets.
    pub const EVENT_BUFFER_BYTES: Limit = Limit { min: 2048, default: 4 << 20, max: 256 << 20 };

    /// Backends of all pools together. A ring slot has 13 bits for each of its two owners; 4,096 is what the largest known
    /// deployments of a single balancer use.
    pub const BACKENDS_MAX: u32 = 4096;

    /// Addresses that are looked up exactly: those of VIPs, and those of backends for joins. Each takes 256 bytes.
    pub const ADDRESSES_MAX: u32 = 4096;

    /// Endpoints that a backend's kernel tells its clients of (`MPTCP_PM_ADDR_MAX` in Linux's `net/mptcp/protocol.h`).
    pub const ENDPOINTS_MAX: usize = 8;

    /// Port rules of one address, the join ports of backends among them. The lookup is a binary search of this many steps at
    /// most: `log2(1024) + 1`, where the middle one does not fit.
    pub const SERVICES_PER_ADDRESS_MAX: u32 = 1024;

    /// Port rules of all addresses together, those of join endpoints among them: 4,096 backends with two each, and 1,024 VIPs.
    pub const SERVICES_OF_CONFIG_MAX: u32 = 16_384;

    /// Port rules in the table: those of a configuration, and those of the ones before it that packets may still be reading.
    pub const SERVICES_MAX: u32 = 4 * SERVICES_OF_CONFIG_MAX;

    /// Bits of the filter in front of the flows that have an entry, per flow that their tables hold. Three of them are set for
    /// a flow: with 8, one packet in 28 of the flows without an entry looks in vain when the tables are full.
    pub const FILTER_BITS_PER_FLOW: u32 = 8;

    /// Words of that filter at least, if the tables have so many flows: 128 KiB, which stay in a CPU's own cache, are enough
    /// for 131,072 flows until the controller has had time to turn to a larger one.
    pub const FILTER_WORDS_MIN: u32 = 1 << 14;

    /// Learned tokens. An entry takes about 100 bytes of kernel memory, allocated at load.
    pub const TOKENS: Limit = Limit { min: 1024, default: 1 << 20, max: 1 << 24 };

    /// Backends whose tokens can be told apart by a pool's stateless tokens. Each bit of the id doubles the work of who searches
    /// for keys, and halves the tokens that a backend has: with 12 it has 262,144 in an epoch.
    pub const TOKEN_BACKENDS: Limit = Limit { min: 1, default: 256, max: BACKENDS_MAX };

    /// Stateless tokens that a backend has for each connection that it is expected to have open. A token that is in use cannot
    /// be given again; with a hundred for each, the search for a free one hardly ever finds another's.
    pub const TOKENS_PER_CONNECTION: u32 = 100;

    /// Stateless tokens that a backend has for each key that it has ready. With fewer who searches would find tokens that are
    /// taken, and search for ever where there are not as many as are wanted.
    pub const TOKENS_PER_KEY: u32 = 4;

    /// Open connections that a backend with stateless tokens is expected to have: about as many as 256 backends leave room for.
    pub const TOKEN_CONNECTIONS: Limit = Limit { min: 1, default: 40_000, max: 5_000_000 };

    /// Epochs of stateless tokens that are read at once, of the four that a token can name. With one always free, the number of
    /// a secret that has gone does not come again before another rotation.
    pub const TOKEN_EPOCHS_LIVE_MAX: usize = 3;

    /// Ids of stateless tokens that are remembered, of all pools and live epochs together, so that none is given again: those of
    /// 4,096 backends in three epochs, and a third as many of backends that have gone.
    pub const TOKEN_IDS_KNOWN_MAX: usize = 16_384;

    /// Joined subflows that the ring does not answer. An entry takes about 80 bytes of kernel memory, allocated at load.
    pub const JOINED_FLOWS: Limit = Limit { min: 1024, default: 1 << 18, max: 1 << 24 };

    /// Bytes of the ring buffer by which the data path tells the controller what other balancers are to know: 32,768 events. In a
    /// millisecond, which is how often the controller looks, a CPU learns a few thousand tokens at most.
    pub const EVENTS_BYTES: u32 = 1 << 20;

    /// Flows that began in a slot in transition. At 1,000 backends one more takes a thousandth of the slots; a whole pool
    /// that is replaced needs an entry for every connection that begins within the transition time.
    pub const MOVED_FLOWS: Limit = Limit { min: 1024, default: 1 << 18, max: 1 << 24 };

    /// Flows that outlive the transition of their slot. While the table is full, transitions are extended.
    pub const PINNED_FLOWS: Limit = Limit { min: 1024, default: 1 << 17, max: 1 << 24 };

    /// Seconds for which a slot whose owner changed remembers the one before. By default 2 h 15 min, above the usual TCP
    /// keepalive of two hours, so that every live connection shows itself within a window.
    pub const TRANSITION_S: Limit = Limit { min: 1, default: 8100, max: 604_800 };

    /// Seconds after a change in which a datagram of an unknown flow goes where it went before. A minute by default: nearly
    /// every flow in use shows itself, and new ones soon go to the backend that is to have them.
    pub const UDP_TRANSITION_S: Limit = Limit { min: 0, default: 60, max: 604_800 };

    /// Seconds for which a drained backend keeps its connections. An hour by default: longer than nearly all of them last, and
    /// short enough to be waited for.
    pub const DRAIN_TIMEOUT_S: Limit = Limit { min: 1, default: 3600, max: 604_800 };

    /// Seconds in which a backend that comes gets its whole share; 0 is at once. Each step opens windows that last the
    /// transition time, so that more than a day helps no cache.
    pub const SLOW_START_S: Limit = Limit { min: 0, default: 0, max: 86_400 };

    /// Steps of a slow start. The first gives a tenth of the share; each costs a ring build and the slots that it moves.
    pub const SLOW_START_STEPS: u32 = 10;

    /// Milliseconds from the start of a health check to that of the next. Two seconds by default: with three failures to fall a
    /// dead backend is out after about five, and 4,096 backends cost 2,048 short connections a second.
    pub const HEALTH_INTERVAL_MS: Limit = Limit { min: 100, default: 2000, max: 3_600_000 };

    /// Milliseconds that a health check may take. A second by default: an answer that comes later is not one that clients wait
    /// for.
    pub const HEALTH_TIMEOUT_MS: Limit = Limit { min: 10, default: 1000, max: 60_000 };

    /// By how many percent of its length an interval is longer or shorter, at random, so that checks do not come in bursts.
    pub const HEALTH_JITTER_PERCENT: Limit = Limit { min: 0, default: 10, max: 50 };

    /// Good health checks in a row after which a backend that is down by its health comes back.
    pub const HEALTH_RISE: Limit = Limit { min: 1, default: 2, max: 100 };

    /// Failed health checks in a row after which a backend is down.
    pub const HEALTH_FALL: Limit = Limit { min: 1, default: 3, max: 100 };

    /// Health checks under way at once; further ones wait for their turn. Each is a socket and a timer: with 256 that all time
    /// out after a second, 4,096 dead backends are asked once in 16 s, and a live farm never waits.
    pub const HEALTH_CHECKS_AT_ONCE: usize = 256;

    /// Bytes of an HTTP answer's body that are looked through.
    pub const HEALTH_BODY_BYTES: usize = 65_536;

    /// The bits that the marks of health checks' packets share, above the 13 that name the backend: "WE". Kubernetes, Tailscale
    /// and firewalls mostly use lower bits.
    pub const PROBE_MARK: u32 = 0x5745_0000;

    /// MPTCP handshakes between the SYN and the third ACK, 16 bytes each. A flood of `r` SYNs a second overwrites one that
    /// lasts `t` seconds only when four land in its bucket: with 262,144 that takes about `r * t = 100,000` for one percent.
    pub const PENDING_HANDSHAKES: Limit = Limit { min: 1024, default: 1 << 18, max: 1 << 24 };

    /// Joins between the SYN and the ACK that confirms them, 16 bytes each; overwritten like the pending handshakes.
    pub const EMBRYONIC_FLOWS: Limit = Limit { min: 1024, default: 1 << 16, max: 1 << 22 };

    /// Flows of datagrams in slots in transition, 16 bytes each; one that is overwritten goes where its slot says.
    pub const DATAGRAM_FLOWS: Limit = Limit { min: 1024, default: 1 << 18, max: 1 << 24 };

    /// Datagrams in pieces, 16 bytes each. Pieces come within milliseconds of each other: 16,384 are a second's worth of
    /// 130 Mbit/s, all of it in pieces.
    pub const FRAGMENTED_DATAGRAMS: Limit = Limit { min: 1024, default: 1 << 14, max: 1 << 20 };

    /// Entries (learned tokens, moved flows) that the clients of one /24 or /48 may have made in 1.07 s. A busy carrier's
    /// network address translation opens a few hundred connections a second to one farm.
    pub const ENTRIES_PER_NETWORK: Limit = Limit { min: 1, default: 4096, max: 1 << 24 };

    /// Networks whose entries are counted apart, 8 bytes each; those that share a place share its budget.
    pub const NETWORKS: u32 = 1 << 16;

    /// Joins of one connection that are let through to its backend in 1.07 s: all eight that Linux makes, each sent twice. Who
    /// knows a token can send joins from any address, and each takes a place in its backend's queue of handshakes for a minute.
    pub const JOINS_PER_TOKEN: Limit = Limit { min: 1, default: 16, max: 255 };

    /// Places where the joins of tokens are counted, 2 bytes each; tokens that share a place share its budget. 128 KiB stay near
    /// the CPU, and one token that is used up takes one in 65,536 others with it.
    pub const JOIN_BUDGETS: u32 = 1 << 16;

    /// ICMP errors that a CPU sends in 1.07 s. A client needs one for each path; Linux sends 1,000 a second by default
    /// (`icmp_msgs_per_sec`).
    pub const ICMP_ERRORS_PER_CPU: Limit = Limit { min: 0, default: 1000, max: 1_000_000 };

    /// VIPs that are prefixes. A lookup that no exact address answers walks at most 128 bits of a trie.
    pub const PREFIXES_MAX: u32 = 256;

    /// Ids of QUIC servers, of all pools together.
    pub const QUIC_SERVERS_MAX: u32 = 2 * BACKENDS_MAX;

    /// How long a silent flow of datagrams is remembered while its slot is in transition, in ticks: 120 s, after which an
    /// address translator may have forgotten it too (RFC 4787, 4.3).
    pub const DATAGRAM_IDLE_TICKS: u32 = 112;

    /// How long after its last packet a flow with an entry counts as alive, in ticks: 30 s. Until then nobody's SYN and ACK,
    /// spoofed or not, end its entry, unless it has closed. Who reuses a port sooner after a connection that ended without a
    /// word has to be told by its server first.
    pub const LIVE_FLOW_TICKS: u32 = 28;

    /// FIN and RST signs that the controller has not read yet, 16 bytes each. One that is overwritten costs nothing but
    /// the time until its token's age ends it.
    pub const CLOSING_SIGNS: u32 = 1 << 16;

    /// 802.1Q and 802.1ad tags before the IP header: one, or two with QinQ.
    pub const VLAN_TAGS_MAX: usize = 2;

    /// IPv6 extension headers walked before the transport header. RFC 8200 names six, each at most once but one.
    pub const IPV6_EXTENSIONS_MAX: usize = 6;

    /// Bytes of TCP options: the data offset has four bits of 32-bit words, five of which are the header (RFC 9293, 3.1).
    pub const TCP_OPTIONS_BYTES: usize = 40;

    /// How far after the client's initial sequence number an MPTCP option with both keys still belongs to the handshake:
    /// the unscaled window, within which the data before the server's first answer lies (TFO data, the first write).
    pub const HANDSHAKE_WINDOW_BYTES: u32 = 65_535;

    /// Bytes of what the controller writes down for the one after it, see `lb-user/src/service/ledger.rs`. 4,096 backends with the
    /// longest names and ids take about three quarters of it; it is kept twice.
    pub const LEDGER_BYTES_MAX: u32 = 4 << 20;

    /// Balancers that a backend takes tunnels from.
    pub const BALANCERS_MAX: u32 = 256;

    /// Lines that a CPU may write in a tick for `weir trace`: what a person can still look through. All at once they may be too
    /// many for the ring buffer of 128 KiB; what that loses is counted.
    pub const TRACE_LINES_PER_CPU: u32 = 1000;

    /// How long one trace may last: whoever has forgotten it does not pay for it all night.
    pub const TRACE_SECONDS_MAX: u64 = 600;
}
