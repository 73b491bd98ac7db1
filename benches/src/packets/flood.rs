//! What floods do to real MPTCP connections that are opened and joined meanwhile.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Options, Stage,
    generator::Packets,
    rate::kinds,
    report::{Flood, Quality, percentile},
};
use crate::{
    Lab, LabError,
    bench::median,
    oracle::JoinTally,
    traffic::{Connection, Mix},
};

/// A join whose SYN is lost comes again after 1 s and 3 s.
const JOIN_LIMIT: Duration = Duration::from_secs(10);
/// Connections that end before the next are opened: a client has so many ports that the kernel's queues do not matter.
const AT_A_TIME: u32 = 50;

/// Opens connections without a flood, and in each of them, at `rate` packets a second.
pub(super) fn measure(
    stage: &Stage,
    options: Options,
    rate: u64,
    step: &dyn Fn(&str),
) -> Result<(Quality, Vec<Flood>), LabError> {
    let calm = open_many(&stage.lab, options.connections)?;
    step(&format!("without a flood: {calm}"));
    let mut floods = Vec::new();
    for (name, packets) in kinds(options.flows).into_iter().filter(|(name, _)| *name != "ack") {
        let flood = beside(stage, options, name, &packets, rate)?;
        step(&flood.to_string());
        floods.push(flood);
    }
    Ok((calm, floods))
}

fn beside(
    stage: &Stage,
    options: Options,
    name: &'static str,
    packets: &Packets,
    rate: u64,
) -> Result<Flood, LabError> {
    let [_, balancer] = &stage.weirs;
    let mut generator = Stage::generator(&stage.weirs, packets)?;
    let (ended, before, begun) = (AtomicBool::new(false), balancer.counted()?, Instant::now());
    let (sent, quality) = thread::scope(|scope| {
        let sending = scope.spawn(|| generator.send(Some(rate), &ended));
        let quality = open_many(&stage.lab, options.connections);
        ended.store(true, Ordering::Relaxed);
        (sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), quality)
    });
    let (took, after) = (begun.elapsed(), balancer.counted()?);
    let a_second = |packets: u64| packets * 1000 / u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let steered_pps = a_second(after.received - before.received);
    Ok(Flood { packets: name, rate_pps: rate, sent_pps: a_second(sent?), steered_pps, quality: quality? })
}

/// Opens so many connections, each of which its client's kernel joins once.
fn open_many(lab: &Lab, count: u32) -> Result<Quality, LabError> {
    let before = JoinTally::read(lab)?;
    let (mut opened, mut millis) = (0, Vec::new());
    while opened < count {
        let group = AT_A_TIME.min(count - opened);
        let joins = JoinTally::read(lab)?;
        let mut held = Vec::new();
        for _ in 0..group {
            let begun = Instant::now();
            // One that fails is counted: it is not among the held.
            if let Ok(connection) = Connection::open(&lab.client, Mix::V4) {
                millis.push(begun.elapsed().as_secs_f64() * 1000.0);
                held.push(connection);
            }
        }
        JoinTally::settled_since(&joins, lab, held.len() as u64, JOIN_LIMIT)?;
        opened += group;
    }
    let joins = &JoinTally::read(lab)? - &before;
    Ok(Quality {
        connections: count,
        opened: u32::try_from(millis.len()).unwrap_or(u32::MAX),
        joins_attempted: joins.attempted,
        joins_established: joins.established(),
        joins_misrouted: joins.misrouted(),
        open_ms_p50: median(millis.clone()),
        open_ms_p99: percentile(millis, 99),
    })
}
