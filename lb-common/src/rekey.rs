//! How the cluster key is changed under live connections: for a while each flow has two names and two slots, one by each key.
//!
//! The former key decides for the connections that are open, the present one for those that begin: together the two slots of
//! a flow are one slot in transition ([`Slot::after`](crate::tables::Slot::after)). What is remembered under the former name
//! is taken over to the present one when the flow's next packet comes, so that nothing needs the former key in the end.

use crate::{
    ids::{BackendId, FlowHash, PoolId},
    recent::Bucket,
    share::{self, Event},
    tables::{Exception, InsertError, Slot, Tables},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Which of two keys holds, and how far the rotation from the other one is. One word, so that no packet sees half of a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Rotation(u32);

impl Rotation {
    const INDEX: u32 = 1;
    const UNDER_WAY: u32 = 2;
    const PINS: u32 = 4;
    const KEEPS_DATAGRAMS: u32 = 8;

    /// The owner of the window's slot before the rotation, and after.
    pub const BEFORE: BackendId = BackendId(1);
    /// See [`Self::BEFORE`].
    pub const AFTER: BackendId = BackendId(2);

    /// The key of this index, 0 or 1, holds, and no flow is named by another.
    pub const fn settled(index: u32) -> Self {
        Self(index & Self::INDEX)
    }

    /// The same key, while `window`, a slot that stands for the time that this takes, is in transition.
    #[must_use]
    pub const fn within(self, window: Slot) -> Self {
        let mut word = self.0 & Self::INDEX;
        if window.is_in_transition() {
            word |= Self::UNDER_WAY;
            if window.pins() {
                word |= Self::PINS;
            }
            if window.keeps_datagrams() {
                word |= Self::KEEPS_DATAGRAMS;
            }
        }
        Self(word)
    }

    /// The slot that stands for the time that the rotation takes, as [`Self::within`] took it.
    pub const fn window(self) -> Slot {
        if !self.is_under_way() {
            return Slot::settled(Self::AFTER);
        }
        let window = Slot::in_transition(Self::AFTER, Self::BEFORE);
        let window = if self.pins() { window.pinning() } else { window };
        if self.keeps_datagrams() { window.keeping_datagrams() } else { window }
    }

    /// The index of the key that holds.
    #[inline(always)]
    pub const fn index(self) -> usize {
        (self.0 & Self::INDEX) as usize
    }

    /// Whether flows of the former key are still about.
    #[inline(always)]
    pub const fn is_under_way(self) -> bool {
        self.0 & Self::UNDER_WAY != 0
    }

    /// Whether that is about to end: see [`Slot::pins`].
    #[inline(always)]
    pub const fn pins(self) -> bool {
        self.0 & Self::PINS != 0
    }

    /// See [`Slot::keeps_datagrams`].
    #[inline(always)]
    pub const fn keeps_datagrams(self) -> bool {
        self.0 & Self::KEEPS_DATAGRAMS != 0
    }
}

/// The hashes of a flow under the key that holds, and under the former one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// Under the key that holds.
    pub present: FlowHash,
    /// Under the former one.
    pub former: FlowHash,
}

/// What a packet says of the memory that there may be of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It opens a connection, of which nothing but the entry of an older one can be known.
    Opening,
    /// It belongs to a connection.
    Segment,
    /// It is a datagram, or about one.
    Datagram,
}

impl Kind {
    /// The kind of this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Opening,
            1 => Self::Segment,
            _ => Self::Datagram,
        }
    }
}

const KINDS: [Exception; 3] = [Exception::Joined, Exception::Moved, Exception::Pinned];

/// Takes over what is known of a flow under its former name. Whether the flow goes on by that nevertheless: its entry found no
/// room under the present one.
#[inline(always)]
pub fn goes_by_former<T: Tables + ?Sized>(tables: &mut T, names: Names, pool: PoolId, kind: Kind) -> bool {
    if tables.may_have_entry(names.former) && tables.entry(names.present).is_none() {
        for kind in KINDS {
            if take_over_entry(tables, names, pool, kind).is_err() {
                return true;
            }
        }
    }
    match kind {
        Kind::Datagram => take_over_recent(tables, Memory::Datagrams, names),
        Kind::Segment => {
            take_over_recent(tables, Memory::Embryonic, names);
            take_over_recent(tables, Memory::Pending, names);
        }
        Kind::Opening => {}
    }
    false
}

/// Moves an entry to the present name. Others are told of a joined flow's as if it had just joined.
#[inline(always)]
fn take_over_entry<T: Tables + ?Sized>(
    tables: &mut T,
    Names { present, former }: Names,
    pool: PoolId,
    kind: Exception,
) -> Result<(), InsertError> {
    let Some(entry) = tables.entry_of(kind, former) else { return Ok(()) };
    match tables.insert_entry(kind, present, entry) {
        Err(InsertError::Full) => return Err(InsertError::Full),
        Ok(()) if kind == Exception::Joined => share::tell(tables, &Event::joined(pool, present, &entry)),
        Ok(()) | Err(InsertError::Exists) => {}
    }
    tables.remove_entry(former);
    Ok(())
}

/// What strangers can fill, where something may be remembered of a flow.
#[derive(Clone, Copy)]
enum Memory {
    Embryonic,
    Pending,
    Datagrams,
}

#[inline(always)]
fn bucket<T: Tables + ?Sized>(tables: &mut T, memory: Memory, flow: FlowHash) -> Option<&mut Bucket> {
    match memory {
        Memory::Embryonic => tables.embryonic(flow),
        Memory::Pending => tables.pending(flow),
        Memory::Datagrams => tables.datagrams(flow),
    }
}

/// Moves what is remembered of a flow to its present name, unless something newer is there.
#[inline(always)]
fn take_over_recent<T: Tables + ?Sized>(tables: &mut T, memory: Memory, Names { present, former }: Names) {
    let Some(known) = bucket(tables, memory, former).and_then(|bucket| bucket.take(former)) else { return };
    if let Some(bucket) = bucket(tables, memory, present)
        && bucket.find(present).is_none()
    {
        bucket.insert(known.renamed(present));
    }
}
