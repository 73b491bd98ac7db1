//! The addresses of VIPs: a hash table that is only ever built as a whole, so that a lookup is a few loads and no call.
//!
//! It stands twice. The controller builds the half that nobody reads and then turns to it, so a packet sees the old
//! addresses or the new ones, and an address that is in both is never missing. Whoever sends packets cannot lengthen a
//! lookup, for the addresses are the operator's: the builder looks for a seed with which none lies far from its place.

use crate::{limits::VIPS_MAX, tables::Services, wire::ip::Address};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rows of one half; with four for each VIP nearly every address lies in its own place.
pub const ROWS: u32 = 4 * VIPS_MAX;
/// Rows of both.
pub const ALL_ROWS: u32 = 2 * ROWS;
/// Rows that a lookup goes through at most.
pub const PROBES: u32 = 4;

const _: () = assert!(ROWS.is_power_of_two());

/// A row: an address and its rules; without rules it is empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Row {
    address: Address,
    services: Services,
    reserved: [u32; 2],
}

const _: () = assert!(size_of::<Row>() == 32);

/// Which half is read, and how its rows are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Turn {
    /// The seed of each half.
    pub seeds: [u32; 2],
    /// 0 or 1.
    pub half: u32,
    #[doc(hidden)]
    pub reserved: u32,
}

/// Finds the rules of an address.
#[inline(always)]
pub fn find<'r>(turn: &Turn, address: &Address, row: impl Fn(u32) -> Option<&'r Row>) -> Option<Services> {
    let half = turn.half & 1;
    let start = place(address, turn.seeds[half as usize]);
    let mut probe = 0;
    while probe < PROBES {
        let row = row(half * ROWS + ((start + probe) & (ROWS - 1)))?;
        if row.services.count == 0 {
            return None;
        }
        if row.address == *address {
            return Some(row.services);
        }
        probe += 1;
    }
    None
}

/// The place of an address in a half.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the highest bits of the product")]
const fn place(address: &Address, seed: u32) -> u32 {
    let [high, low] = address.halves();
    let mixed = (high.rotate_left(29) ^ low ^ seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - ROWS.ilog2())) as u32
}

/// The rows of a half with these addresses, and its seed.
///
/// # Panics
/// With more than [`VIPS_MAX`] addresses, or without rules for one.
#[cfg(any(test, feature = "std"))]
pub fn build(addresses: &[(Address, Services)]) -> (u32, Vec<Row>) {
    assert!(addresses.len() <= VIPS_MAX as usize, "an address for each VIP at most");
    assert!(addresses.iter().all(|(_, services)| services.count > 0), "an address has rules");
    (0..).find_map(|seed| Some((seed, build_with(addresses, seed)?))).expect("one of four billion seeds serves")
}

#[cfg(any(test, feature = "std"))]
fn build_with(addresses: &[(Address, Services)], seed: u32) -> Option<Vec<Row>> {
    let mut rows = vec![Row::default(); ROWS as usize];
    for &(address, services) in addresses {
        let start = place(&address, seed);
        let places = (0..PROBES).map(|probe| ((start + probe) & (ROWS - 1)) as usize);
        let free = { places }.find(|&place| rows[place].services.count == 0)?;
        rows[free] = Row { address, services, reserved: [0; 2] };
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, net::IpAddr};

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        #[test]
        fn every_address_is_found_and_no_other(
            known in proptest::collection::hash_map(proptest::prelude::any::<IpAddr>(), 1..64_u32, 0..=1024),
            strangers in proptest::collection::vec(proptest::prelude::any::<IpAddr>(), 100),
            half in 0..2_u32,
        ) {
            let expected: HashMap<Address, Services> =
                known.iter().map(|(&address, &count)| (address.into(), Services { first: count * 3, count })).collect();
            let (seed, rows) = build(&expected.iter().map(|(&address, &services)| (address, services)).collect::<Vec<_>>());
            let turn = Turn { seeds: if half == 0 { [seed, 0] } else { [0, seed] }, half, reserved: 0 };
            let find = |address: &Address| find(&turn, address, |index| rows.get((index - half * ROWS) as usize));
            for address in known.keys().chain(&strangers).map(|&address| address.into()) {
                proptest::prop_assert_eq!(find(&address), expected.get(&address).copied());
            }
        }
    }
}
