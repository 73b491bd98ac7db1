//! The pulse of the loop that keeps the tables true: it beats, and whoever is asked whether it still does can feel it.
//!
//! It is never beaten by another task than the one that does the work: a process that hangs must be seen to hang.

use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Silence of so long is no work any more: a reload of the largest configuration takes a fraction of it.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The side of the loop.
#[derive(Debug)]
pub struct Heart(watch::Sender<Instant>);

/// The side of who asks.
#[derive(Clone, Debug)]
pub struct Pulse(watch::Receiver<Instant>);

impl Heart {
    /// One that has beaten just now.
    pub fn new() -> Self {
        Self(watch::channel(Instant::now()).0)
    }

    /// For who asks.
    pub fn pulse(&self) -> Pulse {
        Pulse(self.0.subscribe())
    }

    /// The loop has come round.
    pub fn beat(&self) {
        self.0.send_replace(Instant::now());
    }
}

impl Default for Heart {
    fn default() -> Self {
        Self::new()
    }
}

impl Pulse {
    /// How long ago the loop has come round.
    pub fn silence(&self) -> Duration {
        self.0.borrow().elapsed()
    }

    /// The same, if that is too long.
    pub fn stopped(&self) -> Option<Duration> {
        Some(self.silence()).filter(|&silence| silence > SILENCE_MAX)
    }
}
