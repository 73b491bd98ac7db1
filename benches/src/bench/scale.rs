//! A balancer as large as somebody wants it, and what packets cost it: a point of a sweep along one of its sizes.

use lb_common::limits::{JOINED_FLOWS, Limit, TOKENS};
use lb_user::bpf::Sizes;
use serde::Serialize;

use super::{
    BenchError, Case, Effort,
    case::{OTHER_CLIENTS, tracked},
    farm::{Farm, Outer},
    load::Load,
    measure::{Bench, Cost},
};

/// What a balancer has to do with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Scale {
    /// MPTCP connections, whose first subflows take turns. The token of each is in the table.
    pub flows: u32,
    /// Backends of its pool.
    pub backends: u16,
    /// VIPs that take turns, a power of two.
    pub vips: u16,
    /// Joined subflows that have an entry.
    pub joined: u32,
}

/// What packets cost a balancer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Costs {
    /// An ACK that the ring answers.
    pub(crate) ack: Cost,
    /// A SYN that joins one of the connections.
    pub(crate) join: Cost,
    /// An ACK of a joined subflow, where there are such.
    pub(crate) joined_ack: Option<Cost>,
}

impl Scale {
    /// Its backends and VIPs.
    pub(crate) const fn farm(self) -> Farm {
        Farm { backends: self.backends, vips: self.vips }
    }

    /// Tokens that the table has room for.
    pub(crate) fn tokens(self) -> u32 {
        room(self.flows, TOKENS)
    }

    /// Joined subflows that the table has room for.
    pub(crate) fn joined_flows(self) -> u32 {
        room(self.joined, JOINED_FLOWS)
    }

    /// Measures on balancers of this size. The caller's thread must be where the bench's interfaces are.
    ///
    /// Each is the least of so many `rounds`: what else runs on a machine makes packets dearer than the stub, never cheaper.
    pub(crate) fn measure(self, effort: Effort, rounds: u32) -> Result<Costs, BenchError> {
        let mut bench = self.open(effort)?;
        let Self { flows, joined, .. } = self;
        let of_joined = Load { client: Some(OTHER_CLIENTS), ..tracked() };
        bench.learn(flows)?;
        bench.track(&of_joined, OTHER_CLIENTS, joined)?;
        // As many take turns as a mask can tell apart.
        let tokens = 1 << flows.ilog2();
        let mut cost = |load: &Load, flows, tokens| least(rounds, || bench.measure(load, flows, tokens));
        let of = |case: Case| case.load().expect("packets of a balancer");
        let (ack, join) = (cost(&of(Case::Ack), flows, 1)?, cost(&of(Case::JoinTable), flows, tokens)?);
        let joined_ack = (joined > 0).then(|| cost(&of_joined, joined, 1)).transpose()?;
        Ok(Costs { ack, join, joined_ack })
    }

    fn open(self, effort: Effort) -> Result<Bench, BenchError> {
        let sizes = Sizes {
            pools: 1,
            tokens: self.tokens(),
            joined_flows: self.joined_flows(),
            entries_per_network: u32::MAX,
            joins_per_token: u32::MAX,
            ..Sizes::default()
        };
        Bench::open(self.farm(), &sizes, Outer::V4, effort)
    }
}

/// The least disturbed of some measurements.
fn least(rounds: u32, mut measure: impl FnMut() -> Result<Cost, BenchError>) -> Result<Cost, BenchError> {
    let first = measure()?;
    (1..rounds).try_fold(first, |least, _| {
        let next = measure()?;
        Ok(if next.net < least.net { next } else { least })
    })
}

/// Room for so many and a quarter more: from 95 % on a controller ends the oldest.
fn room(entries: u32, limit: Limit) -> u32 {
    (entries + entries / 4).clamp(limit.min, limit.max)
}
