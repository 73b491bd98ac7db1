//! Waiting for a condition with a deadline. Nothing in the lab sleeps for a fixed time and hopes.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{LabError, interrupt};

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Probes until `probe` has something, and returns it.
///
/// # Errors
///
/// What `probe` fails with; [`LabError::Deadline`] naming `what` after `limit`;
/// [`LabError::Interrupted`] as soon as a signal asked for the end.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<T, LabError> {
    until_even_if_interrupted(what, limit, || {
        let found = probe()?;
        if found.is_none() && interrupt::requested() {
            return Err(LabError::Interrupted);
        }
        Ok(found)
    })
}

/// As [`until`], but for the tear-down, which an interrupt must not cut short.
pub(crate) fn until_even_if_interrupted<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, LabError>,
) -> Result<T, LabError> {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if begun.elapsed() >= limit {
            return Err(LabError::Deadline { what: what.to_owned(), limit_ms: limit.as_millis() });
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Waits for an interrupt, for ever.
pub fn for_interrupt() {
    while !interrupt::requested() {
        thread::sleep(POLL_INTERVAL * 10);
    }
}
