//! The SYN/ACK, as the kernel would write it as a cookie (`tcp_make_synack` and `cookie_init_timestamp` of Linux).

use super::{Key, Listener, Offer};
use crate::wire::{checksum, ipv4, ipv6, tcp};

/// Bytes of the answer's TCP header: whatever is asked for, its options take 32.
pub const ANSWER_LEN: usize = 52;
const OPTIONS_LEN: usize = ANSWER_LEN - tcp::HEADER_LEN;

const NOP: u8 = 1;
const SYN_ACK: u8 = 0x12;
const ECE: u8 = 0x40;
const CWR: u8 = 0x80;
/// SYN, and those that say nothing against a plain one: ECE and CWR ask for congestion notification.
const FLAGS_OF_SYN: u8 = 0x3f;
const SYN: u8 = 0x02;
const TTL: u8 = 64;
/// The bits of a traffic class that say whether its packet may be marked.
const CONGESTION: u8 = 0x03;

/// The low bits of a cookie's timestamp that are not time.
const TIMESTAMP_BITS: u32 = 6;
const TIMESTAMP_SACK: u32 = 1 << 4;
const TIMESTAMP_ECN: u32 = 1 << 5;

/// A SYN that can be answered with a cookie.
#[derive(Clone, Copy, Debug)]
pub struct Syn {
    header: [u8; tcp::HEADER_LEN],
    offer: Offer,
    timestamp: [u8; 4],
    asks_for_ecn: bool,
}

impl Syn {
    /// Whether the flags are those of an ordinary SYN.
    #[inline(always)]
    pub const fn is(header: &[u8; tcp::HEADER_LEN]) -> bool {
        header[13] & FLAGS_OF_SYN == SYN
    }

    /// One with this TCP header, traffic class, offer and timestamp.
    #[inline(always)]
    pub const fn new(header: [u8; tcp::HEADER_LEN], traffic_class: u8, offer: Offer, timestamp: [u8; 4]) -> Self {
        let asks_for_ecn = header[13] & (ECE | CWR) == ECE | CWR && traffic_class & CONGESTION == 0;
        Self { header, offer, timestamp, asks_for_ecn }
    }

    /// The TCP header of the answer. Its checksum is still the SYN's: the kernel alone knows whether that is whole.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds wrap")]
    pub fn answer(&self, listener: &Listener, cookie: u32, now_ns: u64, key: Key) -> [u8; ANSWER_LEN] {
        let h = &self.header;
        let says_ecn = self.asks_for_ecn && listener.has(Listener::ECN);
        let millis = (now_ns / 1_000_000) as u32;
        let sequence = u32::from_be_bytes([h[4], h[5], h[6], h[7]]).wrapping_add(1).to_be_bytes();
        let [c0, c1, c2, c3] = cookie.to_be_bytes();
        let [w0, w1] = listener.window.to_be_bytes();
        let flags = if says_ecn { SYN_ACK | ECE } else { SYN_ACK };
        let header = [
            h[2],
            h[3],
            h[0],
            h[1],
            c0,
            c1,
            c2,
            c3,
            sequence[0],
            sequence[1],
            sequence[2],
            sequence[3],
            ((ANSWER_LEN / 4) as u8) << 4,
            flags,
            w0,
            w1,
            h[16],
            h[17],
            0,
            0,
        ];
        let mut answer = [0; ANSWER_LEN];
        copy(&mut answer, 0, &header);
        copy(&mut answer, tcp::HEADER_LEN, &self.options(listener, self.timestamp(millis, says_ecn, listener), key));
        answer
    }

    /// What time it is, with what the kernel will want to know when the cookie comes back.
    #[inline(always)]
    fn timestamp(&self, millis: u32, says_ecn: bool, listener: &Listener) -> [u8; 4] {
        let mut bits = u32::from(self.wscale_bits(listener));
        if self.says_sack(listener) {
            bits |= TIMESTAMP_SACK;
        }
        if says_ecn {
            bits |= TIMESTAMP_ECN;
        }
        let time = millis >> TIMESTAMP_BITS << TIMESTAMP_BITS | bits;
        // It must not be ahead of the time.
        let time = if time > millis { time.wrapping_sub(1 << TIMESTAMP_BITS) } else { time };
        time.to_be_bytes()
    }

    #[inline(always)]
    fn options(&self, listener: &Listener, [t0, t1, t2, t3]: [u8; 4], key: Key) -> [u8; OPTIONS_LEN] {
        let [m0, m1] = listener.mss.to_be_bytes();
        let [s0, s1] = if self.says_sack(listener) { [4, 2] } else { [NOP; 2] };
        let [w0, w1, w2] = if self.says_wscale(listener) { [3, 3, listener.wscale] } else { [NOP; 3] };
        let [e0, e1, e2, e3] = self.timestamp;
        let [k0, k1, k2, k3, k4, k5, k6, k7] = key;
        [
            2,
            4,
            m0,
            m1,
            s0,
            s1,
            8,
            10,
            t0,
            t1,
            t2,
            t3,
            e0,
            e1,
            e2,
            e3,
            NOP,
            w0,
            w1,
            w2,
            30,
            12,
            0x01,
            Self::mptcp_flags(listener),
            k0,
            k1,
            k2,
            k3,
            k4,
            k5,
            k6,
            k7,
        ]
    }

    /// HMAC-SHA256, and what the host asks for (RFC 8684, 3.1).
    #[inline(always)]
    const fn mptcp_flags(listener: &Listener) -> u8 {
        const A: u8 = 0x80;
        const C: u8 = 0x20;
        const H: u8 = 0x01;
        let checksum = if listener.has(Listener::CHECKSUM) { A } else { 0 };
        H | checksum | if listener.has(Listener::NO_JOIN_HERE) { C } else { 0 }
    }

    #[inline(always)]
    const fn says_sack(&self, listener: &Listener) -> bool {
        self.offer.permits_sack() && listener.has(Listener::SACK)
    }

    #[inline(always)]
    const fn says_wscale(&self, listener: &Listener) -> bool {
        self.offer.scales() && listener.has(Listener::WSCALE)
    }

    #[inline(always)]
    const fn wscale_bits(&self, listener: &Listener) -> u8 {
        if self.says_wscale(listener) { self.offer.wscale_bits() } else { 0x0f }
    }

    /// The IPv4 header of the answer to a SYN with this one.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below 256")]
    pub fn ipv4(h: &[u8; ipv4::HEADER_LEN]) -> [u8; ipv4::HEADER_LEN] {
        const LEN: u8 = (ipv4::HEADER_LEN + ANSWER_LEN) as u8;
        const DONT_FRAGMENT: u8 = 0x40;
        let mut header = [
            0x45,
            0,
            0,
            LEN,
            0,
            0,
            DONT_FRAGMENT,
            0,
            TTL,
            h[9],
            0,
            0,
            h[16],
            h[17],
            h[18],
            h[19],
            h[12],
            h[13],
            h[14],
            h[15],
        ];
        [header[10], header[11]] = checksum::finish(checksum::sum::<10>(&header, 0));
        header
    }

    /// Makes the IPv6 header of a SYN that of its answer. In place: the kernel's stack holds no 40 bytes that begin anywhere.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below 256")]
    pub fn turn_ipv6(h: &mut [u8; ipv6::HEADER_LEN]) {
        (h[0], h[1], h[2], h[3], h[4], h[5], h[7]) = (0x60, 0, 0, 0, 0, ANSWER_LEN as u8, TTL);
        let mut i = 0;
        while i < 16 {
            (h[8 + i], h[24 + i]) = (h[24 + i], h[8 + i]);
            i += 1;
        }
    }
}

#[inline(always)]
fn copy<const N: usize>(to: &mut [u8; ANSWER_LEN], at: usize, from: &[u8; N]) {
    let mut i = 0;
    while i < N {
        to[at + i] = from[i];
        i += 1;
    }
}
