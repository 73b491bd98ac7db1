//! What can happen any number of times without end is told in the log once a minute; the counts have all of it.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const PAUSE: Duration = Duration::from_mins(1);

/// When it was last told.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    /// Whether it may be told now, which is noted.
    pub(crate) fn may_tell(&self, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let may = told.is_none_or(|told| now.saturating_duration_since(told) >= PAUSE);
        if may {
            *told = Some(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_next_a_minute_later() {
        let (seldom, begin) = (Seldom::default(), Instant::now());
        let told = [0, 0, 59, 60, 61, 119, 120].map(|second| seldom.may_tell(begin + Duration::from_secs(second)));
        assert_eq!(told, [true, false, false, true, false, false, true]);
    }
}
