//! Renews the filter in front of the flows that have an entry: the data path only ever adds to it, so with time it would
//! say "maybe" to everything.
//!
//! The filter stands twice, and the data path adds every new entry to both. The half that nobody reads is emptied and
//! filled from the tables; when it lacks none of their entries, it is turned to. So there is never a false "no".

use crate::bpf::{Balancer, HashTable};
use aya::maps::MapError;
use lb_common::{
    ids::FlowHash,
    recent::filter_place,
    tables::{FlowEntry, Globals},
};

/// Words that are looked at to tell how full the filter is.
const SAMPLE: u32 = 1024;
/// A filter is renewed when this part of its bits is set, in percent, and twice as many as its entries need.
const FULL_PERCENT: u64 = 20;
/// Bits that an entry sets.
const BITS_PER_ENTRY: u64 = 2;
/// Each pass but the last has found an entry missing that came meanwhile, whose word this has overwritten.
const PASSES_MAX: usize = 16;

/// Renews the filter if it has become much fuller than `entries` need. True if it has been renewed.
///
/// # Errors
/// The kernel refuses a map operation; the filter in use stays as it is then.
pub fn renew_if_full(balancer: &mut Balancer, entries: u64) -> Result<bool, MapError> {
    let globals = balancer.globals.read(0)?;
    let (set, bits) = sample(balancer, &globals)?;
    let needed = entries * BITS_PER_ENTRY * bits / (u64::from(globals.filter_words) * u64::from(u64::BITS)).max(1);
    if set * 100 < bits * FULL_PERCENT || set < 2 * needed {
        return Ok(false);
    }
    renew(balancer)
}

/// Renews the filter. False if entries came faster than they could be added.
///
/// # Errors
/// As above.
pub fn renew(balancer: &mut Balancer) -> Result<bool, MapError> {
    let mut globals = balancer.globals.read(0)?;
    let half = 1 - globals.filter_half.min(1);
    let first = half * globals.filter_words;
    for index in 0..globals.filter_words {
        balancer.filter.write(first + index, 0)?;
    }
    for _ in 0..PASSES_MAX {
        if add_missing(balancer, &globals, first)? == 0 {
            globals = Globals { filter_half: half, ..balancer.globals.read(0)? };
            balancer.globals.write(0, globals)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many bits are set in a sample of the filter, and of how many.
fn sample(balancer: &Balancer, globals: &Globals) -> Result<(u64, u64), MapError> {
    let words = globals.filter_words;
    let first = globals.filter_half.min(1) * words;
    let step = (words / SAMPLE).max(1);
    let (mut set, mut bits) = (0, 0);
    for index in (0..words).step_by(step as usize) {
        set += u64::from(balancer.filter.read(first + index)?.count_ones());
        bits += u64::from(u64::BITS);
    }
    Ok((set, bits))
}

/// Adds the entries that the half from `first` on lacks; how many they were.
fn add_missing(balancer: &mut Balancer, globals: &Globals, first: u32) -> Result<u64, MapError> {
    let Balancer { joined, moved, pinned, filter, .. } = balancer;
    let mut missing = 0;
    for table in [&*joined, &*moved, &*pinned] {
        for flow in flows(table) {
            let (index, bits) = filter_place(flow?, globals.filter_words);
            let word = filter.read(first + index)?;
            if word & bits != bits {
                filter.write(first + index, word | bits)?;
                missing += 1;
            }
        }
    }
    Ok(missing)
}

fn flows(table: &HashTable<FlowHash, FlowEntry>) -> impl Iterator<Item = Result<FlowHash, MapError>> + '_ {
    table.entries().map(|entry| entry.map(|(flow, _)| flow))
}
