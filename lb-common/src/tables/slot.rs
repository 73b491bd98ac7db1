//! A ring's slots: who takes new connections there, and who has those of before a change. Two words of a map hold one.

use crate::{ids::BackendId, limits::BACKENDS_MAX, rekey::Rotation};

/// Slots of a ring: a prime, and large enough for 1 % accuracy with hundreds of backends (Maglev, NSDI 2016, 5.3).
pub const RING_SLOTS: u32 = 65_537;

const _: () = assert!(BACKENDS_MAX <= Slot::ID as u32);

/// A slot of a ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    owner: u16,
    previous: u16,
}

/// Slots that lie together in a map, as one of their two words: a cache line.
pub type SlotWords = [u16; SLOTS_PER_CHUNK as usize];

/// How many.
pub const SLOTS_PER_CHUNK: u32 = 32;

/// Chunks of a ring.
pub const RING_CHUNKS: u32 = RING_SLOTS.div_ceil(SLOTS_PER_CHUNK);

impl Slot {
    /// An id has 13 bits. Of the other three of the owner's word, this one says that there is a previous owner: only then
    /// is the other word looked at.
    const IN_TRANSITION: u16 = 1 << 15;
    /// In the previous owner's word: see [`Self::pins`].
    const PINS: u16 = 1 << 15;
    /// Likewise: see [`Self::keeps_datagrams`].
    const KEEPS_DATAGRAMS: u16 = 1 << 14;
    /// In the owner's word, and in no table: see [`Self::after`].
    const OF_TWO: u16 = 1 << 14;
    const ID: u16 = (1 << 13) - 1;

    /// The slot of these words; `previous` is asked for only if it matters.
    #[inline(always)]
    pub fn from_words(owner: u16, previous: impl FnOnce() -> Option<u16>) -> Option<Self> {
        let previous = if owner & Self::IN_TRANSITION != 0 { previous()? } else { 0 };
        Some(Self { owner, previous })
    }

    /// The owner's word and the previous owner's.
    pub const fn words(self) -> [u16; 2] {
        [self.owner, self.previous]
    }

    /// A slot that no change has touched.
    pub const fn settled(owner: BackendId) -> Self {
        Self { owner: owner.0, previous: 0 }
    }

    /// A slot whose connections without an entry are its previous owner's.
    pub const fn in_transition(owner: BackendId, previous: BackendId) -> Self {
        Self { owner: owner.0 | Self::IN_TRANSITION, previous: previous.0 }
    }

    /// Who takes new connections.
    #[inline(always)]
    pub const fn owner(self) -> BackendId {
        BackendId(self.owner & Self::ID)
    }

    /// Who took new connections before the change, while the slot is in transition; else none.
    #[inline(always)]
    pub const fn previous(self) -> BackendId {
        BackendId(self.previous & Self::ID)
    }

    /// Whether connections of two owners may be open here.
    #[inline(always)]
    pub const fn is_in_transition(self) -> bool {
        self.owner & Self::IN_TRANSITION != 0
    }

    /// Whether the transition is about to end: what is still open at the previous owner gets an entry.
    #[inline(always)]
    pub const fn pins(self) -> bool {
        self.previous & Self::PINS != 0
    }

    /// The same slot, about to end its transition.
    #[must_use]
    pub const fn pinning(self) -> Self {
        Self { owner: self.owner, previous: self.previous | Self::PINS }
    }

    /// Whether the change is so young that a datagram of an unknown flow is the previous owner's: UDP has no SYN to tell.
    #[inline(always)]
    pub const fn keeps_datagrams(self) -> bool {
        self.previous & Self::KEEPS_DATAGRAMS != 0
    }

    /// The same slot, whose unknown datagrams are the previous owner's.
    #[must_use]
    pub const fn keeping_datagrams(self) -> Self {
        Self { owner: self.owner, previous: self.previous | Self::KEEPS_DATAGRAMS }
    }

    /// The same slot, whose unknown datagrams are the owner's.
    #[must_use]
    pub const fn moving_datagrams(self) -> Self {
        Self { owner: self.owner, previous: self.previous & !Self::KEEPS_DATAGRAMS }
    }

    /// Whether a connection of `backend` in this slot needs no entry, now and when the transition is over.
    #[inline(always)]
    pub fn answers_for(self, backend: BackendId) -> bool {
        self.owner & Self::OF_TWO == 0 && self.established() == backend && (!self.pins() || self.owner() == backend)
    }

    /// The slot of a flow whose slot was `before` under the former cluster key, while that is rotated out: a slot in
    /// transition, from whoever has the connections of the one to who takes those of the other. It answers for no
    /// connection without an entry, for either slot may turn to another backend, unless both are settled on one.
    #[inline(always)]
    #[must_use]
    pub fn after(self, before: Self, rotation: Rotation) -> Self {
        let owner = self.owner();
        if !self.is_in_transition() && !before.is_in_transition() && owner == before.owner() {
            return self;
        }
        let pins = if rotation.pins() || before.pins() { Self::PINS } else { 0 };
        let keeps = if rotation.keeps_datagrams() { Self::KEEPS_DATAGRAMS } else { 0 };
        let previous = before.established().0 | pins | keeps;
        Self { owner: owner.0 | Self::IN_TRANSITION | Self::OF_TWO, previous }
    }

    /// Who has the connections of this slot that nothing else is known of.
    #[inline(always)]
    pub const fn established(self) -> BackendId {
        if self.is_in_transition() { self.previous() } else { self.owner() }
    }
}
