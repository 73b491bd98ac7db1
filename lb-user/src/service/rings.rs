//! The rings of the pools: built from the backends that take connections, changed slot by slot, and moved on by time.

use super::{Duty, ServiceError, State, ledger::RingEntry};
use crate::layout::Layout;
use aya::maps::MapError;
use lb_common::{
    ids::{BackendId, PoolId},
    limits::{BACKENDS_MAX, SLOW_START_STEPS},
    reason::Reason,
    ring::{self, Member},
    tables::{Slot, counter_index},
    transition::Transitions,
};
use std::{collections::BTreeMap, time::Duration};

/// A pool's ring.
#[derive(Clone)]
pub(super) struct Ring {
    /// What it was built from; nothing while only its slots are known.
    members: Option<Vec<Member>>,
    pub(super) transitions: Transitions,
    /// How many packets of survivors have found no room for an entry, and when the last of them was noticed.
    full_packets: u64,
    full_at: Option<Duration>,
}

/// How many slots of its pool's ring a backend has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotCount {
    pub(super) owned: u64,
    pub(super) previous: u64,
}

impl Ring {
    /// A ring that is as it should be from its first packet on.
    fn new(members: Vec<Member>, udp_transition: Duration) -> Self {
        let mut transitions = Transitions::settled(&ring::build(&members));
        transitions.keep_datagrams_for(udp_transition);
        Self { members: Some(members), transitions, full_packets: 0, full_at: None }
    }

    /// A ring as the controller before this one has left it.
    pub(super) fn resumed(slots: Vec<Slot>, entry: &RingEntry) -> Self {
        let RingEntry { times, full_packets, full_at } = *entry;
        Self { members: None, transitions: Transitions::resumed(slots, times.into()), full_packets, full_at }
    }

    /// The window of a rotation of the cluster key, as a ring of one slot. `full_packets` have found no room before it.
    pub(super) const fn of_rotation(window: Transitions, full_packets: u64) -> Self {
        Self { members: None, transitions: window, full_packets, full_at: None }
    }

    /// Notes how many packets of survivors have found no room by now. Whether there are more than before.
    pub(super) const fn note_full(&mut self, packets: u64, now: Duration) -> bool {
        let is_more = packets > self.full_packets;
        if is_more {
            self.full_at = Some(now);
            self.full_packets = packets;
        }
        is_more
    }

    /// Whether survivors have found no room before.
    pub(super) const fn has_been_full(&self) -> bool {
        self.full_at.is_some()
    }

    /// Moves the windows on. Returns the slots that have changed.
    pub(super) fn advance(&mut self, now: Duration) -> Vec<u32> {
        self.transitions.advance(now, self.full_at)
    }

    /// What it was built from.
    pub(super) fn members(&self) -> &[Member] {
        self.members.as_deref().unwrap_or_default()
    }

    /// Whether any backend takes connections.
    pub(super) fn has_members(&self) -> bool {
        self.transitions.slots().iter().any(|slot| slot.owner().is_some())
    }

    /// What the controller after this one has to know of it.
    pub(super) fn to_entry(&self) -> RingEntry {
        let Self { transitions, full_packets, full_at, .. } = self;
        RingEntry { times: transitions.deadlines().into(), full_packets: *full_packets, full_at: *full_at }
    }

    /// Brings the slots in line with these members. Returns those that have changed.
    pub(super) fn change(
        &mut self,
        members: Vec<Member>,
        now: Duration,
        length: Duration,
        serves: impl Fn(BackendId) -> bool,
    ) -> Vec<u32> {
        if self.members.as_ref() == Some(&members) {
            return Vec::new();
        }
        let changed = self.transitions.change(&ring::build(&members), now, length, serves);
        self.members = Some(members);
        changed
    }

    /// The slots of each backend, by its number.
    pub(super) fn counts(&self) -> Vec<SlotCount> {
        let mut counts = vec![SlotCount::default(); BACKENDS_MAX as usize + 1];
        for slot in self.transitions.slots() {
            counts[usize::from(slot.owner().0)].owned += 1;
            counts[usize::from(slot.previous().0)].previous += 1;
        }
        counts
    }
}

impl State {
    /// Brings every ring in line with the backends. Returns how many slots have changed.
    pub(super) fn change_rings(&mut self, now: Duration) -> Result<usize, ServiceError> {
        self.rings_at = now;
        let mut to_write = Vec::new();
        for (pool, udp_transition) in self.layout.pools.iter().map(|pool| (pool.id, pool.udp_transition)) {
            let members = members(&self.layout, &self.duties(), pool, now);
            let serves = |id| self.backends.get(&id).is_some_and(|known| known.duty.serves());
            let length = self.config.balancer.transition;
            let changed = if let Some(ring) = self.rings.get_mut(&pool) {
                ring.transitions.keep_datagrams_for(udp_transition);
                let changed = ring.change(members, now, length, serves);
                if !changed.is_empty() {
                    self.changed.note(pool);
                }
                changed
            } else {
                // Whatever slots an older pool of this number has left are overwritten.
                self.rings.insert(pool, Ring::new(members, udp_transition));
                (0..lb_common::tables::RING_SLOTS).collect()
            };
            to_write.push((pool, changed));
        }
        self.rings.retain(|pool, _| self.layout.pools.iter().any(|row| row.id == *pool));
        Ok(self.write_slots(to_write)? + self.forget_the_ended()?)
    }

    /// Ends the windows of the backends that no longer serve. Returns how many slots have changed.
    pub(super) fn forget_the_ended(&mut self) -> Result<usize, ServiceError> {
        let mut to_write = Vec::new();
        for (&id, known) in self.backends.iter().filter(|(_, known)| !known.duty.serves()) {
            let Some(ring) = self.rings.get_mut(&known.row.pool) else { continue };
            let changed = ring.transitions.forget(id);
            if !changed.is_empty() {
                self.changed.note(known.row.pool);
            }
            to_write.push((known.row.pool, changed));
        }
        self.write_slots(to_write)
    }

    /// Moves the windows of all rings on.
    pub(super) fn advance_rings(&mut self, now: Duration) -> Result<(), ServiceError> {
        let (mut to_write, mut is_full) = (Vec::new(), false);
        for pool in self.rings.keys().copied().collect::<Vec<_>>() {
            let pins = self.rings[&pool].transitions.pins();
            let packets = if pins { self.pinned_full(pool)? } else { 0 };
            let Some(ring) = self.rings.get_mut(&pool) else { continue };
            is_full |= ring.note_full(packets, now);
            to_write.push((pool, ring.advance(now)));
        }
        if is_full {
            self.save()?;
        }
        self.write_slots(to_write)?;
        Ok(())
    }

    /// Writes slots that have changed, their deadlines first. Returns how many they are.
    fn write_slots(&mut self, to_write: Vec<(PoolId, Vec<u32>)>) -> Result<usize, ServiceError> {
        let count = to_write.iter().map(|(_, changed)| changed.len()).sum();
        if count > 0 {
            self.save()?;
        }
        for (pool, changed) in to_write {
            let Some(ring) = self.rings.get(&pool) else { continue };
            self.balancer.rings.write(pool, ring.transitions.slots(), &changed)?;
        }
        Ok(count)
    }

    /// What each backend does.
    fn duties(&self) -> BTreeMap<BackendId, Duty> {
        self.backends.iter().map(|(&id, known)| (id, known.duty)).collect()
    }

    /// Ends drains whose time is up and gives rising backends more of their share.
    pub(super) fn advance_backends(&mut self, now: Duration) -> Result<(), ServiceError> {
        let pools: BTreeMap<PoolId, Duration> = self.layout.pools.iter().map(|row| (row.id, row.slow_start)).collect();
        let (mut rises, mut ends) = (false, false);
        for known in self.backends.values_mut() {
            let slow_start = pools.get(&known.row.pool).copied().unwrap_or_default();
            let before = known.duty;
            rises |= matches!(before, Duty::Rising { .. });
            known.duty = before.at(now, slow_start);
            ends |= before.serves() && !known.duty.serves();
        }
        if rises {
            self.change_rings(now)?;
        }
        if ends {
            self.forget_the_ended()?;
            self.write_backends(|_| true)?;
        }
        Ok(())
    }

    /// Packets of a pool's survivors that found no room for an entry.
    pub(super) fn pinned_full(&self, pool: PoolId) -> Result<u64, MapError> {
        let name = self.layout.pools.iter().find(|row| row.id == pool).map(|row| &row.name);
        let vips = self.layout.vips.iter().filter(|vip| Some(&vip.pool) == name);
        let mut packets = 0;
        for vip in vips {
            let counters = self.balancer.counters.read(counter_index(vip.id, Reason::PinnedFull))?;
            packets += counters.iter().map(|counter| counter.packets).sum::<u64>();
        }
        Ok(packets)
    }
}

/// The backends of a pool with what each may take. Weights are multiplied only while a backend rises, so that
/// the ring at rest is the same on a balancer that saw nobody rise.
pub(super) fn members(layout: &Layout, duties: &BTreeMap<BackendId, Duty>, pool: PoolId, now: Duration) -> Vec<Member> {
    let slow_start = layout.pools.iter().find(|row| row.id == pool).map_or(Duration::ZERO, |row| row.slow_start);
    let rows = layout.backends.iter().filter(|row| row.pool == pool);
    let parts: Vec<_> = rows.map(|row| (row, duties[&row.id].part(now, slow_start))).collect();
    let at_rest = parts.iter().all(|(_, part)| part % SLOW_START_STEPS == 0);
    let unit = if at_rest { SLOW_START_STEPS } else { 1 };
    parts.into_iter().map(|(row, part)| row.member(part / unit)).collect()
}
