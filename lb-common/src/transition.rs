//! How a ring changes under live connections: a slot whose owner changes remembers the first owner of the connections
//! that it may still have, until its window ends.
//!
//! Nothing here reads a clock or a table; the controller does, and writes to the kernel the slots that this names.

use crate::{ids::BackendId, tables::Slot};
use std::time::Duration;

/// The last part of a window, in which survivors are given entries: one tenth.
const PINNING_PART: u32 = 10;

/// A pool's ring with the windows of its slots. Time is any clock that only goes forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transitions {
    slots: Vec<Slot>,
    /// When each slot's window ends, and when its survivors begin to be pinned; meaningless for a settled slot.
    windows: Vec<Window>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    pins_at: Duration,
    ends_at: Duration,
}

impl Transitions {
    /// A ring that no connection has used yet.
    pub fn settled(owners: &[u16]) -> Self {
        let slots = owners.iter().map(|&owner| Slot::settled(BackendId(owner))).collect();
        Self { slots, windows: vec![Window::default(); owners.len()] }
    }

    /// The slots as they are.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// How many slots are in transition.
    pub fn in_transition(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_in_transition()).count()
    }

    /// Whether a backend owns a slot, or has owned one whose window is open.
    pub fn mentions(&self, backend: BackendId) -> bool {
        self.slots.iter().any(|slot| slot.owner == backend || slot.previous() == backend)
    }

    /// When the last window ends; none where all slots are settled.
    pub fn ends_at(&self) -> Option<Duration> {
        let open = self.slots.iter().zip(&self.windows).filter(|(slot, _)| slot.is_in_transition());
        open.map(|(_, window)| window.ends_at).max()
    }

    /// Gives the slots new owners. Returns the indices of the slots that are not what they were.
    ///
    /// A slot in transition keeps its first previous owner, for every flow of the owner between has an entry, and its
    /// window; only an owner that no longer `serves` is forgotten, with its connections.
    pub fn change(
        &mut self,
        owners: &[u16],
        now: Duration,
        length: Duration,
        serves: impl Fn(BackendId) -> bool,
    ) -> Vec<u32> {
        let ends_at = now + length;
        let opened = Window { pins_at: ends_at.saturating_sub(length / PINNING_PART), ends_at };
        let mut changed = Vec::new();
        for (index, &owner) in (0..).zip(owners) {
            let at = index as usize;
            let (before, owner) = (self.slots[at], BackendId(owner));
            let first = if before.is_in_transition() { before.previous() } else { before.owner };
            let settled = owner == before.owner && !before.is_in_transition();
            let after = if settled || !first.is_some() || !serves(first) {
                Slot::settled(owner)
            } else if before.pins() {
                Slot::in_transition(owner, first).pinning()
            } else {
                Slot::in_transition(owner, first)
            };
            if after == before {
                continue;
            }
            if after.is_in_transition() && !before.is_in_transition() {
                self.windows[at] = opened;
            }
            self.slots[at] = after;
            changed.push(index);
        }
        changed
    }

    /// Ends the windows that are over at once for a backend: those of a drained one whose time is up, or of a dead one.
    pub fn forget(&mut self, backend: BackendId) -> Vec<u32> {
        let slots =
            (0..).zip(&mut self.slots).filter(|(_, slot)| slot.is_in_transition() && slot.previous() == backend);
        slots.map(|(index, slot)| settle(index, slot)).collect()
    }

    /// Moves the windows on: slots in their last tenth begin to pin survivors, and slots whose window is over settle.
    /// While `pinned_is_full`, a window that would end is extended by a tenth of its length, so that no flow is broken.
    pub fn advance(&mut self, now: Duration, pinned_is_full: bool) -> Vec<u32> {
        let mut changed = Vec::new();
        for ((index, slot), window) in (0..).zip(&mut self.slots).zip(&mut self.windows) {
            if !slot.is_in_transition() || now < window.pins_at {
                continue;
            }
            let tenth = window.ends_at.saturating_sub(window.pins_at);
            if !slot.pins() {
                *slot = slot.pinning();
                window.ends_at = window.ends_at.max(now + tenth);
                window.pins_at = window.ends_at.saturating_sub(tenth);
                changed.push(index);
            } else if now >= window.ends_at {
                if pinned_is_full {
                    window.ends_at = now + tenth;
                    window.pins_at = now;
                } else {
                    changed.push(settle(index, slot));
                }
            }
        }
        changed
    }
}

fn settle(index: u32, slot: &mut Slot) -> u32 {
    *slot = Slot::settled(slot.owner);
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const ALL_SERVE: fn(BackendId) -> bool = |_| true;

    fn at(hours: u32) -> Duration {
        HOUR * hours
    }

    #[test]
    fn only_changed_slots_are_in_transition() {
        let mut ring = Transitions::settled(&[1, 2, 3]);
        assert_eq!(ring.change(&[1, 4, 3], at(0), HOUR, ALL_SERVE), [1]);
        assert_eq!(ring.slots()[1], Slot::in_transition(BackendId(4), BackendId(2)));
        assert_eq!(ring.in_transition(), 1);
        assert!(ring.mentions(BackendId(2)) && ring.mentions(BackendId(4)) && !ring.mentions(BackendId(5)));
    }

    #[test]
    fn a_further_change_keeps_the_first_previous_owner_and_its_window() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(2), ALL_SERVE);
        assert_eq!(ring.change(&[3], at(1), at(2), ALL_SERVE), [0]);
        assert_eq!(ring.slots()[0], Slot::in_transition(BackendId(3), BackendId(1)));
        assert_eq!(ring.ends_at(), Some(at(2)));
    }

    #[test]
    fn an_owner_that_comes_back_stays_in_transition_with_itself() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(2), ALL_SERVE);
        ring.change(&[1], at(1), at(2), ALL_SERVE);
        let slot = ring.slots()[0];
        assert_eq!((slot.owner, slot.established(), slot.is_in_transition()), (BackendId(1), BackendId(1), true));
    }

    #[test]
    fn a_dead_previous_owner_is_forgotten() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), HOUR, |backend| backend != BackendId(1));
        assert_eq!(ring.slots()[0], Slot::settled(BackendId(2)));
        let mut ring = Transitions::settled(&[1, 1]);
        ring.change(&[2, 1], at(0), HOUR, ALL_SERVE);
        assert_eq!(ring.forget(BackendId(1)), [0]);
        assert_eq!(ring.slots(), [Slot::settled(BackendId(2)), Slot::settled(BackendId(1))]);
    }

    #[test]
    fn an_empty_pool_has_nothing_to_remember() {
        let mut ring = Transitions::settled(&[0]);
        ring.change(&[2], at(0), HOUR, ALL_SERVE);
        assert_eq!(ring.slots()[0], Slot::settled(BackendId(2)));
    }

    #[test]
    fn a_window_pins_in_its_last_tenth_and_then_ends() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(10), ALL_SERVE);
        assert!(ring.advance(at(8), false).is_empty());
        assert_eq!(ring.advance(at(9), false), [0]);
        assert!(ring.slots()[0].pins());
        assert_eq!(ring.slots()[0].previous(), BackendId(1));
        assert!(ring.advance(at(10), true).is_empty(), "extended while there is no room for survivors");
        assert!(ring.slots()[0].pins());
        assert_eq!(ring.advance(at(11), false), [0]);
        assert_eq!(ring.slots()[0], Slot::settled(BackendId(2)));
    }

    #[test]
    fn a_late_caller_does_not_skip_the_pinning() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(10), ALL_SERVE);
        ring.advance(at(20), false);
        ring.advance(at(20), false);
        assert!(ring.slots()[0].pins(), "survivors had no chance to be pinned yet");
        ring.advance(at(21), false);
        assert!(!ring.slots()[0].is_in_transition());
    }
}
