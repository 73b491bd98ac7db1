//! What the options of a SYN ask for, and whether a cookie can carry all of it.

use crate::{
    limits::TCP_OPTIONS_BYTES,
    mptcp::{Capable, Version},
    packet::Packet,
};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const WSCALE: u8 = 3;
const SACK_PERMITTED: u8 = 4;
const TIMESTAMPS: u8 = 8;
const MPTCP: u8 = 30;

/// The largest shift of windows (RFC 7323, 2.3); Linux takes a larger one for this.
const WSCALE_MAX: u8 = 14;
/// What stands for none in a cookie's timestamp.
const NO_WSCALE: u8 = 0x0f;

/// What a SYN asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where the client's timestamp stands among the options; 0 for none.
    timestamp_at: u8,
    /// The shift of the client's windows, or [`NO_WSCALE`].
    wscale: u8,
    bits: u8,
}

impl Offer {
    const SACK: u8 = 1;
    const MPTCP: u8 = 2;
    const BEYOND: u8 = 4;

    /// Walks the `len` bytes of options that start at `options`, as far as the kernel would.
    #[inline(always)]
    pub fn scan<P: Packet>(packet: &P, options: usize, len: usize) -> Self {
        let mut offer = Self { timestamp_at: 0, wscale: NO_WSCALE, bits: 0 };
        let (mut offset, mut len) = (0, len);
        for _ in 0..TCP_OPTIONS_BYTES {
            (offset, len) = (P::below_64(offset), P::below_64(len));
            if offset >= len {
                break;
            }
            let Some([kind]) = packet.load(options + offset) else { return offer.beyond() };
            match kind {
                END => break,
                NOP => {
                    offset += 1;
                    continue;
                }
                _ => {}
            }
            let Some([option_len]) = packet.load(options + offset + 1) else { return offer.beyond() };
            if option_len < 2 || offset + usize::from(option_len) > len {
                return offer.beyond();
            }
            offer.note(packet, options, offset, [kind, option_len]);
            offset += usize::from(option_len);
        }
        offer
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "below 64")]
    fn note<P: Packet>(&mut self, packet: &P, options: usize, offset: usize, kind_and_len: [u8; 2]) {
        match kind_and_len {
            // The kernel reads it itself.
            [MSS, 4] => {}
            [WSCALE, 3] => match packet.load(options + offset + 2) {
                Some([shift]) => self.wscale = if shift > WSCALE_MAX { WSCALE_MAX } else { shift },
                None => self.bits |= Self::BEYOND,
            },
            [SACK_PERMITTED, 2] => self.bits |= Self::SACK,
            [TIMESTAMPS, 10] => self.timestamp_at = offset as u8 + 2,
            [MPTCP, 4] if self.bits & Self::MPTCP == 0 => {
                let capable = packet.load(options + offset).and_then(Capable::of_four);
                let is_offer = capable.is_some_and(|capable| capable.offered() == Some(Version::V1));
                self.bits |= if is_offer { Self::MPTCP } else { Self::BEYOND };
            }
            // Joins, version 0, fast open, MD5, and what nobody knows yet.
            _ => self.bits |= Self::BEYOND,
        }
    }

    const fn beyond(mut self) -> Self {
        self.bits |= Self::BEYOND;
        self
    }

    /// Whether the client would speak MPTCP, in the version that stock servers speak.
    #[inline(always)]
    pub const fn is_mptcp(self) -> bool {
        self.bits & Self::MPTCP != 0
    }

    /// Whether a cookie can carry it all: window scale and the like travel in the timestamp.
    #[inline(always)]
    pub const fn is_carried(self) -> bool {
        self.bits & Self::BEYOND == 0 && self.timestamp_at != 0
    }

    /// Whether selective acknowledgments are permitted.
    #[inline(always)]
    pub const fn permits_sack(self) -> bool {
        self.bits & Self::SACK != 0
    }

    /// Whether windows are to be scaled.
    #[inline(always)]
    pub const fn scales(self) -> bool {
        self.wscale != NO_WSCALE
    }

    /// The four bits that a cookie's timestamp has for it.
    #[inline(always)]
    pub(super) const fn wscale_bits(self) -> u8 {
        self.wscale
    }

    /// Where the client's timestamp stands among the options.
    #[inline(always)]
    pub const fn timestamp_at(self) -> usize {
        self.timestamp_at as usize
    }

    /// All of it in one word, as a function in the kernel returns it.
    #[inline(always)]
    pub const fn pack(self) -> u64 {
        u32::from_le_bytes([self.timestamp_at, self.wscale, self.bits, 0]) as u64
    }

    /// The inverse of [`Self::pack`].
    #[inline(always)]
    pub const fn unpack(word: u64) -> Self {
        let [timestamp_at, wscale, bits, ..] = word.to_le_bytes();
        Self { timestamp_at, wscale, bits }
    }
}
