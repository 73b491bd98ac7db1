//! Which packets a decision is ready for.
//!
//! Nearly every packet is an untagged, unfragmented TCP segment or UDP datagram right behind a plain IP header. The kernel
//! decides those in a program of their own, in which all offsets are constants, and hands the others on to a second or a
//! third. It is the same code in each, with the questions left out whose answer is no; the host asks all of them.

use core::convert::Infallible;

/// What a packet is to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An untagged TCP segment or UDP datagram right behind an IP header without options, for a pool that reads no QUIC.
    Common,
    /// TCP or UDP with anything more around it.
    Uncommon,
    /// An ICMP message right behind its IP header, tagged or not.
    Icmp,
}

/// The packets that a decision is ready for.
pub trait Scope {
    /// What it answers for the others.
    type Beyond;

    /// Goes on with a packet of this kind, if it is within the scope.
    ///
    /// # Errors
    /// It is beyond.
    fn take(kind: Kind) -> Result<(), Self::Beyond>;
}

/// Every packet.
#[derive(Clone, Copy, Debug)]
pub struct All;

impl Scope for All {
    type Beyond = Infallible;

    #[inline(always)]
    fn take(_: Kind) -> Result<(), Infallible> {
        Ok(())
    }
}

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $kind:pat,)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name;

        impl Scope for $name {
            type Beyond = Kind;

            #[inline(always)]
            fn take(kind: Kind) -> Result<(), Kind> {
                if matches!(kind, $kind) { Ok(()) } else { Err(kind) }
            }
        }
    )+};
}

scopes! {
    /// The packets of [`Kind::Common`].
    Common = Kind::Common,
    /// All TCP and UDP.
    Transport = Kind::Common | Kind::Uncommon,
    /// ICMP.
    Icmp = Kind::Icmp,
}
