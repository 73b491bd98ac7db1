//! What balancers of a fleet tell each other: how an event is told by the one that saw it, and how another one enters it
//! into its own tables, by the rules of the data path.
//!
//! Nothing that is told takes a token or a flow from the backend that holds it.

use crate::{
    ids::{BackendId, FlowHash, PoolId, Tick, Token},
    reason::Reason,
    steer::learn,
    tables::{Exception, FlowEntry, Holder, InsertError, Tables, TokenKey},
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The program that enters what others have told, an [`Event`] for each run.
pub const ENTER: &str = "weir_enter";

/// A token has been learned, or a flow has joined on another backend than the ring's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// The first subflow of the connection, or the flow that has joined; 0 where an agent tells of a token.
    pub flow: FlowHash,
    /// The token's four bytes, or the initial sequence number of the flow.
    pub value: u32,
    /// When.
    pub at: Tick,
    /// The pool.
    pub pool: PoolId,
    /// Where the connection lives.
    pub backend: BackendId,
    /// One of the constants below.
    pub kind: u16,
    #[doc(hidden)]
    pub reserved: u16,
}

const _: () = assert!(size_of::<Event>() == 24);

impl Event {
    /// A token has been learned just now.
    pub const LEARNED: u16 = 1;
    /// A flow has joined.
    pub const JOINED: u16 = 2;
    /// A token is recalled that was learned or reported earlier.
    pub const RECALLED: u16 = 3;

    /// A connection holds a token.
    #[inline(always)]
    pub const fn learned(key: &TokenKey, holder: &Holder) -> Self {
        Self {
            flow: holder.flow,
            value: u32::from_ne_bytes(key.token.to_wire()),
            at: holder.since,
            pool: key.pool,
            backend: holder.backend,
            kind: Self::LEARNED,
            reserved: 0,
        }
    }

    /// What stands in these bytes.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; size_of::<Self>()]) -> Self {
        zerocopy::transmute!(bytes)
    }

    /// The token.
    #[inline(always)]
    pub const fn token(&self) -> Token {
        Token::from_wire(self.value.to_ne_bytes())
    }

    /// A flow has an entry as a joined one.
    #[inline(always)]
    pub const fn joined(pool: PoolId, flow: FlowHash, entry: &FlowEntry) -> Self {
        Self {
            flow,
            value: entry.sequence,
            at: entry.seen,
            pool,
            backend: entry.backend,
            kind: Self::JOINED,
            reserved: 0,
        }
    }
}

/// What became of what another has told; the number is what the program returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Entered {
    /// It was no event.
    Malformed = 0,
    /// It is entered.
    New,
    /// It was known.
    Known,
    /// Another backend holds the token too, which is ambiguous now.
    Ambiguous,
    /// Another backend has a live flow of this name.
    Held,
    /// The table is full.
    Full,
}

impl Entered {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [Self::Malformed, Self::New, Self::Known, Self::Ambiguous, Self::Held, Self::Full];

    /// The one of a number that the program returned.
    pub const fn from_number(number: u32) -> Self {
        let number = number as usize;
        if number < Self::ALL.len() { Self::ALL[number] } else { Self::Malformed }
    }
}

/// Tells others of what has been entered here, if there are any.
#[inline(always)]
pub(crate) fn tell<T: Tables + ?Sized>(tables: &mut T, event: &Event) {
    if tables.globals().is_some_and(|globals| globals.tells != 0) {
        tables.tell(event);
    }
}

/// Enters what another has told.
#[inline(always)]
pub fn enter<T: Tables>(tables: &mut T, event: &Event) -> Entered {
    match event.kind {
        Event::LEARNED | Event::RECALLED => enter_token(tables, event),
        Event::JOINED => enter_flow(tables, event),
        _ => Entered::Malformed,
    }
}

/// What is recalled may be older than what is known here.
#[inline(always)]
fn enter_token<T: Tables>(tables: &mut T, event: &Event) -> Entered {
    let key = TokenKey::new(event.pool, event.token());
    let holder = Holder { flow: event.flow, since: tables.now(), backend: event.backend, state: Holder::OPEN };
    if let Some(entry) = tables.token(&key) {
        for known in &entry.holders {
            let is_same = known.is_some() && known.backend == holder.backend && known.state != Holder::CROWD;
            if is_same && (known.flow == holder.flow || event.kind == Event::RECALLED || holder.flow == FlowHash(0)) {
                return Entered::Known;
            }
        }
    }
    match learn::hold(tables, &key, holder) {
        Reason::Learned => Entered::New,
        Reason::LearnFull => Entered::Full,
        _ => Entered::Ambiguous,
    }
}

/// A flow whose entry nobody uses any more gives way; one of the same connection is kept from ageing while its packets go
/// through another balancer.
#[inline(always)]
fn enter_flow<T: Tables>(tables: &mut T, event: &Event) -> Entered {
    let entry = FlowEntry {
        sequence: event.value,
        seen: tables.now(),
        backend: event.backend,
        state: FlowEntry::OPEN | FlowEntry::UNPROVEN,
    };
    if let Some(known) = tables.entry(event.flow) {
        if known.backend == entry.backend && known.sequence == entry.sequence {
            known.seen = entry.seen;
            return Entered::Known;
        }
        if known.state & (FlowEntry::CLOSED | FlowEntry::CONTESTED) == 0 {
            return Entered::Held;
        }
        *known = entry;
        return Entered::New;
    }
    match tables.insert_entry(Exception::Joined, event.flow, entry) {
        Ok(()) => Entered::New,
        Err(InsertError::Exists) => Entered::Known,
        Err(InsertError::Full) => Entered::Full,
    }
}
