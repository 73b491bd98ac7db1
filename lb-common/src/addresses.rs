//! The addresses of VIPs: a hash table that is only ever built as a whole, so that a lookup is a few loads and no call.
//!
//! It stands twice. The controller builds the half that nobody reads and then turns to it, so a packet sees the old
//! addresses or the new ones, and an address that is in both is never missing. Whoever sends packets cannot lengthen a
//! lookup, for the addresses are the operator's: the builder looks for a multiplier with which none lies far from its
//! place. A multiplier changes the distance of any two addresses (Dietzfelbinger and others, 1997), so each is a new
//! throw; a seed that is only added to the addresses would leave together those that once are.

#[cfg(any(test, feature = "std"))]
use crate::hash::sip::{SipKey, sip13};
use crate::{limits::ADDRESSES_MAX, tables::Services, wire::ip::Address};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Rows of one half; with four for each VIP nearly every address lies in its own place.
pub const ROWS: u32 = 4 * ADDRESSES_MAX;
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

impl Row {
    /// The rules of its address; none where the row is empty.
    pub const fn services(&self) -> Services {
        self.services
    }
}

/// Which half is read, and how its rows are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Turn {
    /// The multiplier of each half, odd.
    pub multipliers: [u64; 2],
    /// 0 or 1.
    pub half: u32,
    #[doc(hidden)]
    pub reserved: u32,
}

/// Finds the rules of an address.
#[inline(always)]
pub fn find<'r>(turn: &Turn, address: &Address, row: impl Fn(u32) -> Option<&'r Row>) -> Option<Services> {
    let half = turn.half & 1;
    let start = place(address, turn.multipliers[half as usize]);
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
const fn place(address: &Address, multiplier: u64) -> u32 {
    let [high, low] = address.halves();
    let mixed = (high.wrapping_mul(multiplier).rotate_left(32) ^ low).wrapping_mul(multiplier);
    (mixed >> (u64::BITS - ROWS.ilog2())) as u32
}

/// Multipliers that are tried. A full table takes one of eleven, and a smaller one more.
#[cfg(any(test, feature = "std"))]
const TRIES: u64 = 4096;

/// The rows of a half with these addresses, and its multiplier.
///
/// # Panics
/// With more than [`ADDRESSES_MAX`] addresses, or without rules for one.
#[cfg(any(test, feature = "std"))]
#[must_use]
pub fn build(addresses: &[(Address, Services)]) -> (u64, Vec<Row>) {
    assert!(addresses.len() <= ADDRESSES_MAX as usize, "the limit of addresses");
    assert!(addresses.iter().all(|(_, services)| services.count > 0), "an address has rules");
    let key = SipKey::from_bytes(*b"places of a VIP.");
    (0..TRIES)
        .map(|attempt| sip13(&key, [attempt], 0, 8) | 1)
        .find_map(|multiplier| Some((multiplier, build_with(addresses, multiplier)?)))
        .expect("one of thousands of multipliers serves")
}

#[cfg(any(test, feature = "std"))]
fn build_with(addresses: &[(Address, Services)], multiplier: u64) -> Option<Vec<Row>> {
    let mut rows = vec![Row::default(); ROWS as usize];
    for &(address, services) in addresses {
        let start = place(&address, multiplier);
        let places = (0..PROBES).map(|probe| ((start + probe) & (ROWS - 1)) as usize);
        let free = { places }.find(|&place| rows[place].services.count == 0)?;
        rows[free] = Row { address, services, reserved: [0; 2] };
    }
    Some(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::HashMap,
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
    };

    fn found_and_no_other(known: &[IpAddr], strangers: &[IpAddr], half: u32) {
        let expected: HashMap<Address, Services> =
            (1..).zip(known).map(|(count, &address)| (address.into(), Services { first: count * 3, count })).collect();
        let rules: Vec<_> = expected.iter().map(|(&address, &services)| (address, services)).collect();
        let (multiplier, rows) = build(&rules);
        let mut turn = Turn { half, ..Turn::default() };
        turn.multipliers[half as usize] = multiplier;
        let find = |address: &Address| find(&turn, address, |index| rows.get((index - half * ROWS) as usize));
        for address in known.iter().chain(strangers).map(|&address| address.into()) {
            assert_eq!(find(&address), expected.get(&address).copied());
        }
    }

    #[test]
    fn addresses_in_a_row_are_found() {
        let v4: Vec<IpAddr> = (0..1024).map(|n| Ipv4Addr::from(0x0a00_0000 + n).into()).collect();
        let v6: Vec<IpAddr> = (0..1024).map(|n| Ipv6Addr::from((0x2001_0db8 << 96) + n).into()).collect();
        let networks: Vec<IpAddr> =
            (0..1024).map(|n| Ipv6Addr::from((0x2001_0db8 << 96) + (n << 64) + 1).into()).collect();
        let same_in_both: Vec<IpAddr> = (0..1024).map(|n| Ipv6Addr::from((n << 64) + (n << 29)).into()).collect();
        for known in [&v4, &v6, &networks, &same_in_both] {
            found_and_no_other(known, &[], 0);
        }
        found_and_no_other(&v4[..512], &v4[512..], 1);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn every_address_is_found_and_no_other(
            known in proptest::collection::hash_set(proptest::prelude::any::<IpAddr>(), 0..=1024),
            strangers in proptest::collection::vec(proptest::prelude::any::<IpAddr>(), 100),
            half in 0..2_u32,
        ) {
            found_and_no_other(&known.into_iter().collect::<Vec<_>>(), &strangers, half);
        }
    }
}
