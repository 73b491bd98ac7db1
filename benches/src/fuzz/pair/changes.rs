//! What a controller does in the course of a sequence, done in both worlds alike.

use super::Pair;
use crate::fuzz::{
    sequence::Change,
    touched::Touched,
    worlds::{
        KINDS, Memory, World as _,
        setup::{CLUSTER_KEY, SECOND_KEY},
    },
};
use lb_common::{
    hash::SipKey,
    host::HostTables,
    ids::{BackendId, PoolId, Tick},
    rekey::Rotation,
    tables::{self, Globals, RING_SLOTS, Slot},
};

/// The slot that stands for the time of a rotation.
const fn window(under_way: bool, pins: bool, keeps: bool) -> Slot {
    if !under_way {
        return Slot::settled(Rotation::AFTER);
    }
    let window = Slot::in_transition(Rotation::AFTER, Rotation::BEFORE);
    let window = if pins { window.pinning() } else { window };
    if keeps { window.keeping_datagrams() } else { window }
}

impl Pair {
    pub(super) fn change(&mut self, change: Change) {
        match change {
            Change::Gone(id) => {
                self.write_backend(id, tables::Backend::GONE);
                self.gone.insert(id);
            }
            Change::Back(id) => self.bring_back(id),
            Change::Slot { pool, slot, owner, previous, pins, keeps } => {
                let mut state = Slot::settled(BackendId(owner));
                if previous != 0 {
                    state = Slot::in_transition(BackendId(owner), BackendId(previous));
                    state = if pins { state.pinning() } else { state };
                    state = if keeps { state.keeping_datagrams() } else { state };
                }
                self.write_slot(PoolId(pool), slot, state);
                self.slots.push((PoolId(pool), slot));
            }
            Change::Key { second, under_way, pins, keeps } => {
                self.write_rotation(Rotation::settled(u32::from(second)).within(window(under_way, pins, keeps)));
            }
            Change::ForgetTokens => {
                for (key, _) in self.host.tables.tokens.drain() {
                    self.kernel.balancer.tokens.remove(key).expect("the kernel takes it out");
                }
            }
            Change::ForgetFlows => self.forget_flows(),
            Change::Age(ticks) => self.age(ticks),
        }
    }

    pub(super) fn bring_back(&mut self, id: u16) {
        if self.gone.remove(&id) {
            let backend = self.setup.backends.iter().find(|backend| backend.id == BackendId(id));
            self.write_backend(id, backend.expect("one of the setup").entry());
        }
    }

    fn write_backend(&mut self, id: u16, backend: tables::Backend) {
        self.host.write_backend(BackendId(id), backend);
        self.kernel.write_backend(BackendId(id), backend);
    }

    pub(super) fn write_slot(&mut self, pool: PoolId, slot: u32, state: Slot) {
        self.host.tables.slots[HostTables::slot_index(pool, slot)] = state;
        let first = HostTables::slot_index(pool, 0);
        let ring = &self.host.tables.slots[first..first + RING_SLOTS as usize];
        self.kernel.balancer.rings.write(pool, ring, &[slot]).expect("room for a ring");
    }

    pub(super) fn write_rotation(&mut self, rotation: Rotation) {
        let keys = [CLUSTER_KEY, SECOND_KEY].map(SipKey::from_bytes);
        let host = &mut self.host.tables.globals;
        (host.keys, host.rotation) = (keys, rotation);
        let kernel = &mut self.kernel.balancer.globals;
        let globals = kernel.read(0).expect("one element");
        kernel.write(0, Globals { keys, rotation, ..globals }).expect("one element");
    }

    pub(super) fn forget_flows(&mut self) {
        for kind in KINDS {
            for (flow, _) in self.host.tables.flows_mut(kind).drain() {
                self.kernel.flows(kind).remove(flow).expect("the kernel takes it out");
            }
        }
    }

    /// Has the last packet of every flow that is remembered come so many ticks earlier.
    fn age(&mut self, ticks: u32) {
        for place in &self.touched {
            match *place {
                Touched::Recent(Memory::Datagrams, flow) => {
                    let mut bucket = self.host.bucket(Memory::Datagrams, flow);
                    let Some(recent) = bucket.find(flow) else { continue };
                    recent.at = Tick(recent.at.0.wrapping_sub(ticks));
                    self.host.write_bucket(Memory::Datagrams, flow, bucket);
                    self.kernel.write_bucket(Memory::Datagrams, flow, bucket);
                }
                Touched::Entry(flow) => {
                    for kind in KINDS {
                        if self.host.tables.flows(kind).contains_key(&flow) {
                            self.host.age_entry(kind, flow, ticks);
                            self.kernel.age_entry(kind, flow, ticks);
                        }
                    }
                }
                _ => {}
            }
        }
    }
}
