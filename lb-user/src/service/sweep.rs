//! The sweep of a running balancer, which others do not wait for: it looks through the tables by descriptors of its own, and
//! has the state for a piece at a time.

use super::{Service, ServiceError, State};
use crate::{
    bpf::{Balancer, Lender},
    clock, refilter,
    sweep::{Sweeper, Swept},
};
use lb_common::ids::PoolId;
use std::{sync::PoisonError, thread, time::Instant};

impl Service {
    /// Ends the tokens and flows that are over, and lets go of the backends that nothing in the tables means any more.
    ///
    /// # Errors
    /// The kernel refuses a map operation.
    pub fn sweep(&self) -> Result<(), ServiceError> {
        self.sweep_in_pieces(thread::yield_now)
    }

    /// The same, with something done before each piece that has the tables; nobody has them then.
    ///
    /// # Errors
    /// The kernel refuses a map operation.
    pub fn sweep_in_pieces(&self, before_each: impl FnMut()) -> Result<(), ServiceError> {
        let _alone = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut sweeper, commits) = {
            let mut state = self.state();
            let heard = std::mem::take(&mut state.heard_closed);
            // Into the one that stays: where this sweep fails, the next one knows it.
            state.sweeper.hear(heard);
            (state.sweeper.clone(), state.reloads.commits)
        };
        let mut pieces = Pieces { service: self, before_each };
        let swept = sweeper.sweep(&mut pieces, clock::tick())?;
        let renewed = refilter::renew_if_unfit(&mut pieces, swept.flows())?;
        (pieces.before_each)();
        let mut state = self.state();
        state.take_in(sweeper, swept, renewed);
        // What a reload has changed meanwhile was not looked at by this sweep: the next one says who is gone.
        if state.reloads.commits == commits { state.release_the_gone() } else { Ok(()) }
    }
}

/// The tables of a service, which has them to itself between two pieces.
struct Pieces<'s, F> {
    service: &'s Service,
    before_each: F,
}

impl<F: FnMut()> Lender for Pieces<'_, F> {
    fn lend<T>(&mut self, piece: impl FnOnce(&mut Balancer, &dyn Fn(PoolId) -> bool) -> T) -> T {
        (self.before_each)();
        let mut guard = self.service.state();
        let State { balancer, rings, .. } = &mut *guard;
        piece(balancer, &|pool| rings.contains_key(&pool))
    }
}

impl State {
    /// How long ago the last sweep ended; the start counts as one.
    pub(super) fn swept_s_ago(&self) -> u64 {
        self.swept_at.elapsed().as_secs()
    }

    fn take_in(&mut self, mut sweeper: Sweeper, swept: Swept, renewed: bool) {
        self.tell_ended(&sweeper.take_ended());
        self.evicted.tokens += swept.tokens_evicted;
        self.evicted.moved_flows += swept.moved_flows_evicted;
        self.filter_renewals += u64::from(renewed);
        (self.sweeper, self.swept, self.swept_at) = (sweeper, swept, Instant::now());
    }
}
