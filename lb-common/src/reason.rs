//! Why a packet went where it went. Every packet has exactly one reason; its index is the counter's slot, its word the
//! Prometheus label and what `weir explain` prints.

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// To the host's own network stack, untouched.
    Pass,
    /// To a backend.
    Forward,
    /// Back to the client, as an answer.
    Reply,
    /// Nowhere.
    Drop,
}

macro_rules! reasons {
    ($($action:ident { $($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+ })+) => {
        /// Why a packet went where it went.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($($(#[doc = $doc])+ $name,)+)+
        }

        impl Reason {
            /// All of them, in the order of their indices.
            pub const ALL: &[Self] = &[$($(Self::$name,)+)+];

            /// The reason of an index.
            #[inline(always)]
            #[expect(non_upper_case_globals, reason = "patterns by the variants' names: LLVM makes one comparison of them")]
            pub const fn from_index(index: u32) -> Option<Self> {
                $($(const $name: u32 = Reason::$name as u32;)+)+
                match index {
                    $($($name => Some(Self::$name),)+)+
                    _ => None,
                }
            }

            /// The word for this reason in metrics and on screens.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($(Self::$name => $word,)+)+
                }
            }

            /// What this reason does to a packet.
            #[inline(always)]
            pub const fn action(self) -> Action {
                match self {
                    $($(Self::$name)|+ => Action::$action,)+
                }
            }

            /// One sentence for the reference and for `weir explain`.
            pub const fn explanation(self) -> &'static str {
                match self {
                    $($(Self::$name => concat!($($doc),+),)+)+
                }
            }
        }
    };
}

reasons! {
    Pass {
        /// Neither IPv4 nor IPv6.
        NotIp = "not_ip",
        /// The frame ends before its addresses do.
        Truncated = "truncated",
        /// The destination is no VIP's address.
        NotVip = "not_vip",
        /// The destination is a VIP's address, but no VIP has this protocol and port.
        NoService = "no_service",
        /// ICMP for a VIP that is neither an echo request nor an error about a flow: neighbour discovery, for example.
        IcmpOther = "icmp_other",
    }
    Forward {
        /// The ring chose the backend of a new connection.
        RingNew = "ring_new",
        /// The ring names the backend of an open connection.
        Ring = "ring",
        /// A third packet taught the token of its connection.
        Learned = "learned",
        /// A third packet whose handshake has already taught its token.
        LearnRepeated = "learn_repeated",
        /// A third packet whose handshake this balancer did not see begin: nothing learned.
        LearnUnseen = "learn_unseen",
        /// A third packet whose token another backend holds: the token is ambiguous until one of the connections ends.
        LearnAmbiguous = "learn_ambiguous",
        /// A third packet that found the token table full: joins of this connection will be unknown.
        LearnFull = "learn_full",
        /// A joining SYN whose token is known.
        JoinToken = "join_token",
        /// A joining SYN whose token itself names the backend.
        JoinStateless = "join_stateless",
        /// A joining SYN to a backend's own port or address for joins.
        JoinEndpoint = "join_endpoint",
        /// Any other packet to a backend's own port or address for joins.
        Endpoint = "endpoint",
        /// A joining SYN whose token is unknown, sent by the ring as the pool's policy says.
        JoinUnknownHashed = "join_unknown_hashed",
        /// The ACK that confirms a join: the subflow has an entry now.
        Joined = "joined",
        /// An entry of the flow names its backend.
        Flow = "flow",
        /// A third packet whose network has had its share of entries made in this second: nothing learned.
        LearnOverBudget = "learn_over_budget",
        /// The connection id of a QUIC packet names its server.
        QuicServer = "quic_server",
        /// A flow of datagrams that stays with its backend while its slot is in transition.
        Datagram = "datagram",
        /// An ICMP error about a flow, to that flow's backend.
        IcmpError = "icmp_error",
        /// A later piece of a datagram, to the backend of the first.
        FragmentLater = "fragment_later",
        /// The slot is in transition: a flow without an entry is its previous owner's.
        RingPrevious = "ring_previous",
        /// The first ACK of a connection that began in a slot in transition: it has an entry now.
        Moved = "moved",
        /// A connection that outlives the transition of its slot: it has an entry now.
        Pinned = "pinned",
        /// The same, but a table of flows is full: the transition will be extended. While the cluster key is changed, also a
        /// flow whose entry finds no room under the new key.
        PinnedFull = "pinned_full",
    }
    Reply {
        /// A joining SYN whose token is unknown, answered by a reset as the pool's policy says.
        JoinUnknownReset = "join_unknown_reset",
        /// An ICMP echo request for a VIP, answered.
        EchoAnswered = "echo_answered",
        /// Too long for the path to the backend, tunnel included: the client is told how long it may be.
        TooBig = "too_big",
    }
    Drop {
        /// The IP header contradicts itself or the frame.
        MalformedIp = "malformed_ip",
        /// The TCP header contradicts itself or the IP header.
        MalformedTcp = "malformed_tcp",
        /// More IPv6 extension headers than Weir walks.
        ExtensionsTooDeep = "extensions_too_deep",
        /// The UDP header contradicts itself or the IP header.
        MalformedUdp = "malformed_udp",
        /// The ICMP message is cut short.
        MalformedIcmp = "malformed_icmp",
        /// An ICMP error about a packet that no VIP can have sent.
        IcmpUnrelated = "icmp_unrelated",
        /// A fragment of a TCP segment, which the pool does not take.
        TcpFragment = "tcp_fragment",
        /// A later fragment whose first was not seen, or is forgotten.
        FragmentUnknown = "fragment_unknown",
        /// The pool has no backend that takes new connections.
        NoBackend = "no_backend",
        /// The backend that the packet belongs to is dead, removed, or cannot be reached.
        BackendGone = "backend_gone",
        /// A joining SYN whose token is unknown. The client sends it again.
        JoinUnknown = "join_unknown",
        /// A joining SYN whose token two connections on two backends share.
        JoinAmbiguous = "join_ambiguous",
        /// A joining SYN whose connection has had its share of joins in this second. The client sends it again.
        JoinOverBudget = "join_over_budget",
        /// A joining SYN whose token names a backend that is dead, removed, or cannot be reached. The client sends it again.
        JoinStatelessGone = "join_stateless_gone",
        /// The first ACK of a connection in a slot in transition that found the table of moved flows full.
        MovedFull = "moved_full",
        /// The same, from a network that has had its share of entries made in this second.
        MovedOverBudget = "moved_over_budget",
        /// A confirmed join that found the table of joined flows full.
        JoinedFull = "joined_full",
        /// Too long for the path to the backend, and this second's ICMP errors are spent.
        TooBigQuiet = "too_big_quiet",
        /// An answer was due, but the driver left no room to write it.
        NoRoomForAnswer = "no_room_for_answer",
        /// An uncommon packet, but the program for those is not loaded: a mistake of Weir's.
        NoProgram = "no_program",
        /// The driver left no room in front of the packet for the tunnel's header, or none to write at all.
        NoHeadroom = "no_headroom",
    }
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// The counter's slot.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn an_index_is_the_place_in_the_list() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index() as usize, index);
        }
    }

    #[test]
    fn words_are_unique_and_fit_for_labels() {
        let words: HashSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), Reason::COUNT);
        assert!(words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }
}
