//! An agent on the bus: it tells the balancers which connections live on its backend, to each again that asks, and takes
//! nothing in.

use super::{Known, Op, Report, Sink};
use crate::{
    bus::{
        BusCounts, Publisher, Sharer,
        wire::{self, Batch, Notice},
    },
    config::Name,
};
use std::sync::Arc;

/// What the balancers are told by, as it changes.
pub struct Teller {
    /// The name that the balancers' configuration has for this backend.
    pub backend: Name,
    /// The way to the bus.
    pub publisher: Publisher,
}

impl Sink for Teller {
    fn take(&mut self, reports: Vec<Report>) {
        for report in &reports {
            let op = match report.op {
                Op::Hold => wire::Op::Hold,
                Op::Close => wire::Op::Close,
            };
            self.publisher.tell(notice(&self.backend, report, op));
        }
    }
}

/// All that there is, for a balancer that asks.
pub struct Memory {
    /// See [`Teller`].
    pub backend: Name,
    /// The connections that live here.
    pub known: Arc<Known>,
}

impl Sharer for Memory {
    fn listens(&self) -> bool {
        false
    }

    fn enter(&self, _batch: &Batch, _counts: &BusCounts) {}

    fn recall(&self) -> Vec<Notice> {
        self.known.reports().iter().map(|report| notice(&self.backend, report, wire::Op::Recall)).collect()
    }
}

fn notice(backend: &Name, report: &Report, op: wire::Op) -> Notice {
    let (pool, backend) = (report.pool.to_string(), backend.to_string());
    Notice { pool, backend, op, value: report.token.number(), flow: Notice::BY_AGENT }
}
