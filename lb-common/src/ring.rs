//! The ring: which backend of a pool owns which slot. A Maglev table (Eisenbud et al., NSDI 2016, 3.4) with weights.
//!
//! It must never depend on anything but its members' identities, ids and weights: not on their order, nor on what the
//! ring was before. So all balancers with one configuration agree on every slot without a word between them.
//!
//! Two things differ from the paper. Every member has a quota of slots, so its share is exact. And a member whose turn
//! finds a slot taken does not search on, but waits for its next turn: when a member leaves, half as many of the slots
//! that it did not own change hands.

use crate::hash::{SipKey, sip};
use std::cmp::Reverse;

/// Slots of a ring: a prime, so that every skip visits them all, and 65 for each of 1,000 backends.
pub const SLOTS: usize = 65_537;

/// The id of no backend: what the slots of a ring without members hold.
pub const NOBODY: u16 = 0;

/// A backend that takes part in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What the ring's slots hold; not [`NOBODY`].
    pub id: u16,
    /// What decides which slots the member prefers, see [`identity`]; as long as it stays, so do they.
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

/// The owners of all [`SLOTS`] slots.
///
/// Every member owns its exact share of the slots, by weight, rounded up or down to a whole slot; so one that deserves
/// less than a slot may own none. All are [`NOBODY`] if no member has a weight.
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
    let mut members: Vec<Member> = members
        .iter()
        .copied()
        .filter(|member| member.weight > 0 && member.id != NOBODY)
        .collect();
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
    let slots = SLOTS as u64;
    let total: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    let share_times_total = |member: &Member| slots * u64::from(member.weight);

    let mut quotas: Vec<usize> = members
        .iter()
        .map(|member| {
            usize::try_from(share_times_total(member) / total).expect("a share is at most SLOTS")
        })
        .collect();
    let mut by_loss: Vec<usize> = (0..members.len()).collect();
    by_loss.sort_by_key(|&i| Reverse(share_times_total(&members[i]) % total));
    let unassigned = SLOTS.saturating_sub(quotas.iter().sum());
    for &i in by_loss.iter().take(unassigned) {
        quotas[i] += 1;
    }
    quotas
}

/// A member that still has slots to claim.
struct Claimant {
    id: u16,
    weight: u64,
    /// Slots still to be claimed.
    quota: usize,
    /// The next slot in the member's order of preference: the slots from an offset on, `skip` apart.
    preferred: usize,
    skip: usize,
    /// Of the next turn, in units of 1 / [`TURN`].
    earned: u64,
}

/// What a turn costs. A weight earns itself in a unit of time, so a round's time times any weight fits 64 bits.
const TURN: u64 = 1 << 40;

/// The time in which the claimants take one turn on average. Only its order of magnitude matters: which turns a claimant
/// has had by a given time depends on nothing but its weight.
fn time_for_one_turn_each(claimants: &[Claimant]) -> u64 {
    let total: u64 = claimants.iter().map(|claimant| claimant.weight).sum();
    TURN * claimants.len() as u64 / total
}

impl Claimant {
    fn new(member: &Member, quota: usize) -> Self {
        let slots = SLOTS as u64;
        let below = |bound: u64, bits: u64| usize::try_from(bits % bound).expect("below SLOTS");
        Self {
            id: member.id,
            weight: u64::from(member.weight),
            quota,
            preferred: below(slots, member.identity >> 32),
            skip: 1 + below(slots - 1, member.identity & 0xffff_ffff),
            earned: 0,
        }
    }

    /// Takes the turns that `time` earns. A turn is for one slot, the next preferred, whether it is free or not.
    fn claim(&mut self, time: u64, slots: &mut [u16]) {
        self.earned += time * self.weight;
        while self.earned >= TURN && self.quota > 0 {
            self.earned -= TURN;
            if slots[self.preferred] == NOBODY {
                slots[self.preferred] = self.id;
                self.quota -= 1;
            }
            self.preferred = (self.preferred + self.skip) % SLOTS;
        }
    }
}
