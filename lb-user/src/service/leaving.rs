//! Backends that have left the configuration, and when their numbers are free: not before everything that strangers may
//! overwrite, and no sweep therefore looks through, has forgotten them too.

use lb_common::{
    ids::{BackendId, Tick},
    limits::DATAGRAM_IDLE_TICKS,
};
use std::collections::BTreeMap;

/// The backends that neither the configuration nor a ring, a token or an entry means, and since when.
#[derive(Debug, Default)]
pub(super) struct Unmeant(BTreeMap<BackendId, Tick>);

impl Unmeant {
    /// Takes in who is meant by nothing at a sweep. Returns those for whom it has been so for long enough: a handshake has
    /// made its entry, and a flow of datagrams that was silent meanwhile has lost its place.
    pub(super) fn gone(&mut self, unmeant: impl Iterator<Item = BackendId>, now: Tick) -> Vec<BackendId> {
        let before = std::mem::take(&mut self.0);
        self.0 = unmeant.map(|id| (id, before.get(&id).copied().unwrap_or(now))).collect();
        let gone: Vec<_> = { &self.0 }
            .iter()
            .filter(|&(_, &since)| now.since(since) > DATAGRAM_IDLE_TICKS)
            .map(|(&id, _)| id)
            .collect();
        self.0.retain(|id, _| !gone.contains(id));
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Tick = Tick(5);

    fn after(ticks: u32) -> Tick {
        Tick(START.0 + ticks)
    }

    #[test]
    fn a_number_is_free_when_datagrams_have_forgotten_it() {
        let mut unmeant = Unmeant::default();
        let both = || [BackendId(1), BackendId(2)].into_iter();
        assert!(unmeant.gone(both(), START).is_empty());
        assert!(unmeant.gone(both(), after(DATAGRAM_IDLE_TICKS)).is_empty());
        assert_eq!(unmeant.gone(both(), after(DATAGRAM_IDLE_TICKS + 1)), [BackendId(1), BackendId(2)]);
        assert!(unmeant.gone(both(), after(DATAGRAM_IDLE_TICKS + 2)).is_empty(), "whoever comes again begins anew");
    }

    #[test]
    fn who_is_meant_again_begins_anew() {
        let mut unmeant = Unmeant::default();
        let one = || std::iter::once(BackendId(1));
        unmeant.gone(one(), START);
        unmeant.gone(std::iter::empty(), after(10));
        unmeant.gone(one(), after(20));
        assert!(unmeant.gone(one(), after(DATAGRAM_IDLE_TICKS + 1)).is_empty());
        assert_eq!(unmeant.gone(one(), after(DATAGRAM_IDLE_TICKS + 21)), [BackendId(1)]);
    }
}
