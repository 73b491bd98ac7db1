//! The way from a balancer's health to a BGP daemon: `/announce` is asked once a second, and what it says is announced, or
//! withdrawn. Speaks no BGP itself.
//!
//! It never takes silence for health: who cannot be asked is withdrawn as well, only not at once.

mod exabgp;
mod kernel;
mod page;
mod verdict;

pub use exabgp::ExaBgp;
pub use kernel::{KernelError, Routes};
pub use page::ask;
pub use verdict::{Answer, Patience, Verdict};

use crate::config::Prefix;
use std::{collections::BTreeSet, io};

/// Who announces.
#[derive(Debug)]
pub enum Speaker {
    /// An ExaBGP, whose child this process is.
    ExaBgp(ExaBgp),
    /// Whoever takes the routes out of a table of the kernel's.
    Kernel(Routes),
}

/// Why something could not be announced or withdrawn.
#[derive(Debug, thiserror::Error)]
pub enum SpeakerError {
    /// ExaBGP reads no more.
    #[error("ExaBGP takes no more commands from standard output: {0}")]
    ExaBgp(#[from] io::Error),
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

impl Speaker {
    /// Has these announced, and no others.
    ///
    /// # Errors
    /// It cannot be told: nobody knows what is announced now.
    pub async fn announce(&mut self, prefixes: &BTreeSet<Prefix>) -> Result<(), SpeakerError> {
        match self {
            Self::ExaBgp(exabgp) => Ok(exabgp.announce(prefixes)?),
            Self::Kernel(routes) => Ok(routes.set(prefixes).await?),
        }
    }

    /// Waits until whoever announces is gone. A table of the kernel's never is.
    pub async fn gone(&mut self) {
        match self {
            Self::ExaBgp(exabgp) => exabgp.gone().await,
            Self::Kernel(_) => std::future::pending().await,
        }
    }
}
