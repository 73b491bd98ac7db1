//! The joined flows of a fleet drill, by the sockets of client and backends: through which balancer each came, and
//! whether it lives.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Lab, LabError,
    fleet::{Fleet, TcpFlow},
    oracle::Flow,
};

/// What is known of a joined flow since it was first seen.
#[derive(Debug)]
struct Joined {
    balancer: String,
    /// Whether its connection's first subflow went by another balancer then.
    through_another: bool,
    /// Whether the client had sent its SYN more than once.
    late: bool,
    broken: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct JoinedFlows {
    flows: BTreeMap<TcpFlow, Joined>,
}

impl JoinedFlows {
    /// Takes in every joined flow that client and backend have and that is new.
    pub(super) fn take_in(&mut self, fleet: &Fleet) -> Result<(), LabError> {
        let at_client = at_client(&fleet.lab)?;
        let mut new = Vec::new();
        for (flow, first) in at_backends(&fleet.lab)? {
            let Some(end) = at_client.get(&flow) else { continue };
            if !self.flows.contains_key(&flow) {
                new.push((flow, first, end.sent_again > 0));
            }
        }
        // Its first subflow may be gone: then the join went through no other.
        let asked: Vec<TcpFlow> = new.iter().flat_map(|(flow, first, _)| [*flow, first.unwrap_or(*flow)]).collect();
        let choices = fleet.choices(&asked)?;
        for ((flow, _, late), choices) in new.into_iter().zip(choices.chunks_exact(2)) {
            let through_another = choices[0] != choices[1];
            self.flows.insert(flow, Joined { balancer: choices[0].to_owned(), through_another, late, broken: false });
        }
        Ok(())
    }

    /// Marks the flows that client or backend no longer has, or that are silent; returns how many there are by now.
    pub(super) fn lost(&mut self, lab: &Lab, silent: &[Flow]) -> Result<u64, LabError> {
        let silent: BTreeSet<TcpFlow> = silent.iter().map(as_client).collect();
        let (at_client, at_backends) = (at_client(lab)?, at_backends(lab)?);
        for (flow, joined) in &mut self.flows {
            let lives = at_client.contains_key(flow) && at_backends.contains_key(flow) && !silent.contains(flow);
            joined.broken |= !lives;
        }
        Ok(self.broken())
    }

    pub(super) fn count(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn broken(&self) -> u64 {
        self.number_of(|joined| joined.broken)
    }

    pub(super) fn late(&self) -> u64 {
        self.number_of(|joined| joined.late)
    }

    pub(super) fn through_another(&self) -> u64 {
        self.number_of(|joined| joined.through_another)
    }

    pub(super) fn by_balancer(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for joined in self.flows.values() {
            *counts.entry(joined.balancer.clone()).or_default() += 1;
        }
        counts
    }

    fn number_of(&self, is: impl Fn(&Joined) -> bool) -> u64 {
        self.flows.values().map(|joined| u64::from(is(joined))).sum()
    }
}

/// The joined flows that the client has.
fn at_client(lab: &Lab) -> Result<BTreeMap<TcpFlow, Flow>, LabError> {
    let flows = Flow::read(&lab.client.namespace)?.into_iter();
    Ok(flows.filter(|flow| flow.joined).map(|flow| (as_client(&flow), flow)).collect())
}

/// The joined flows that backends have, each with the first subflow of its connection.
fn at_backends(lab: &Lab) -> Result<BTreeMap<TcpFlow, Option<TcpFlow>>, LabError> {
    let mut joined = BTreeMap::new();
    for backend in &lab.backends {
        let flows = Flow::read(&backend.namespace)?;
        let firsts: BTreeMap<_, _> =
            flows.iter().filter(|flow| !flow.joined).map(|flow| (flow.token, as_backend(flow))).collect();
        let flows = flows.iter().filter(|flow| flow.joined);
        joined.extend(flows.map(|flow| (as_backend(flow), firsts.get(&flow.token).copied())));
    }
    Ok(joined)
}

fn as_client(flow: &Flow) -> TcpFlow {
    TcpFlow { client: flow.local, service: flow.peer }
}

fn as_backend(flow: &Flow) -> TcpFlow {
    TcpFlow { client: flow.peer, service: flow.local }
}
