//! Ctrl-C, SIGTERM and a closed terminal: a flag that every wait of the lab looks at, so that the lab is taken down by
//! the same drops as at its ordinary end. Nothing is torn down from a signal handler.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
};

static REQUESTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Turns SIGINT, SIGTERM and SIGHUP into [`requested`]. A second one says nothing new: whoever is impatient must not get
/// rid of the lab's process before its namespaces. SIGQUIT (Ctrl-\) does, and the next start clears what that leaves.
///
/// # Errors
///
/// If the kernel refuses a handler.
pub fn install() -> io::Result<()> {
    let requested = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register(signal, Arc::clone(requested))?;
    }
    Ok(())
}

/// Whether a signal has asked this process to end.
pub fn requested() -> bool {
    REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}
