//! The names of things, as numbers that cannot be mixed up.

use core::fmt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($number:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
        )]
        #[repr(transparent)]
        pub struct $name(pub $number);
    };
}

id! {
    /// A pool of backends: the index of its ring.
    PoolId(u16)
}
id! {
    /// A backend: the index of its entry. 0 is no backend; the largest has 13 bits.
    BackendId(u16)
}
id! {
    /// A VIP: the row of its counters. 0 counts the packets that are for no VIP.
    VipId(u16)
}
id! {
    /// The keyed hash of a 5-tuple.
    FlowHash(u64)
}
id! {
    /// Kernel time since boot in units of 2^30 ns (1.07 s): what a shift gives where BPF has no cheap division.
    Tick(u32)
}

impl BackendId {
    /// The owner of a slot in an empty pool.
    pub const NONE: Self = Self(0);

    /// Whether this names a backend at all.
    pub const fn is_some(self) -> bool {
        self.0 != 0
    }
}

impl VipId {
    /// The row that counts what is for no VIP.
    pub const NONE: Self = Self(0);
}

impl Tick {
    /// Nanoseconds in a tick.
    pub const NANOS: u64 = 1 << 30;

    /// The tick in which an instant of the kernel's monotonic clock falls.
    #[inline(always)]
    pub const fn from_nanos(nanos: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "136 years")]
        Self((nanos / Self::NANOS) as u32)
    }

    /// Ticks since an earlier one.
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// MPTCP's 32-bit name of a connection at one host: the first word of a digest of that host's key (RFC 8684, 3.1).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Token([u8; 4]);

impl Token {
    /// From the four bytes as they stand in `MP_JOIN`.
    #[inline(always)]
    pub const fn from_wire(bytes: [u8; 4]) -> Self {
        Self(bytes)
    }

    /// The four bytes as they stand in `MP_JOIN`.
    #[inline(always)]
    pub const fn to_wire(self) -> [u8; 4] {
        self.0
    }

    /// The number that `ss -M` and `ip mptcp monitor` print in hexadecimal.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        u32::from_be_bytes(self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({:08x})", self.number())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.number())
    }
}
