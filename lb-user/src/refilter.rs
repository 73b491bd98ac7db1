//! Renews the filter in front of the flows that have an entry: the data path only ever adds to it, so with time it would
//! say "maybe" to everything. And it is to be no larger than its entries need: every packet of a balancer that has any
//! reads a word of it, at random, so it should stay in a CPU's cache.
//!
//! There are two, and the data path adds every new entry to both. The one that nobody asks is given its size, emptied, and
//! filled from the tables; when it lacks none of their entries, it is turned to. So there is never a false "no".
//! The tables are had for the two changes of what the data path knows of the filters, and not while one is filled.

use crate::bpf::{ArrayTable, Balancer, HashTable, Lender};
use aya::maps::MapError;
use lb_common::{
    ids::FlowHash,
    limits::FILTER_WORDS_MIN,
    recent::{FILTER_BITS_SET, filter_place, filter_words},
    tables::{FlowEntry, Globals, Span},
};

/// Words that are looked at to tell how full the filter is.
const SAMPLE: u32 = 1024;
/// From this part of its bits on, in percent, a filter is renewed, if that helps.
const FULL_PERCENT: u64 = 25;
/// A new filter has room for so many times the entries that there are.
const ROOM: u64 = 2;
/// One that has so many times the words that it would get is too large.
const TOO_LARGE: u32 = 4;
/// Each pass but the last has found an entry missing that came meanwhile, whose word this has overwritten.
const PASSES_MAX: usize = 16;

/// The filters and what they stand in front of, by descriptors of this file's own.
struct Tables {
    filter: ArrayTable<u64>,
    flows: [HashTable<FlowHash, FlowEntry>; 3],
}

impl Tables {
    fn of(balancer: &Balancer) -> Result<Self, MapError> {
        let Balancer { filter, joined, moved, pinned, .. } = balancer;
        Ok(Self { filter: filter.reader()?, flows: [joined.reader()?, moved.reader()?, pinned.reader()?] })
    }

    /// Words of a filter for so many entries, and for those that come until it is next looked at.
    fn wanted(&self, entries: u64) -> u32 {
        let most = self.filter.len() / 2;
        let roomy = u32::try_from(entries.saturating_mul(ROOM)).map_or(most, filter_words);
        roomy.max(FILTER_WORDS_MIN).min(most)
    }

    /// How many bits are set in a sample of a filter, and of how many.
    fn sample(&self, filter: Span) -> Result<(u64, u64), MapError> {
        let step = (filter.len / SAMPLE).max(1);
        let (mut set, mut bits) = (0, 0);
        for index in (0..filter.len).step_by(step as usize) {
            set += u64::from(self.filter.read(filter.first + index)?.count_ones());
            bits += u64::from(u64::BITS);
        }
        Ok((set, bits))
    }

    fn empty(&mut self, span: Span) -> Result<(), MapError> {
        (span.first..span.first + span.len).try_for_each(|index| self.filter.write(index, 0))
    }

    /// Adds the entries that a filter lacks; how many they were.
    fn add_missing(&mut self, span: Span) -> Result<u64, MapError> {
        let Self { filter, flows } = self;
        let mut missing = 0;
        for entry in flows.iter().flat_map(HashTable::entries) {
            let (flow, _) = entry?;
            let (index, bits) = filter_place(flow, span);
            let word = filter.read(index)?;
            if word & bits != bits {
                filter.write(index, word | bits)?;
                missing += 1;
            }
        }
        Ok(missing)
    }
}

/// Renews the filter if it has become much fuller or larger than `entries` need. True if it has been renewed.
///
/// # Errors
/// The kernel refuses a map operation; the filter in use stays as it is then.
pub fn renew_if_unfit(lender: &mut impl Lender, entries: u64) -> Result<bool, MapError> {
    let (tables, globals) = lender.lend(|balancer, _| (Tables::of(balancer), balancer.globals.read(0)));
    let (tables, filter) = (tables?, asked(&globals?));
    let wanted = tables.wanted(entries);
    let (set, looked_at) = tables.sample(filter)?;
    let bits = u64::from(filter.len.max(1)) * u64::from(u64::BITS);
    let needed = entries * u64::from(FILTER_BITS_SET) * looked_at / bits;
    let is_full = set * 100 >= looked_at * FULL_PERCENT;
    if (is_full && (set > 2 * needed || wanted > filter.len)) || filter.len / TOO_LARGE > wanted {
        return renew(lender, tables, wanted);
    }
    Ok(false)
}

const fn asked(globals: &Globals) -> Span {
    globals.filters[if globals.filter_asked == 0 { 0 } else { 1 }]
}

/// Turns to a filter of `words`, filled from the tables. False if entries came faster than they could be added.
fn renew(lender: &mut impl Lender, mut tables: Tables, words: u32) -> Result<bool, MapError> {
    let filter = lender.lend(|balancer, _| {
        let mut globals = balancer.globals.read(0)?;
        let next = usize::from(globals.filter_asked == 0);
        globals.filters[next].len = words;
        balancer.globals.write(0, globals)?;
        Ok::<_, MapError>(globals.filters[next])
    })?;
    tables.empty(filter)?;
    for _ in 0..PASSES_MAX {
        if tables.add_missing(filter)? == 0 {
            lender.lend(|balancer, _| {
                let globals = balancer.globals.read(0)?;
                let filter_asked = 1 - globals.filter_asked.min(1);
                balancer.globals.write(0, Globals { filter_asked, ..globals })
            })?;
            return Ok(true);
        }
    }
    Ok(false)
}
