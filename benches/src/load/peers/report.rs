//! What came of it all: the one object that `--json` prints, and all that the page is made from.

use serde::Serialize;

use super::{Figures, Machine, Options, Peer, client::Counts};
use crate::{
    bench::median,
    oracle::{JoinCounts, JoinTally},
};

/// Of what the stub transfers, Weir is to transfer at least so much.
pub(super) const OF_STUB_MIN: f64 = 0.97;

/// All that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was asked for.
    pub asked: Asked,
    /// Where it ran.
    pub machine: Machine,
    /// Weir, then the peers.
    pub standings: Vec<Standing>,
    /// What Weir transfers of what the bare programs do, if they took part.
    pub throughput_of_stub: Option<f64>,
    /// Who could not take part.
    pub left_out: Vec<LeftOut>,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Asked {
    /// How often each peer was measured, each time beside Weir.
    pub rounds: u32,
    /// Connections at a time.
    pub connections: u16,
    /// Transferred in a round.
    pub megabytes: u64,
    /// Short connections in a round.
    pub requests: u64,
    /// Connections that were opened to count joins.
    pub joins: u16,
    /// Backends that joins could go astray between.
    pub backends: u8,
}

impl From<&Options> for Asked {
    fn from(options: &Options) -> Self {
        let &Options { rounds, connections, megabytes, requests, joins, backends, .. } = options;
        Self { rounds, connections, megabytes, requests, joins, backends: backends.number() }
    }
}

/// Who was not measured, and why.
#[derive(Debug, Clone, Serialize)]
pub struct LeftOut {
    /// Who.
    pub peer: Peer,
    /// Why.
    pub why: String,
}

/// Somebody in the middle.
#[derive(Debug, Clone, Serialize)]
pub struct Standing {
    /// Its name.
    pub name: &'static str,
    /// None for Weir.
    #[serde(skip)]
    pub peer: Option<Peer>,
    /// Medians over the rounds.
    #[serde(flatten)]
    pub figures: Figures,
    /// Beside Weir; none for Weir itself.
    pub of_weir: Option<Ratios>,
    /// To requests beside the stub, if that took part; none for the stub itself.
    pub added: Option<Added>,
    /// None for who has one backend, and cannot lose any.
    pub joins: Option<Joins>,
    /// Connections that did what they were for.
    pub connections: u64,
    /// Bodies whose hash was not that of what was meant.
    pub corrupted: u64,
    /// Why connections failed, one line each.
    pub failures: Vec<String>,
    /// Each of the rounds.
    pub rounds: Vec<Figures>,
}

impl Standing {
    /// Adds what further connections have come to.
    pub(super) fn add(&mut self, counts: Counts) {
        self.connections += counts.connections;
        self.corrupted += counts.corrupted;
        self.failures.extend(counts.failures);
    }
}

/// Medians of quotients: a peer's figure by Weir's, of the same round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratios {
    /// Of long transfers.
    pub mb_per_s: f64,
    /// The machine's, for long transfers.
    pub cpu_s_per_gb: f64,
    /// Of short connections.
    pub connections_per_s: f64,
    /// The machine's, for short connections.
    pub cpu_s_per_1000: f64,
    /// Of requests one after the other.
    pub request_ms_p50: f64,
}

impl Ratios {
    /// Of rounds, the peer's beside Weir's.
    pub(super) fn of(peer: &[Figures], weir: &[Figures]) -> Self {
        let of = |figure: fn(&Figures) -> f64| {
            median(peer.iter().zip(weir).map(|(peer, weir)| figure(peer) / figure(weir)).collect())
        };
        Self {
            mb_per_s: of(|round| round.mb_per_s),
            cpu_s_per_gb: of(|round| round.cpu_s_per_gb.machine),
            connections_per_s: of(|round| round.connections_per_s),
            cpu_s_per_1000: of(|round| round.cpu_s_per_1000.machine),
            request_ms_p50: of(|round| round.request_ms_p50),
        }
    }
}

/// What became of joins, as the kernels of the client, the middle and the backends have counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Joins {
    /// That the client's kernel began.
    pub attempted: u64,
    /// That a backend's kernel completed.
    pub at_backends: u64,
    /// That the kernel in the middle completed: connections end there.
    pub at_middle: u64,
    /// That came to a kernel that does not have their connection.
    pub misrouted: u64,
    /// That the right kernel refused.
    pub refused: u64,
    /// That no kernel knows anything of.
    pub lost: u64,
}

impl Joins {
    pub(super) fn of(tally: &JoinTally, middle: JoinCounts) -> Self {
        let (at_backends, at_middle) = (tally.established(), middle.established);
        let (misrouted, refused) = (tally.misrouted() + middle.misrouted, tally.refused() + middle.refused);
        let known = at_backends + at_middle + misrouted + refused;
        let attempted = tally.attempted;
        Self { attempted, at_backends, at_middle, misrouted, refused, lost: attempted.saturating_sub(known) }
    }

    /// Wherever.
    pub const fn established(&self) -> u64 {
        self.at_backends + self.at_middle
    }
}

/// What somebody in the middle adds to a request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Added {
    /// To the median.
    pub ms_p50: f64,
    /// To what 99 of 100 do not exceed.
    pub ms_p99: f64,
}

impl Added {
    fn beside(stub: &Figures, own: &Figures) -> Self {
        Self { ms_p50: own.request_ms_p50 - stub.request_ms_p50, ms_p99: own.request_ms_p99 - stub.request_ms_p99 }
    }
}

impl Report {
    pub(super) fn conclude(asked: Asked, mut standings: Vec<Standing>, left_out: Vec<LeftOut>) -> Self {
        let stub = standings.iter().find(|standing| standing.peer == Some(Peer::Stub));
        let of_weir = stub.and_then(|stub| stub.of_weir);
        if let Some(stub) = stub.map(|stub| stub.figures) {
            let others = standings.iter_mut().filter(|standing| standing.peer != Some(Peer::Stub));
            others.for_each(|standing| standing.added = Some(Added::beside(&stub, &standing.figures)));
        }
        let throughput_of_stub = of_weir.map(|ratios| 1.0 / ratios.mb_per_s);
        Self { asked, machine: Machine::this(), standings, throughput_of_stub, left_out }
    }

    /// The standing of a peer, if it took part.
    pub fn of(&self, peer: Option<Peer>) -> Option<&Standing> {
        self.standings.iter().find(|standing| standing.peer == peer)
    }

    /// What should not be: one line each.
    pub fn objections(&self) -> Vec<String> {
        let mut objections = Vec::new();
        for Standing { name, peer, corrupted, failures, joins, .. } in &self.standings {
            if *corrupted > 0 {
                objections.push(format!("{corrupted} transfers through {name} are not what was meant"));
            }
            if let Some(first) = failures.first() {
                objections.push(format!("{} connections through {name} failed: {first}", failures.len()));
            }
            if let (None, Some(joins)) = (peer, joins)
                && joins.at_backends < joins.attempted
            {
                objections.push(format!("of {} joins Weir let {} be established", joins.attempted, joins.at_backends));
            }
        }
        objections
    }
}
