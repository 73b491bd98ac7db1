//! Who has the tables lends them for a piece of work at a time, so that nobody waits longer than one piece takes.

use super::Balancer;
use lb_common::ids::PoolId;

/// Who has the tables.
pub trait Lender {
    /// Does one piece of work on them, which is told which pools there are. Between two pieces anything may change.
    fn lend<T>(&mut self, piece: impl FnOnce(&mut Balancer, &dyn Fn(PoolId) -> bool) -> T) -> T;
}

/// Tables that nobody else uses, for any pools.
impl Lender for Balancer {
    fn lend<T>(&mut self, piece: impl FnOnce(&mut Balancer, &dyn Fn(PoolId) -> bool) -> T) -> T {
        piece(self, &|_| true)
    }
}
