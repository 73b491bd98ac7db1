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

/// Turns SIGINT, SIGTERM and SIGHUP into [`requested`]; a second one ends the process at once, and what it
/// leaves is cleared by the next start.
///
/// # Errors
///
/// If the kernel refuses a handler.
pub fn install() -> io::Result<()> {
    let requested = REQUESTED.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(requested))?;
        flag::register(signal, Arc::clone(requested))?;
    }
    Ok(())
}

/// Whether a signal has asked this process to end.
pub fn requested() -> bool {
    REQUESTED.get().is_some_and(|requested| requested.load(Ordering::Relaxed))
}
