//! How a ring changes under live connections: a slot whose owner changes remembers the first owner of the connections
//! that it may still have, until its window ends.
//!
//! Nothing here reads a clock or a table; the controller does, and writes to the kernel the slots that this names.

use crate::{ids::BackendId, tables::Slot};
use std::time::Duration;

/// The last part of a window, in which survivors are given entries: eight ninths. Of the default of 2 h 15 min that is two
/// hours, so that a connection that only the usual TCP keepalive moves shows itself there once.
const PINNING: (u32, u32) = (8, 9);
/// The part of a window that handshakes under way at a further change are given: one tenth.
const GRACE_PART: u32 = 10;

/// A pool's ring with the windows of its slots. Time is any clock that only goes forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transitions {
    slots: Vec<Slot>,
    /// Meaningless for a settled slot.
    windows: Vec<Window>,
    /// How long after a change the datagrams of unknown flows are the previous owner's.
    datagrams: Duration,
    /// When the next window has to be looked at; none where all slots are settled.
    due_at: Option<Duration>,
}

/// The time in which a slot is in transition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Window {
    /// When survivors begin to be pinned.
    pins_at: Duration,
    ends_at: Duration,
    /// How long it was to be.
    length: Duration,
    /// It lasts longer than it was to, because survivors found no room.
    is_extended: bool,
    /// When datagrams of unknown flows begin to be the owner's.
    moves_datagrams_at: Duration,
}

/// What the slots of a ring do not say of their windows: times that none of them goes beyond. A ring that is resumed
/// with these ends no window sooner than it would have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deadlines {
    /// How long the longest window was to be.
    pub length: Duration,
    /// When the last of them begins to pin survivors.
    pub pins_at: Duration,
    /// When the last of them ends.
    pub ends_at: Duration,
    /// When the last datagrams of unknown flows begin to be the owner's.
    pub moves_datagrams_at: Duration,
    /// Whether one lasts longer than it was to.
    pub is_extended: bool,
}

impl Window {
    fn opened(now: Duration, length: Duration) -> Self {
        let ends_at = now + length;
        let mut window = Self { ends_at, length, ..Self::default() };
        window.pins_at = ends_at.saturating_sub(window.pinning_time());
        window
    }

    /// A handshake that the owner before has begun needs the slot to be in transition when it ends.
    fn keep_open(&mut self, now: Duration) {
        self.ends_at = self.ends_at.max(now + self.length / GRACE_PART);
    }

    fn pinning_time(&self) -> Duration {
        self.length / PINNING.1 * PINNING.0
    }
}

/// What a change does to a slot.
enum Turn {
    /// Nothing.
    Stays,
    /// The slot is another; a window that was open stays as it is, but for the handshakes under way.
    Becomes(Slot),
    /// The slot is another, and connections without an entry have a whole window ahead of them.
    Opens(Slot),
}

impl Transitions {
    /// A ring that no connection has used yet.
    pub fn settled(owners: &[u16]) -> Self {
        let slots = owners.iter().map(|&owner| Slot::settled(BackendId(owner))).collect();
        Self { slots, windows: vec![Window::default(); owners.len()], datagrams: Duration::ZERO, due_at: None }
    }

    /// A ring whose slots stand in a table, as somebody else has left it, with the deadlines that were written down.
    pub fn resumed(slots: Vec<Slot>, deadlines: Deadlines) -> Self {
        let Deadlines { length, pins_at, ends_at, moves_datagrams_at, is_extended } = deadlines;
        let window = Window { pins_at, ends_at, length, is_extended, moves_datagrams_at };
        let windows = vec![window; slots.len()];
        let mut ring = Self { slots, windows, datagrams: Duration::ZERO, due_at: None };
        ring.note_due();
        ring
    }

    /// What is to be written down, so that somebody else can resume the ring; all zero where all slots are settled.
    pub fn deadlines(&self) -> Deadlines {
        self.open().fold(Deadlines::default(), |last, window| Deadlines {
            length: last.length.max(window.length),
            pins_at: last.pins_at.max(window.pins_at),
            ends_at: last.ends_at.max(window.ends_at),
            moves_datagrams_at: last.moves_datagrams_at.max(window.moves_datagrams_at),
            is_extended: last.is_extended || window.is_extended,
        })
    }

    /// Sets how long after a change the datagrams of unknown flows are the previous owner's: by default not at all.
    pub const fn keep_datagrams_for(&mut self, length: Duration) {
        self.datagrams = length;
    }

    /// The slots as they are.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// How many slots are in transition.
    pub fn in_transition(&self) -> usize {
        self.open().count()
    }

    /// How many of them are so for longer than they were to be, because survivors found no room.
    pub fn extended(&self) -> usize {
        self.open().filter(|window| window.is_extended).count()
    }

    /// Whether some slot gives entries to survivors.
    pub fn pins(&self) -> bool {
        self.due_at.is_some() && self.slots.iter().any(|slot| slot.pins())
    }

    /// Whether a backend owns a slot, or has owned one whose window is open.
    pub fn mentions(&self, backend: BackendId) -> bool {
        self.slots.iter().any(|slot| slot.owner() == backend || slot.previous() == backend)
    }

    /// When the last window ends; none where all slots are settled.
    pub fn ends_at(&self) -> Option<Duration> {
        self.open().map(|window| window.ends_at).max()
    }

    /// Gives the slots new owners. Returns the indices of the slots that are not what they were.
    ///
    /// A slot in transition keeps its first previous owner, for every flow of the owner between has an entry, and its
    /// window (or a tenth more, for the handshakes under way); only an owner that no longer `serves` is forgotten, with
    /// its connections. Where the owner has come back to be the first one, it has taken connections without an entry
    /// again: the next change opens a new window.
    pub fn change(
        &mut self,
        owners: &[u16],
        now: Duration,
        length: Duration,
        serves: impl Fn(BackendId) -> bool,
    ) -> Vec<u32> {
        let mut changed = Vec::new();
        for (index, &owner) in (0..).zip(owners) {
            let at = index as usize;
            let before = self.slots[at];
            match turn(before, BackendId(owner), &serves) {
                Turn::Stays => continue,
                Turn::Becomes(slot) => {
                    self.slots[at] = slot;
                    self.windows[at].keep_open(now);
                }
                Turn::Opens(slot) => {
                    self.slots[at] = slot;
                    self.windows[at] = Window::opened(now, length);
                }
            }
            let slot = self.slots[at];
            if slot.is_in_transition() && slot.owner() != before.owner() && !self.datagrams.is_zero() {
                self.slots[at] = slot.keeping_datagrams();
                self.windows[at].moves_datagrams_at = now + self.datagrams;
            }
            changed.push(index);
        }
        self.note_due();
        changed
    }

    /// Ends the windows that are over at once for a backend: those of a drained one whose time is up, or of a dead one.
    pub fn forget(&mut self, backend: BackendId) -> Vec<u32> {
        let slots =
            (0..).zip(&mut self.slots).filter(|(_, slot)| slot.is_in_transition() && slot.previous() == backend);
        let changed = slots.map(|(index, slot)| settle(index, slot)).collect();
        self.note_due();
        changed
    }

    /// Moves the windows on: slots in the last part of theirs begin to pin survivors, and slots whose window is over settle.
    ///
    /// `full_at` is when a survivor last found no room for its entry. From then on all have that part once more to
    /// show themselves, so that no flow is broken.
    pub fn advance(&mut self, now: Duration, full_at: Option<Duration>) -> Vec<u32> {
        let mut changed = Vec::new();
        if self.due_at.is_none_or(|due_at| now < due_at) {
            return changed;
        }
        for ((index, slot), window) in (0..).zip(&mut self.slots).zip(&mut self.windows) {
            if slot.keeps_datagrams() && now >= window.moves_datagrams_at {
                *slot = slot.moving_datagrams();
                changed.push(index);
            }
            if !slot.is_in_transition() || now < window.pins_at {
                continue;
            }
            let pinning = window.pinning_time();
            if !slot.pins() {
                *slot = slot.pinning();
                window.ends_at = window.ends_at.max(now + pinning);
                if changed.last() != Some(&index) {
                    changed.push(index);
                }
            } else if now >= window.ends_at {
                match full_at {
                    Some(full_at) if now < full_at + pinning => {
                        *window = Window { pins_at: full_at, ends_at: full_at + pinning, is_extended: true, ..*window };
                    }
                    _ if changed.last() == Some(&index) => *slot = Slot::settled(slot.owner()),
                    _ => changed.push(settle(index, slot)),
                }
            }
        }
        self.note_due();
        changed
    }

    /// The windows of the slots in transition.
    fn open(&self) -> impl Iterator<Item = &Window> {
        self.slots.iter().zip(&self.windows).filter(|(slot, _)| slot.is_in_transition()).map(|(_, window)| window)
    }

    fn note_due(&mut self) {
        let open = self.slots.iter().zip(&self.windows).filter(|(slot, _)| slot.is_in_transition());
        let due = |(slot, window): (&Slot, &Window)| {
            let pins_or_ends_at = if slot.pins() { window.ends_at } else { window.pins_at };
            if slot.keeps_datagrams() { pins_or_ends_at.min(window.moves_datagrams_at) } else { pins_or_ends_at }
        };
        self.due_at = open.map(due).min();
    }
}

/// What becomes of a slot that `owner` is to own.
fn turn(before: Slot, owner: BackendId, serves: impl Fn(BackendId) -> bool) -> Turn {
    if !before.is_in_transition() && owner == before.owner() {
        return Turn::Stays;
    }
    let first = [before.previous(), before.owner()].into_iter().find(|&backend| backend.is_some() && serves(backend));
    let (after, opens) = match first {
        Some(first) if first == before.previous() && (before.owner() != first || owner == first) => {
            let after = Slot::in_transition(owner, first);
            let after = if before.pins() { after.pinning() } else { after };
            (if before.keeps_datagrams() { after.keeping_datagrams() } else { after }, false)
        }
        Some(first) if first != owner => (Slot::in_transition(owner, first), true),
        _ => (Slot::settled(owner), false),
    };
    match (after == before, opens) {
        (true, _) => Turn::Stays,
        (false, false) => Turn::Becomes(after),
        (false, true) => Turn::Opens(after),
    }
}

fn settle(index: u32, slot: &mut Slot) -> u32 {
    *slot = Slot::settled(slot.owner());
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
        assert_eq!((slot.owner(), slot.established(), slot.is_in_transition()), (BackendId(1), BackendId(1), true));
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
    fn datagrams_stay_for_a_shorter_time() {
        let mut ring = Transitions::settled(&[1, 2]);
        ring.keep_datagrams_for(at(1));
        ring.change(&[2, 2], at(0), at(20), ALL_SERVE);
        assert!(ring.slots()[0].keeps_datagrams() && !ring.slots()[1].keeps_datagrams());
        assert_eq!(ring.advance(at(1), None), [0]);
        assert!(ring.slots()[0].is_in_transition() && !ring.slots()[0].keeps_datagrams());
        assert_eq!(ring.change(&[3, 2], at(2), at(20), ALL_SERVE), [0]);
        assert!(ring.slots()[0].keeps_datagrams(), "each change begins the time anew");
        assert_eq!(ring.change(&[3, 3], at(2), at(20), ALL_SERVE), [1]);
        assert!(ring.slots()[0].keeps_datagrams());
        assert_eq!(ring.advance(at(30), None), [0, 1]);
        assert!(!ring.slots()[0].keeps_datagrams() && ring.slots()[0].pins());
    }

    #[test]
    fn a_resumed_ring_goes_on_where_it_was() {
        let mut ring = Transitions::settled(&[1, 2, 3]);
        ring.keep_datagrams_for(at(2));
        ring.change(&[4, 2, 3], at(0), at(9), ALL_SERVE);
        let mut resumed = Transitions::resumed(ring.slots().to_vec(), ring.deadlines());
        assert_eq!((resumed.ends_at(), resumed.in_transition()), (Some(at(9)), 1));
        for hour in 0..10 {
            assert_eq!(resumed.advance(at(hour), None), ring.advance(at(hour), None), "hour {hour}");
            assert_eq!(resumed.slots(), ring.slots(), "hour {hour}");
        }
        assert_eq!((ring.deadlines(), resumed.ends_at()), (Deadlines::default(), None));
    }

    #[test]
    fn a_resumed_window_ends_with_the_last_one_and_never_sooner() {
        let mut ring = Transitions::settled(&[1, 1]);
        ring.change(&[2, 1], at(0), at(9), ALL_SERVE);
        ring.advance(at(1), None);
        ring.change(&[2, 2], at(5), at(9), ALL_SERVE);
        let mut resumed = Transitions::resumed(ring.slots().to_vec(), ring.deadlines());
        assert!(resumed.slots()[0].pins() && !resumed.slots()[1].pins());
        assert_eq!((ring.advance(at(9), None), resumed.advance(at(9), None)), (vec![0, 1], vec![1]));
        assert_eq!((ring.advance(at(14), None), resumed.advance(at(14), None)), (vec![], vec![0]));
        assert_eq!((ring.advance(at(17), None), resumed.advance(at(17), None)), (vec![1], vec![1]));
    }

    #[test]
    fn an_empty_pool_has_nothing_to_remember() {
        let mut ring = Transitions::settled(&[0]);
        ring.change(&[2], at(0), HOUR, ALL_SERVE);
        assert_eq!(ring.slots()[0], Slot::settled(BackendId(2)));
    }

    #[test]
    fn a_window_pins_in_its_last_part_and_then_ends() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(9), ALL_SERVE);
        assert!(ring.advance(at(1) / 2, None).is_empty());
        assert_eq!(ring.advance(at(1), None), [0]);
        assert!(ring.slots()[0].pins());
        assert_eq!(ring.slots()[0].previous(), BackendId(1));
        assert!(ring.advance(at(8), None).is_empty());
        assert_eq!(ring.advance(at(9), None), [0]);
        assert_eq!(ring.slots()[0], Slot::settled(BackendId(2)));
    }

    #[test]
    fn a_late_caller_does_not_skip_the_pinning() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(9), ALL_SERVE);
        ring.advance(at(20), None);
        ring.advance(at(27), None);
        assert!(ring.slots()[0].pins(), "survivors had no chance to be pinned yet");
        ring.advance(at(28), None);
        assert!(!ring.slots()[0].is_in_transition());
    }

    #[test]
    fn survivors_without_room_have_that_part_once_more_from_then_on() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(18), ALL_SERVE);
        ring.advance(at(2), None);
        assert!(ring.advance(at(18), Some(at(17))).is_empty());
        assert_eq!((ring.slots()[0].pins(), ring.extended(), ring.ends_at()), (true, 1, Some(at(33))));
        assert_eq!(ring.advance(at(33), Some(at(17))), [0]);
        assert_eq!((ring.slots()[0], ring.extended()), (Slot::settled(BackendId(2)), 0));
    }

    #[test]
    fn who_owned_a_slot_again_has_a_new_window_when_it_leaves_again() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(10), ALL_SERVE);
        ring.advance(at(9), None);
        ring.change(&[1], at(9), at(10), ALL_SERVE);
        assert!(ring.slots()[0].pins());
        ring.change(&[3], at(9), at(10), ALL_SERVE);
        assert_eq!(ring.slots()[0], Slot::in_transition(BackendId(3), BackendId(1)));
        assert_eq!(ring.ends_at(), Some(at(19)));
    }

    #[test]
    fn a_change_at_the_end_of_a_window_leaves_time_for_handshakes() {
        let mut ring = Transitions::settled(&[1]);
        ring.change(&[2], at(0), at(10), ALL_SERVE);
        ring.advance(at(10) / 9, None);
        ring.change(&[3], at(10), at(10), ALL_SERVE);
        assert!(ring.advance(at(10), None).is_empty());
        assert_eq!(ring.advance(at(11), None), [0]);
    }

    #[test]
    fn when_the_first_owner_dies_the_one_between_is_not_forgotten() {
        let mut ring = Transitions::settled(&[1, 1]);
        ring.change(&[2, 2], at(0), at(10), ALL_SERVE);
        ring.change(&[3, 2], at(5), at(10), |backend| backend != BackendId(1));
        assert_eq!(ring.slots(), [Slot::in_transition(BackendId(3), BackendId(2)), Slot::settled(BackendId(2))]);
        assert_eq!(ring.ends_at(), Some(at(15)));
    }
}
