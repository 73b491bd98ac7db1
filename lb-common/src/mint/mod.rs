//! Minting on a backend: which SYN is answered in the kernel's place, with an MPTCP key that was chosen beforehand, how, and
//! what becomes of keys that nobody has chosen.
//!
//! The answer is a SYN cookie that the kernel accepts as its own, so nothing is kept: the kernel takes the key from the
//! client's echo. A SYN that a cookie cannot do justice to is the kernel's own. It must never touch a join.

mod answer;
mod offer;
mod plain;

pub use answer::{ANSWER_LEN, Syn};
pub use offer::Offer;
pub use plain::{Capable, judge};

use crate::wire::ip::Address;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An MPTCP key as it goes over the wire.
pub type Key = [u8; 8];

/// Where clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Service {
    address: Address,
    port: u32,
}
const _: () = assert!(size_of::<Service>() == 20);

impl Service {
    /// An address and a port.
    #[inline(always)]
    pub const fn new(address: Address, port: u16) -> Self {
        Self { address, port: port as u32 }
    }
}

/// What an answer has to say in the name of a service's listener, and until when it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// The kernel's monotonic clock from which on nothing is minted, in nanoseconds.
    pub until: u64,
    /// The MSS.
    pub mss: u16,
    /// The receive window, not scaled.
    pub window: u16,
    /// By how many bits the listener's windows are shifted.
    pub wscale: u8,
    /// See the constants.
    pub flags: u8,
    /// Always 0.
    pub zero: u16,
}
const _: () = assert!(size_of::<Listener>() == 16);

impl Listener {
    /// It takes selective acknowledgments.
    pub const SACK: u8 = 1;
    /// It scales windows.
    pub const WSCALE: u8 = 2;
    /// It takes part in explicit congestion notification.
    pub const ECN: u8 = 4;
    /// It asks for checksums of MPTCP's own.
    pub const CHECKSUM: u8 = 8;
    /// Its clients are not to join at the address and port that they connected to.
    pub const NO_JOIN_HERE: u8 = 16;

    #[inline(always)]
    const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// What became of a handshake that offers MPTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mint {
    /// Its SYN was answered with a key.
    Minted,
    /// The listener may have no cookies now.
    Paused,
    /// Its SYN has something that a cookie cannot carry.
    NotCarried,
    /// The kernel has a connection between the same addresses and ports, or the rest of one.
    HasSocket,
    /// There is no route to its client, or none by a device of Ethernet's.
    NoRoute,
    /// No key was left.
    NoKey,
    /// More answers are out than there is room for, or the kernel refused one of the steps.
    Refused,
    /// The kernel's own SYN/ACK lost its MPTCP option.
    Plain,
    /// A SYN/ACK was dropped, for its option could not be taken away.
    Dropped,
}

impl Mint {
    /// How many outcomes there are.
    pub const COUNT: usize = 9;
    /// All of them, in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Minted,
        Self::Paused,
        Self::NotCarried,
        Self::HasSocket,
        Self::NoRoute,
        Self::NoKey,
        Self::Refused,
        Self::Plain,
        Self::Dropped,
    ];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minted => "minted",
            Self::Paused => "paused",
            Self::NotCarried => "not_carried",
            Self::HasSocket => "has_socket",
            Self::NoRoute => "no_route",
            Self::NoKey => "no_key",
            Self::Refused => "refused",
            Self::Plain => "plain",
            Self::Dropped => "dropped",
        }
    }
}

#[cfg(test)]
mod tests;
