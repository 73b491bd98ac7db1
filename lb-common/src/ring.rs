//! The ring: which backend of a pool owns which slot. A Maglev table (Eisenbud et al., NSDI 2016, 3.4) with weights.
//!
//! It must never depend on anything but its members' ids, identities and weights: not on their order, nor on what the
//! ring was before. So all balancers with one configuration agree on every slot without a word between them.
//!
//! Two things differ from the paper. Every member has a quota of slots, so its share is exact. And a member whose turn
//! finds a slot taken does not search on for a free one: half as many slots change hands among the others when a
//! member comes or goes.

use crate::{
    hash::{SipKey, sip},
    tables::RING_SLOTS,
};
use std::cmp::Reverse;

/// [`RING_SLOTS`], a prime, so that every skip comes to all of them; 65 for each of 1,000 backends.
pub const SLOTS: usize = RING_SLOTS as usize;

/// The id of no backend: what the slots of a ring without members hold.
pub const NOBODY: u16 = 0;

/// A backend that takes part in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the ring's slots hold; not [`NOBODY`].
    pub id: u16,
    /// What decides which slots the member prefers, see [`identity`].
    pub identity: u64,
    /// The member's part of the slots, relative to the other weights. 0: it takes no part.
    pub weight: u32,
}

/// The identity of a backend: a hash of its name, the same on every balancer and for all time.
///
/// Its key is no secret: who knows the ring still cannot aim at a slot, because the flow hash is keyed.
pub fn identity(name: &str) -> u64 {
    sip::sip13_bytes(&SipKey::from_bytes(*b"weir ring member"), name.as_bytes())
}

/// The owners of all [`SLOTS`] slots; all [`NOBODY`] if no member has a weight.
///
/// A member owns its exact share by weight, rounded up or down to a whole slot: one whose share is less than a slot may
/// own none. With 100 members, when one comes or goes, about 0.3 % of the others' slots change hands among them.
pub fn build(members: &[Member]) -> Vec<u16> {
    let mut slots = vec![NOBODY; SLOTS];
    let mut claimants = claimants(members);
    while !claimants.is_empty() {
        let time = time_for_one_turn_each(&claimants);
        for claimant in &mut claimants {
            claimant.claim(time, &mut slots);
        }
        claimants.retain(|claimant| claimant.quota > 0);
    }
    slots
}

/// The members that still have slots to claim, in an order that does not depend on the caller's.
fn claimants(members: &[Member]) -> Vec<Claimant> {
    let mut members: Vec<Member> =
        members.iter().copied().filter(|member| member.weight > 0 && member.id != NOBODY).collect();
    members.sort_unstable_by_key(|member| (member.identity, member.id));
    members
        .iter()
        .zip(quotas(&members))
        .filter(|(_, quota)| *quota > 0)
        .map(|(member, quota)| Claimant::new(member, quota))
        .collect()
}

/// How many slots each member owns: its share rounded down, and one more for those that lost most by the rounding.
fn quotas(members: &[Member]) -> Vec<usize> {
    let slots = u64::from(RING_SLOTS);
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let share_times_total = |member: &Member| slots * u64::from(member.weight);

    let mut quotas: Vec<usize> = members
        .iter()
        .map(|member| usize::try_from(share_times_total(member) / total).expect("a share is at most SLOTS"))
        .collect();
    let mut by_loss: Vec<usize> = (0..members.len()).collect();
    by_loss.sort_by_key(|&i| Reverse(share_times_total(&members[i]) % total));
    let unassigned = SLOTS - quotas.iter().sum::<usize>();
    for &i in by_loss.iter().take(unassigned) {
        quotas[i] += 1;
    }
    quotas
}

/// A member that still has slots to claim.
struct Claimant {
    id: u16,
    weight: u32,
    /// Slots still to be claimed.
    quota: usize,
    /// The next slot in the member's order of preference: the slots from an offset on, `skip` apart.
    preferred: usize,
    skip: usize,
    /// Slots that it has not come to yet.
    ahead: u32,
    /// Turns earned and not yet taken. Sums, products and quotients of IEEE 754 are the same on every machine.
    turns: f64,
}

/// The time in which the claimants earn one turn each, on average.
fn time_for_one_turn_each(claimants: &[Claimant]) -> f64 {
    let turns = u32::try_from(claimants.len()).expect("each has a quota of SLOTS");
    let speed: f64 = claimants.iter().map(Claimant::speed).sum();
    f64::from(turns) / speed
}

impl Claimant {
    fn new(member: &Member, quota: usize) -> Self {
        let slots = u64::from(RING_SLOTS);
        let below = |bound: u64, bits: u64| usize::try_from(bits % bound).expect("below SLOTS");
        Self {
            id: member.id,
            weight: member.weight,
            quota,
            preferred: below(slots, member.identity >> 32),
            skip: 1 + below(slots - 1, member.identity & 0xffff_ffff),
            ahead: RING_SLOTS,
            turns: 0.0,
        }
    }

    /// Turns in a unit of time. In proportion to the weight alone, a heavy member would run through all slots before
    /// the light ones have begun; so of what is left to it, each takes the same part in the same time, by weight.
    fn speed(&self) -> f64 {
        f64::from(self.weight) * f64::from(self.ahead)
    }

    /// Takes the turns that `time` earns. A turn is for one slot, the next preferred, whether it is free or not.
    fn claim(&mut self, time: f64, slots: &mut [u16]) {
        self.turns += time * self.speed();
        while self.turns >= 1.0 && self.quota > 0 {
            self.turns -= 1.0;
            self.ahead -= 1;
            if slots[self.preferred] == NOBODY {
                slots[self.preferred] = self.id;
                self.quota -= 1;
            }
            self.preferred = (self.preferred + self.skip) % SLOTS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn pool(weights: &[u32]) -> Vec<Member> {
        (1..)
            .zip(weights)
            .map(|(id, &weight)| Member { id, identity: identity(&format!("backend-{id}")), weight })
            .collect()
    }

    fn owned(ring: &[u16]) -> BTreeMap<u16, u32> {
        let mut owned = BTreeMap::new();
        for &owner in ring {
            *owned.entry(owner).or_default() += 1;
        }
        owned
    }

    /// The part of the slots that `left` did not own and that change hands when it leaves `members`, or joins the rest.
    fn moved_among_others(members: &[Member], left: Member) -> f64 {
        let rest: Vec<Member> = members.iter().copied().filter(|m| *m != left).collect();
        let (with, without) = (build(members), build(&rest));
        let others = with.iter().zip(&without).filter(|(owner, _)| **owner != left.id);
        let (mut all, mut moved) = (0, 0);
        for (before, after) in others {
            all += 1;
            moved += u32::from(before != after);
        }
        f64::from(moved) / f64::from(all)
    }

    fn weights() -> impl Strategy<Value = Vec<u32>> {
        prop_oneof![
            prop::collection::vec(0..=10_u32, 1..=40),
            prop::collection::vec(prop_oneof![Just(0), Just(1), Just(u32::MAX), any::<u32>()], 1..=40),
            prop::collection::vec(1..=100_u32, 900..=1_000),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn shares_are_exact_to_a_slot(weights in weights()) {
            let members = pool(&weights);
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            prop_assume!(total > 0.0);
            let owned = owned(&build(&members));
            prop_assert_eq!(owned.get(&NOBODY), None, "slots without an owner");
            for member in members {
                let count = owned.get(&member.id).copied().unwrap_or_default();
                let share = 65_537.0 * f64::from(member.weight) / total;
                prop_assert!((f64::from(count) - share).abs() < 1.0, "{:?} owns {}, deserves {}", member, count, share);
                prop_assert!(member.weight > 0 || count == 0, "{:?} owns {}", member, count);
            }
        }

        #[test]
        fn order_does_not_matter(
            (members, shuffled) in weights().prop_map(|weights| pool(&weights)).prop_flat_map(|members| {
                (Just(members.clone()), Just(members).prop_shuffle())
            })
        ) {
            prop_assert!(build(&members) == build(&shuffled));
        }

        #[test]
        fn weights_are_relative(weights in prop::collection::vec(0..=100_u32, 1..=40), factor in 1..=1_000_u32) {
            let scaled: Vec<u32> = weights.iter().map(|weight| weight * factor).collect();
            prop_assert_eq!(owned(&build(&pool(&weights))), owned(&build(&pool(&scaled))));
        }

        #[test]
        fn one_of_a_hundred_moves_few_others(
            weights in prop_oneof![Just(vec![1; 100]), prop::collection::vec(1..=100_u32, 100)],
            left: prop::sample::Index,
        ) {
            let members = pool(&weights);
            let moved = moved_among_others(&members, members[left.index(100)]);
            prop_assert!(moved <= 0.01, "{} of the others' slots moved", moved);
        }

        #[test]
        fn one_of_a_few_moves_few_others(
            weights in prop::collection::vec(1..=10_u32, 2..=20),
            left: prop::sample::Index,
        ) {
            let members = pool(&weights);
            let moved = moved_among_others(&members, members[left.index(members.len())]);
            prop_assert!(moved <= 0.02, "{} of the others' slots moved", moved);
        }
    }

    #[test]
    fn without_members_nobody_owns_a_slot() {
        assert_eq!(build(&[]), vec![NOBODY; SLOTS]);
        assert_eq!(build(&pool(&[0, 0])), vec![NOBODY; SLOTS]);
    }

    #[test]
    fn a_single_member_owns_all() {
        assert_eq!(build(&pool(&[7])), vec![1; SLOTS]);
    }

    #[test]
    fn members_of_one_identity_share() {
        let twins = [1, 2].map(|id| Member { id, identity: 5, weight: 1 });
        assert_eq!(owned(&build(&twins)), BTreeMap::from([(1, 32_769), (2, 32_768)]));
    }

    #[test]
    fn identity_is_siphash_of_the_name() {
        let reference = siphasher::sip::SipHasher13::new_with_key(b"weir ring member");
        assert_eq!(identity("backend-1"), reference.hash(b"backend-1"));
    }

    /// Balancers of two releases serve one cluster during an upgrade: a ring that changes breaks their connections.
    #[test]
    fn same_ring_in_every_release() {
        let bytes: Vec<u8> = build(&pool(&[3, 1, 4, 1, 5, 9, 2, 6])).into_iter().flat_map(u16::to_le_bytes).collect();
        let fingerprint = siphasher::sip::SipHasher13::new().hash(&bytes);
        assert_eq!(fingerprint, 0xd5cb_bfd6_4c0a_2e37, "{fingerprint:#x}");
    }
}
