//! What the service manager is told: ready, reloading, stopping, what is going on, and that the loop turns.
//!
//! Where no service manager listens, nothing is said. The sign of life is never given from another task than the one
//! that does the work: a process that hangs must be seen to hang.

use sd_notify::{NotifyState, notify};
use std::{future::pending, time::Duration};
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::debug;

/// A line to the service manager.
#[derive(Debug)]
pub struct Supervisor {
    /// When the next sign of life is due, if it wants any.
    life: Option<Interval>,
    status: String,
}

impl Supervisor {
    /// Finds out what the service manager wants to hear.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn find() -> Self {
        Self { life: sd_notify::watchdog_enabled().map(|patience| every(patience / 2)), status: String::new() }
    }

    /// Waits until a sign of life is due. It never is where nobody wants one. A wait that is cancelled loses nothing.
    pub async fn life_is_due(&mut self) {
        match &mut self.life {
            Some(life) => {
                life.tick().await;
            }
            None => pending().await,
        }
    }

    /// Says that the caller is alive.
    pub fn alive(&self) {
        say(&[NotifyState::Watchdog]);
    }

    /// Says that everything is up, or that a reload has ended, well or not.
    pub fn ready(&self) {
        say(&[NotifyState::Ready]);
    }

    /// Says that the configuration is being read again, and since when.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => say(&[NotifyState::Reloading, now]),
            Err(error) => debug!("no clock for the service manager: {error}"),
        }
    }

    /// Says that this is the end.
    pub fn stopping(&self) {
        say(&[NotifyState::Stopping]);
    }

    /// Says what is going on, if that is news; `systemctl status` shows it.
    pub fn status(&mut self, status: String) {
        if self.status != status {
            say(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }
}

fn every(period: Duration) -> Interval {
    // A period of nothing is none of tokio's.
    let mut interval = interval(period.max(Duration::from_millis(1)));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn say(states: &[NotifyState<'_>]) {
    if let Err(error) = notify(states) {
        debug!("the service manager could not be told: {error}");
    }
}
