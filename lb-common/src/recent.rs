//! What strangers can fill: a four-way set-associative table of fixed size that forgets the oldest of a bucket.
//!
//! A bucket is one cache line, found by the low bits of the flow hash; an entry is told by its high bits. Whatever a
//! flood writes, a lookup costs one cache miss and an insert allocates and locks nothing. Two CPUs that write one bucket
//! at once may lose an entry of it, never corrupt the decision: an entry counts only if its sequence number fits.

use crate::{
    ids::{BackendId, FlowHash, Tick},
    limits::FILTER_BITS_PER_FLOW,
    tables::Span,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Entries of a bucket.
pub const WAYS: usize = 4;

/// What is remembered of a flow for a short time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Recent {
    tag: u32,
    /// The sequence number of the SYN (or of the FIN or RST that closes).
    pub sequence: u32,
    /// When it was written.
    pub at: Tick,
    /// The backend that was chosen; none where that does not matter.
    pub backend: BackendId,
    /// What kind of memory this is, in the low bits; 0 is an empty entry. Above them the bytes of data in the SYN.
    pub state: u16,
}

const KIND: u16 = 0x7;
const DATA_SHIFT: u32 = 3;
/// The most data in a SYN that is remembered; more counts as data that the server does not take.
const DATA_MAX: usize = (u16::MAX >> DATA_SHIFT) as usize;

const _: () = assert!(size_of::<Recent>() == 16);

/// The entries of the flows whose hashes agree in the low bits, newest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Bucket {
    ways: [Recent; WAYS],
}

const _: () = assert!(size_of::<Bucket>() == 64);

impl Recent {
    /// A new entry for a flow.
    #[inline(always)]
    pub const fn new(flow: FlowHash, sequence: u32, at: Tick, backend: BackendId, state: u16) -> Self {
        Self { tag: tag(flow), sequence, at, backend, state }
    }

    /// The same for a SYN with `len` bytes of data (RFC 7413).
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "at most DATA_MAX")]
    pub const fn with_data(mut self, len: usize) -> Self {
        if len <= DATA_MAX {
            self.state |= (len as u16) << DATA_SHIFT;
        }
        self
    }

    /// The same of a flow of another name.
    #[inline(always)]
    #[must_use]
    pub const fn renamed(self, flow: FlowHash) -> Self {
        Self { tag: tag(flow), ..self }
    }

    /// What kind of memory this is.
    #[inline(always)]
    pub const fn kind(&self) -> u16 {
        self.state & KIND
    }

    /// Whether `sequence` is what the client sends next after the SYN, be its data taken by the server or not.
    #[inline(always)]
    pub const fn is_followed_by(&self, sequence: u32) -> bool {
        let ahead = sequence.wrapping_sub(self.sequence.wrapping_add(1));
        ahead == 0 || ahead == (self.state >> DATA_SHIFT) as u32
    }
}

#[inline(always)]
const fn tag(flow: FlowHash) -> u32 {
    (flow.0 >> 32) as u32
}

/// The bucket of a flow in a table of `buckets`, a power of two.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low half")]
pub const fn bucket_of(flow: FlowHash, buckets: u32) -> u32 {
    flow.0 as u32 & (buckets - 1)
}

/// Buckets for at least this many entries.
pub const fn buckets_for(entries: u32) -> u32 {
    entries.div_ceil(4).next_power_of_two()
}

/// Words that the filter in front of so many flows takes.
#[expect(clippy::cast_possible_truncation, reason = "an eighth of what came in")]
pub const fn filter_words(flows: u32) -> u32 {
    (flows as u64 * FILTER_BITS_PER_FLOW as u64).div_ceil(u64::BITS as u64) as u32
}

/// Bits that a flow sets in its word of a filter.
pub const FILTER_BITS_SET: u32 = 3;

/// The word of a flow in a filter, and its bits there. The word is told by a middle part of the hash, scaled to their
/// number as [`FlowHash::slot`] scales the high part.
#[inline(always)]
pub const fn filter_place(flow: FlowHash, filter: Span) -> (u32, u64) {
    let word = (((flow.0 >> 12 & 0xffff_ffff) * filter.len as u64) >> 32) as u32;
    (filter.first + word, 1 << (flow.0 & 63) | 1 << (flow.0 >> 6 & 63) | 1 << (flow.0 >> 44 & 63))
}

impl Bucket {
    /// The entry of a flow.
    #[inline(always)]
    pub fn find(&mut self, flow: FlowHash) -> Option<&mut Recent> {
        let tag = tag(flow);
        self.ways.iter_mut().find(|way| way.state != 0 && way.tag == tag)
    }

    /// The entry of a flow, to be read.
    pub fn of(&self, flow: FlowHash) -> Option<&Recent> {
        self.entries().find(|entry| entry.tag == tag(flow))
    }

    /// Remembers a flow as the newest; its former entry goes, or else the oldest.
    #[inline(always)]
    pub fn insert(&mut self, entry: Recent) {
        self.succeed(entry, |former| former.tag == entry.tag);
    }

    /// Remembers a SYN of a flow as the newest, beside other SYNs of it that went before; the same one sent before goes, or
    /// else the oldest. So a SYN that is sent again pushes nobody out.
    #[inline(always)]
    pub fn push(&mut self, entry: Recent) {
        self.succeed(entry, |former| former.tag == entry.tag && former.sequence == entry.sequence);
    }

    /// Puts an entry first: in the place of the one that it succeeds, or in an empty one, or in that of the oldest.
    #[inline(always)]
    fn succeed(&mut self, entry: Recent, succeeds: impl Fn(&Recent) -> bool) {
        let w = &mut self.ways;
        let gives_way = |former: &Recent| former.state == 0 || succeeds(former);
        if !gives_way(&w[0]) {
            if !gives_way(&w[1]) {
                if !gives_way(&w[2]) {
                    w[3] = w[2];
                }
                w[2] = w[1];
            }
            w[1] = w[0];
        }
        w[0] = entry;
    }

    /// Forgets all of a flow.
    #[inline(always)]
    pub fn remove(&mut self, flow: FlowHash) {
        let tag = tag(flow);
        for way in &mut self.ways {
            if way.tag == tag {
                way.state = 0;
            }
        }
    }

    /// Forgets a flow, and says what was known of it.
    #[inline(always)]
    pub fn take(&mut self, flow: FlowHash) -> Option<Recent> {
        let way = self.find(flow)?;
        let known = *way;
        way.state = 0;
        Some(known)
    }

    /// The entries that are in use, newest first.
    pub fn entries(&self) -> impl Iterator<Item = &Recent> {
        self.ways.iter().filter(|way| way.state != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    fn flow(tag: u64) -> FlowHash {
        FlowHash(tag << 32 | 5)
    }

    fn entry(tag: u64, sequence: u32) -> Recent {
        Recent::new(flow(tag), sequence, Tick(1), BackendId(3), 1)
    }

    proptest::proptest! {
        #[test]
        fn a_bucket_is_its_four_newest_flows(inserts in proptest::collection::vec((0..8_u64, 0..100_u32), 0..40)) {
            let mut bucket = Bucket::default();
            let mut model = VecDeque::new();
            for (tag, sequence) in inserts {
                bucket.insert(entry(tag, sequence));
                model.retain(|&(t, _)| t != tag);
                model.push_front((tag, sequence));
                model.truncate(WAYS);
            }
            for tag in 0..8 {
                let expected = model.iter().find(|&&(t, _)| t == tag).map(|&(_, sequence)| sequence);
                proptest::prop_assert_eq!(bucket.find(flow(tag)).map(|way| way.sequence), expected);
            }
        }
    }

    #[test]
    fn removed_is_not_found() {
        let mut bucket = Bucket::default();
        bucket.insert(entry(1, 10));
        bucket.insert(entry(2, 20));
        bucket.remove(flow(1));
        assert!(bucket.find(flow(1)).is_none());
        assert_eq!(bucket.find(flow(2)).unwrap().sequence, 20);
    }

    /// A flow whose SYN comes again and again pushes nobody out.
    #[test]
    fn a_syn_that_comes_again_takes_one_place() {
        let mut bucket = Bucket::default();
        for tag in [1_u32, 2, 1, 3, 3, 2, 1, 4, 4, 4, 3] {
            bucket.push(entry(tag.into(), tag));
        }
        let sequences: Vec<_> = bucket.entries().map(|entry| entry.sequence).collect();
        assert_eq!(sequences, [3, 4, 1, 2]);
    }

    #[test]
    fn what_is_pushed_is_found_first_and_all_of_it_is_removed() {
        let mut bucket = Bucket::default();
        for (tag, sequence) in [(1, 10), (2, 20), (1, 11), (3, 30), (1, 12)] {
            bucket.push(entry(tag, sequence));
        }
        let found = |bucket: &mut Bucket, tag| bucket.find(flow(tag)).map(|way| way.sequence);
        assert_eq!([1, 2, 3].map(|tag| found(&mut bucket, tag)), [Some(12), Some(20), Some(30)]);
        bucket.remove(flow(1));
        assert_eq!([1, 2, 3].map(|tag| found(&mut bucket, tag)), [None, Some(20), Some(30)]);
    }

    #[test]
    fn a_syn_is_followed_by_its_data_taken_or_not() {
        let at = u32::MAX - 5;
        for (len, taken) in [(0, 0), (1, 1), (1460, 1460), (DATA_MAX, 8191), (DATA_MAX + 1, 0)] {
            let syn = entry(1, at).with_data(len);
            assert_eq!((syn.kind(), syn.sequence), (1, at));
            for ahead in [0, 1, 2, 1459, 1460, 1461, 8191, 8192] {
                let follows = ahead == 0 || ahead == taken;
                assert_eq!(syn.is_followed_by(at.wrapping_add(1 + ahead)), follows, "{ahead} after {len}");
            }
            assert!(!syn.is_followed_by(at));
        }
    }

    #[test]
    fn buckets_are_a_power_of_two() {
        assert_eq!(buckets_for(1), 1);
        assert_eq!(buckets_for(1024), 256);
        assert_eq!(buckets_for(1025), 512);
    }
}
