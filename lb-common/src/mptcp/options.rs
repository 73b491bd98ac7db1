//! The walk over TCP options and what the MPTCP ones among them say (RFC 8684, 3; kind 30).
//!
//! It stops where a stock Linux kernel stops and takes the last of repeated options as it does (`tcp_parse_options`,
//! `mptcp_parse_option`), for a balancer that reads a packet otherwise than the server learns what the server denies.

use super::Version;
use crate::{ids::Token, limits::TCP_OPTIONS_BYTES, packet::Packet, wire::tcp::Tcp};

const END: u8 = 0;
const NOP: u8 = 1;
const MPTCP: u8 = 30;

const MP_CAPABLE: u8 = 0;
const MP_JOIN: u8 = 1;

/// Bytes of the shortest option that carries both keys; with fewer bytes of options a packet carries none.
pub const BOTH_KEYS_LEN: usize = 20;

/// `MP_CAPABLE`, in whatever packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capable {
    at: u8,
    len: u8,
    version: u8,
    flags: u8,
}

/// `MP_JOIN`, in whatever packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Join {
    at: u8,
    len: u8,
}

/// The MPTCP options of a packet that concern steering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The last `MP_CAPABLE`.
    pub capable: Option<Capable>,
    /// The last `MP_JOIN`.
    pub join: Option<Join>,
}

impl Options {
    /// Walks the `len` bytes of options that start at `options` to their end, or to the first that is out of form.
    #[inline(always)]
    pub fn scan<P: Packet>(packet: &P, options: usize, len: usize) -> Self {
        let mut found = Self::default();
        let mut offset = 0;
        for _ in 0..TCP_OPTIONS_BYTES {
            offset = P::below_64(offset);
            if offset >= len {
                break;
            }
            let at = options + offset;
            let Some([kind]) = packet.load(at) else { break };
            match kind {
                END => break,
                NOP => {
                    offset += 1;
                    continue;
                }
                _ => {}
            }
            let Some([option_len]) = packet.load(at + 1) else { break };
            if option_len < 2 || offset + usize::from(option_len) > len {
                break;
            }
            if kind == MPTCP && option_len > 3 {
                found.note(packet, at, offset, option_len);
            }
            offset += usize::from(option_len);
        }
        found
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below 64")]
    fn note<P: Packet>(&mut self, packet: &P, at: usize, offset: usize, len: u8) {
        let Some([subtype, flags]) = packet.load(at + 2) else { return };
        match subtype >> 4 {
            MP_CAPABLE => self.capable = Some(Capable { at: offset as u8, len, version: subtype & 0x0f, flags }),
            MP_JOIN => self.join = Some(Join { at: offset as u8, len }),
            _ => {}
        }
    }

    /// All of it in one word, as a function in the kernel returns it.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        let capable = match self.capable {
            Some(c) => u32::from_le_bytes([c.at | PRESENT, c.len, c.version, c.flags]),
            None => 0,
        };
        let join = match self.join {
            Some(j) => u16::from_le_bytes([j.at | PRESENT, j.len]),
            None => 0,
        };
        capable as u64 | (join as u64) << 32
    }

    /// The inverse of [`Self::pack`].
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let [at, len, version, flags, join_at, join_len, ..] = word.to_le_bytes();
        Self {
            capable: if at & PRESENT != 0 { Some(Capable { at: at & !PRESENT, len, version, flags }) } else { None },
            join: if join_at & PRESENT != 0 { Some(Join { at: join_at & !PRESENT, len: join_len }) } else { None },
        }
    }
}

/// An offset has six bits; this one tells that there is one.
const PRESENT: u8 = 0x80;

impl Capable {
    /// Bit B, "must be 0" (RFC 8684, 3.1): a server answers plain TCP.
    const EXTENSIBILITY: u8 = 0x40;
    /// Bit H, HMAC-SHA256 (v1) or HMAC-SHA1 (v0): the only algorithm there is.
    const HMAC: u8 = 0x01;

    /// One of four bytes, which stands somewhere; nothing where the option is another one.
    #[inline(always)]
    pub const fn of_four([kind, len, subtype, flags]: [u8; 4]) -> Option<Self> {
        if kind != MPTCP || len != 4 || subtype >> 4 != MP_CAPABLE {
            return None;
        }
        Some(Self { at: 0, len, version: subtype & 0x0f, flags })
    }

    const fn flags_are_known(self) -> bool {
        self.flags & (Self::EXTENSIBILITY | Self::HMAC) == Self::HMAC
    }

    /// Where it stands among the options, and its length.
    #[inline(always)]
    pub const fn place(self) -> (usize, usize) {
        (self.at as usize, self.len as usize)
    }

    /// The version that a server would speak to a client whose SYN carries this; none where it answers plain TCP.
    #[inline(always)]
    pub const fn offered(self) -> Option<Version> {
        match (self.version, self.len) {
            _ if !self.flags_are_known() => None,
            (0, 12) => Some(Version::V0),
            // A stock server answers a version from the future with its own.
            (1.., 4) => Some(Version::V1),
            _ => None,
        }
    }

    /// The version whose handshake this ends, where the packet is one from which a server takes both keys.
    #[inline(always)]
    pub const fn accepted(self, payload_len: usize) -> Option<Version> {
        match (self.version, self.len, payload_len) {
            _ if !self.flags_are_known() => None,
            (0, 20, _) => Some(Version::V0),
            (1, 20, 0) | (1, 22 | 24, 1..) => Some(Version::V1),
            _ => None,
        }
    }

    /// The sender's and the receiver's key, where [`Self::accepted`] said that they are there.
    #[inline(always)]
    pub fn keys<P: Packet>(self, packet: &P, tcp: &Tcp) -> Option<([u8; 8], [u8; 8])> {
        let at = P::in_headers(tcp.options) + P::below_64(usize::from(self.at));
        Some((packet.load(at + 4)?, packet.load(at + 12)?))
    }
}

impl Join {
    const SYN_LEN: u8 = 12;
    const ACK_LEN: u8 = 24;

    /// The receiver's token, which only the SYN carries.
    #[inline(always)]
    pub fn token<P: Packet>(self, packet: &P, tcp: &Tcp) -> Option<Token> {
        if self.len != Self::SYN_LEN {
            return None;
        }
        let at = P::in_headers(tcp.options) + P::below_64(usize::from(self.at));
        packet.load(at + 4).map(Token::from_wire)
    }

    /// Whether this is the third packet of a joining handshake.
    #[inline(always)]
    pub const fn confirms(self) -> bool {
        self.len == Self::ACK_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ethernet, ip::Header as _, ipv4::Ipv4};

    const CAPABLE_SYN: [u8; 4] = [30, 4, 0x01, 0x81];
    const JOIN_SYN: [u8; 12] = [30, 12, 0x11, 2, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];
    const TIMESTAMPS: [u8; 10] = [8, 10, 1, 2, 3, 4, 5, 6, 7, 8];

    fn scan(options: &[u8]) -> (Vec<u8>, Tcp, Options) {
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), 0);
        let mut bytes = Vec::new();
        etherparse::PacketBuilder::ethernet2([0; 6], [0; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(1234, 80, 77, 512)
            .options_raw(&options)
            .unwrap()
            .write(&mut bytes, &[])
            .unwrap();
        let packet = bytes.as_slice();
        let ip = Ipv4::load(&packet, ethernet::HEADER_LEN).unwrap().check(&packet).unwrap();
        let tcp = Tcp::parse(&packet, &ip).unwrap();
        let found = packet.mptcp_options(&tcp);
        (bytes, tcp, found)
    }

    fn token(options: &[u8]) -> Option<u32> {
        let (bytes, tcp, found) = scan(options);
        Some(found.join?.token(&bytes.as_slice(), &tcp)?.number())
    }

    #[test]
    fn case_66_join_first_middle_last_and_at_odd_offsets() {
        for nops in 0..4 {
            for (before, after) in [(&[][..], &TIMESTAMPS[..]), (&TIMESTAMPS, &[]), (&[2, 4, 5, 0xb4], &TIMESTAMPS)] {
                let options = [&vec![1; nops][..], before, &JOIN_SYN, after].concat();
                assert_eq!(token(&options), Some(0xdead_beef), "{nops} NOPs before {before:?}");
            }
        }
        assert_eq!(token(&[&[1; 28][..], &JOIN_SYN].concat()), Some(0xdead_beef));
    }

    #[test]
    fn case_62_and_64_an_option_out_of_form_ends_the_walk() {
        for bad in &[&[30, 0][..], &[30, 1], &[254, 0], &[254, 1], &[254, 39], &[30, 255]] {
            assert_eq!(scan(&[*bad, &JOIN_SYN[..]].concat()).2, Options::default(), "{bad:?}");
        }
        assert_eq!(scan(&[1, 1, 1, 30]).2, Options::default());
    }

    #[test]
    fn case_65_end_of_options_hides_what_follows() {
        assert_eq!(scan(&[&[0][..], &JOIN_SYN].concat()).2, Options::default());
    }

    #[test]
    fn case_67_every_mptcp_option_is_visited() {
        let dss = [30, 8, 0x20, 0x01, 0, 0, 0, 1];
        let (_, _, found) = scan(&[&dss[..], &CAPABLE_SYN].concat());
        assert_eq!(found.capable.and_then(Capable::offered), Some(Version::V1));
        let both = scan(&[&CAPABLE_SYN[..], &JOIN_SYN].concat()).2;
        assert!(both.capable.is_some() && both.join.is_some());
    }

    #[test]
    fn case_71_and_72_unknown_kinds_and_subtypes_are_skipped() {
        for unknown in &[&[34, 2][..], &[253, 4, 0, 0], &[29, 4, 0, 0], &[30, 4, 0x90, 0], &[30, 3, 0xf0], &[30, 2]] {
            assert_eq!(token(&[*unknown, &JOIN_SYN[..]].concat()), Some(0xdead_beef), "{unknown:?}");
        }
        let md5 = [&[19, 18][..], &[7; 16]].concat();
        assert_eq!(token(&[&md5[..], &JOIN_SYN[..]].concat()), Some(0xdead_beef));
    }

    #[test]
    fn offered_by_a_syn() {
        for (option, offered) in [
            (vec![30, 4, 0x01, 0x01], Some(Version::V1)),
            (vec![30, 4, 0x01, 0xa1], Some(Version::V1)),
            (vec![30, 4, 0x02, 0x01], Some(Version::V1)),
            ([&[30, 12, 0x00, 0x81][..], &[9; 8]].concat(), Some(Version::V0)),
            ([&[30, 12, 0x01, 0x81][..], &[9; 8]].concat(), None),
            (vec![30, 4, 0x00, 0x01], None),
            (vec![30, 4, 0x01, 0x41], None),
            (vec![30, 4, 0x01, 0x80], None),
        ] {
            let found = scan(&option).2.capable.unwrap();
            assert_eq!(found.offered(), offered, "{option:x?}");
        }
    }

    #[test]
    fn accepted_from_an_ack() {
        let capable = |version, len, flags| Capable { at: 0, len, version, flags };
        for (capable, payload_len, accepted) in [
            (capable(1, 20, 1), 0, Some(Version::V1)),
            (capable(1, 20, 1), 1, None),
            (capable(1, 22, 1), 1, Some(Version::V1)),
            (capable(1, 24, 0x81), 1, Some(Version::V1)),
            (capable(1, 22, 1), 0, None),
            (capable(1, 12, 1), 0, None),
            (capable(2, 20, 1), 0, None),
            (capable(0, 20, 1), 0, Some(Version::V0)),
            (capable(1, 20, 0), 0, None),
            (capable(1, 20, 0x41), 0, None),
        ] {
            assert_eq!(capable.accepted(payload_len), accepted, "{capable:?} with {payload_len} bytes");
        }
    }

    #[test]
    fn keys() {
        let option: Vec<u8> = [&[30, 20, 0x01, 0x81][..], &[1; 8], &[2; 8]].concat();
        let (bytes, tcp, found) = scan(&[&[1, 1][..], &TIMESTAMPS, &option].concat());
        assert_eq!(found.capable.unwrap().keys(&bytes.as_slice(), &tcp), Some(([1; 8], [2; 8])));
    }

    #[test]
    fn only_the_syn_of_a_join_has_a_token() {
        let ack = [&[30, 24, 0x10, 0][..], &[0xaa; 20]].concat();
        assert_eq!(token(&ack), None);
        assert!(scan(&ack).2.join.unwrap().confirms());
        assert!(!scan(&JOIN_SYN).2.join.unwrap().confirms());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked(options in proptest::collection::vec(proptest::num::u8::ANY, 0..=40)) {
            let (_, tcp, found) = scan(&options);
            proptest::prop_assert_eq!(Options::unpack(found.pack()), found);
            for (at, len) in [found.capable.map(|c| (c.at, c.len)), found.join.map(|j| (j.at, j.len))].into_iter().flatten() {
                proptest::prop_assert!(usize::from(at) + usize::from(len) <= tcp.options_len);
            }
        }
    }
}
