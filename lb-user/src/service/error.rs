//! Why a balancer could not be brought up or changed, in words for its operator.

use super::{ledger::Illegible, tokens::TokenConflict};
use crate::{
    bpf::{LedgerError, LoadError, PinError},
    config::KeyError,
    numbering::Exhausted,
};
use aya::{maps::MapError, sys::SyscallError};
use nix::errno::Errno;

/// Why a balancer could not be brought up or changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The programs or maps could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A table could not be read or written.
    #[error("the kernel refused an entry of Weir's tables: {0}")]
    Table(#[from] MapError),
    /// The pins cannot be used.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// Nothing can be written down for the next controller.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What the controller before this one has written down says nothing.
    #[error(transparent)]
    Illegible(#[from] Illegible),
    /// The tables are keyed otherwise.
    #[error(
        "the tables are kept under another cluster key than balancer.cluster_key_file has: every entry would be another \
         flow's; to change the key and keep all flows, put the former one into the file's second line, or put it back, or give the tables \
         up with `weir detach`, tokens and entries included, and start again"
    )]
    OtherKey,
    /// Two rotations of the key at a time would need three keys.
    #[error(
        "the cluster key cannot change again yet: flows of the one before are still kept; `weir status` tells for how long; put \
         the key back, and change it after that"
    )]
    RotationUnderWay,
    /// There is no key for the flow hash.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Too many things are in use.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
    /// Tokens would name other backends than they were made for.
    #[error(transparent)]
    Tokens(#[from] TokenConflict),
    /// A reload cannot change this.
    #[error("{0} cannot change while weir runs: restart it for that")]
    Fixed(&'static str),
    /// Nor this, nor a restart over the tables as they are.
    #[error(
        "[limits] cannot change while weir runs, nor by a restart alone, for the tables would be other ones: put them back, or \
         `weir drain-self`, stop weir, `weir detach`, which gives up tokens and entries, and start it again"
    )]
    FixedLimits,
    /// Nor this, but a restart does it under traffic.
    #[error(
        "[bus] (servers, cluster, name, or what is in the credentials) cannot change while weir runs: restart it for that; \
         the data path steers on meanwhile, and no packet is lost, unless balancer.on_stop is \"detach\""
    )]
    FixedBus,
}

impl ServiceError {
    /// Whether there were no file descriptors for it: there may be some later.
    pub fn lacks_descriptors(&self) -> bool {
        let Self::Table(MapError::IoError(error) | MapError::SyscallError(SyscallError { io_error: error, .. })) = self
        else {
            return false;
        };
        matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::EMFILE | Errno::ENFILE))
    }

    /// Whether a configuration was refused before anything was changed.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Exhausted(_)
                | Self::Tokens(_)
                | Self::Fixed(_)
                | Self::FixedLimits
                | Self::FixedBus
                | Self::OtherKey
                | Self::RotationUnderWay
        )
    }
}
