//! Rounds: Weir and a peer in turn, each time the same three things.

use std::time::Instant;

use super::{
    Options, Screen,
    client::{self, Counts, Work},
    figures::{Cpu, Figures},
    report::{Ratios, Standing},
    stage::Stage,
};
use crate::{
    LabError, interrupt,
    load::{real, report::Latency, sample::Ticks},
};

/// Requests one after the other, in a round.
const IN_TURN: usize = 500;
const WEIR: usize = 0;
/// A gigabyte, and a megabyte.
const GB: f64 = 1e9;
const MB: f64 = 1e6;

/// Measures everybody on a stage, Weir first.
pub(super) fn measure(stage: &Stage, options: &Options, screen: Screen) -> Result<Vec<Standing>, LabError> {
    let mut seen: Vec<Seen> = stage.contenders.iter().map(|_| Seen::default()).collect();
    let progress = screen.begin(options, stage.contenders.len());
    let alone = stage.contenders.len() == 1;
    for index in 0..stage.contenders.len() {
        stage.send_to(index)?;
        Part::run(stage, index, Work::Transfer, options.connections, options.connections.into())?;
    }
    for round in 0..options.rounds {
        if alone {
            seen[WEIR].measure(stage, WEIR, options)?;
        }
        for peer in 1..stage.contenders.len() {
            // Who comes first may find the machine in another state than who comes second.
            let order = if round % 2 == 0 { [WEIR, peer] } else { [peer, WEIR] };
            for index in order {
                let figures = seen[index].measure(stage, index, options)?;
                progress.tick(stage.contenders[index].peer, figures);
            }
            let neighbour = seen[WEIR].rounds.last().copied().unwrap_or_default();
            seen[peer].beside.push(neighbour);
        }
    }
    progress.end();
    let standings = stage.contenders.iter().zip(seen).map(|(contender, seen)| seen.conclude(contender.peer));
    Ok(standings.collect())
}

/// What was seen of one of them.
#[derive(Debug, Default)]
struct Seen {
    rounds: Vec<Figures>,
    /// What Weir did in the same rounds.
    beside: Vec<Figures>,
    counts: Counts,
}

impl Seen {
    fn measure(&mut self, stage: &Stage, index: usize, options: &Options) -> Result<Figures, LabError> {
        stage.send_to(index)?;
        let content = &stage.content;
        let file = client::large(content).bytes.len() as u64;
        let files = (options.megabytes * 1_000_000).div_ceil(file);
        let long = Part::run(stage, index, Work::Transfer, options.connections, files)?;
        let short = Part::run(stage, index, Work::Request, options.connections, options.requests)?;
        let (counts, durations) = stage.as_client(|| client::ask_in_turn(content, IN_TURN))?;
        let latency = Latency::of("small request", &durations);
        let at = |percent| latency.as_ref().map_or(0.0, |latency| latency.ms(percent));
        let (bytes, connections) = (real(long.counts.bytes), real(short.counts.connections));
        let figures = Figures {
            mb_per_s: bytes / MB / long.took_s,
            cpu_s_per_gb: Cpu::each(&long.before, &long.after, bytes / GB),
            connections_per_s: connections / short.took_s,
            cpu_s_per_1000: Cpu::each(&short.before, &short.after, connections / 1000.0),
            request_ms_p50: at(50.0),
            request_ms_p99: at(99.0),
        };
        self.rounds.push(figures);
        for counts in [long.counts, short.counts, counts] {
            self.counts.add(counts);
        }
        Ok(figures)
    }

    fn conclude(self, peer: Option<super::Peer>) -> Standing {
        Standing {
            name: peer.map_or("weir", super::Peer::name),
            peer,
            figures: Figures::medians(&self.rounds),
            of_weir: (!self.beside.is_empty()).then(|| Ratios::of(&self.rounds, &self.beside)),
            added: None,
            joins: None,
            connections: self.counts.connections,
            corrupted: self.counts.corrupted,
            failures: self.counts.failures,
            rounds: self.rounds,
        }
    }
}

/// A part of a round.
struct Part {
    counts: Counts,
    took_s: f64,
    before: Ticks,
    after: Ticks,
}

impl Part {
    fn run(stage: &Stage, index: usize, work: Work, connections: u16, files: u64) -> Result<Self, LabError> {
        if interrupt::requested() {
            return Err(LabError::Interrupted);
        }
        let (content, processes) = (&stage.content, stage.processes(index));
        let before = Ticks::now(&processes)?;
        let (counts, took) = stage.as_client(|| {
            let begun = Instant::now();
            Ok((client::work(work, content, connections, files)?, begun.elapsed()))
        })?;
        Ok(Self { counts, took_s: took.as_secs_f64(), before, after: Ticks::now(&processes)? })
    }
}
