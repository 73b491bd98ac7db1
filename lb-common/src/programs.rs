//! The programs that the balancer is made of: the one that is attached, and those that it goes on to.

use crate::steer::Kind;

/// A program that the attached one goes on to, by its index in the table of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Program {
    /// For TCP and UDP of every kind.
    Transport,
    /// For ICMP.
    Icmp,
    /// For the answers that Weir gives itself.
    Answer,
}

/// How many there are.
pub const COUNT: usize = 3;

/// The program that is attached to the interface.
pub const ENTRY: &str = "weir_balancer";

impl Program {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; COUNT] = [Self::Transport, Self::Icmp, Self::Answer];

    /// The program that is ready for packets of a kind.
    #[inline(always)]
    pub const fn of(kind: Kind) -> Self {
        match kind {
            Kind::Common | Kind::Uncommon => Self::Transport,
            Kind::Icmp => Self::Icmp,
        }
    }

    /// Its name in the object.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transport => "weir_transport",
            Self::Icmp => "weir_icmp",
            Self::Answer => "weir_answer",
        }
    }
}
