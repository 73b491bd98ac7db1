//! The rings of the pools: built from the backends that take connections, changed slot by slot, and moved on by time.

use super::{Duty, State};
use crate::{bpf::Balancer, layout::Layout};
use aya::maps::MapError;
use lb_common::{
    ids::PoolId,
    limits::{BACKENDS_MAX, SLOW_START_STEPS},
    reason::Reason,
    ring::{self, Member},
    tables::counter_index,
    transition::Transitions,
};
use std::{collections::BTreeMap, time::Duration};

/// A pool's ring.
pub(super) struct Ring {
    /// What it was built from.
    members: Vec<Member>,
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
        Self { members, transitions, full_packets: 0, full_at: None }
    }

    /// Whether any backend takes connections.
    pub(super) fn has_members(&self) -> bool {
        self.members.iter().any(|member| member.weight > 0)
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
    pub(super) fn change_rings(&mut self, now: Duration) -> Result<usize, MapError> {
        self.rings_at = now;
        let length = self.config.balancer.transition;
        let mut count = 0;
        for (pool, udp_transition) in self.layout.pools.iter().map(|pool| (pool.id, pool.udp_transition)) {
            let members = self.members(pool, now);
            if let Some(ring) = self.rings.get_mut(&pool) {
                ring.transitions.keep_datagrams_for(udp_transition);
            }
            let changed = match self.rings.get_mut(&pool) {
                Some(ring) if ring.members == members => continue,
                Some(ring) => {
                    let serves = |id| self.backends.get(&id).is_some_and(|known| known.duty.serves());
                    let changed = ring.transitions.change(&ring::build(&members), now, length, serves);
                    ring.members = members;
                    changed
                }
                // Whatever slots an older pool of this number has left are overwritten.
                None => {
                    self.rings.insert(pool, Ring::new(members, udp_transition));
                    (0..lb_common::tables::RING_SLOTS).collect()
                }
            };
            write_slots(&mut self.balancer, pool, &self.rings[&pool], &changed)?;
            count += changed.len();
        }
        self.rings.retain(|pool, _| self.layout.pools.iter().any(|row| row.id == *pool));
        count += self.forget_the_ended()?;
        Ok(count)
    }

    /// Ends the windows of the backends that no longer serve. Returns how many slots have changed.
    pub(super) fn forget_the_ended(&mut self) -> Result<usize, MapError> {
        let mut count = 0;
        let ended = self.backends.iter().filter(|(_, known)| !known.duty.serves());
        for (&id, known) in ended {
            let Some(ring) = self.rings.get_mut(&known.row.pool) else { continue };
            let changed = ring.transitions.forget(id);
            write_slots(&mut self.balancer, known.row.pool, ring, &changed)?;
            count += changed.len();
        }
        Ok(count)
    }

    /// Moves the windows of all rings on.
    pub(super) fn advance_rings(&mut self, now: Duration) -> Result<(), MapError> {
        let Self { rings, balancer, layout, .. } = self;
        for (&pool, ring) in rings {
            if ring.transitions.pins() {
                let packets = pinned_full(balancer, layout, pool)?;
                if packets > ring.full_packets {
                    ring.full_at = Some(now);
                    ring.full_packets = packets;
                }
            }
            let changed = ring.transitions.advance(now, ring.full_at);
            write_slots(balancer, pool, ring, &changed)?;
        }
        Ok(())
    }

    /// The backends of a pool with what each may take. Weights are multiplied only while a backend rises, so that
    /// the ring at rest is the same on a balancer that saw nobody rise.
    fn members(&self, pool: PoolId, now: Duration) -> Vec<Member> {
        let slow_start = self.slow_start(pool);
        let rows = self.layout.backends.iter().filter(|row| row.pool == pool);
        let parts: Vec<_> = rows.map(|row| (row, self.backends[&row.id].duty.part(now, slow_start))).collect();
        let at_rest = parts.iter().all(|(_, part)| part % SLOW_START_STEPS == 0);
        let unit = if at_rest { SLOW_START_STEPS } else { 1 };
        parts.into_iter().map(|(row, part)| row.member(part / unit)).collect()
    }

    fn slow_start(&self, pool: PoolId) -> Duration {
        self.layout.pools.iter().find(|row| row.id == pool).map_or(Duration::ZERO, |row| row.slow_start)
    }

    /// Ends drains whose time is up and gives rising backends more of their share.
    pub(super) fn advance_backends(&mut self, now: Duration) -> Result<(), MapError> {
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
}

/// Packets of a pool's survivors that found no room for an entry.
fn pinned_full(balancer: &Balancer, layout: &Layout, pool: PoolId) -> Result<u64, MapError> {
    let name = layout.pools.iter().find(|row| row.id == pool).map(|row| &row.name);
    let vips = layout.vips.iter().filter(|vip| Some(&vip.pool) == name);
    let mut packets = 0;
    for vip in vips {
        let counters = balancer.counters.read(counter_index(vip.id, Reason::PinnedFull))?;
        packets += counters.iter().map(|counter| counter.packets).sum::<u64>();
    }
    Ok(packets)
}

fn write_slots(balancer: &mut Balancer, pool: PoolId, ring: &Ring, changed: &[u32]) -> Result<(), MapError> {
    balancer.rings.write(pool, ring.transitions.slots(), changed)
}
