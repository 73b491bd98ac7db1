//! How many packets a second.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use lb_common::bench::Varies;

use super::{
    Options, Stage,
    generator::{Generator, Packets},
    link::{Counted, End},
    report::{OnLink, Rate},
};
use crate::{
    LabError,
    bench::{
        load::Load,
        median,
        packet::{self, To},
    },
    interrupt,
};

/// Until the queues are full.
const WARM_UP: Duration = Duration::from_millis(100);

/// What is measured: the packets of a steady balancer, and those of each flood.
pub(super) fn kinds(flows: u32) -> [(&'static str, Packets); 4] {
    let of = |frame| Load::of(frame, &[]);
    let varying = |frame, varies| Load { varies, ..of(frame) };
    let packets = |load, tokens| Packets { load, flows, tokens };
    [
        ("ack", packets(of(packet::ack(To::V4)), 1)),
        ("syn", packets(of(packet::syn(To::V4)), 1)),
        ("join", packets(varying(packet::joining_syn(), Varies::TOKEN), flows.next_power_of_two())),
        ("third_ack", packets(varying(packet::third_ack(), Varies::KEY), 1)),
    ]
}

/// Measures each kind, Weir and the others in turn.
pub(super) fn measure(stage: &Stage, options: Options, step: &dyn Fn(&str)) -> Result<Vec<Rate>, LabError> {
    let mut rates = Vec::new();
    for (name, packets) in kinds(options.flows) {
        let rate = measure_kind(stage, options, name, &packets)?;
        step(&rate.to_string());
        rates.push(rate);
    }
    Ok(rates)
}

/// The rate of a kind.
pub(super) fn of<'r>(rates: &'r [Rate], name: &str) -> &'r Rate {
    rates.iter().find(|rate| rate.packets == name).expect("every kind is measured")
}

/// The same where the backend is on the link: Weir and the reflector in turn.
pub(super) fn measure_on_link(stage: &Stage, options: Options, step: &dyn Fn(&str)) -> Result<Vec<OnLink>, LabError> {
    let mut rates = Vec::new();
    for (name, packets) in kinds(options.flows) {
        let seen = measure_in_turn([&stage.weirs, &stage.reflectors], options, &packets)?;
        let [weir, reflector] = seen.each_ref().map(|seen| Seen::median(seen));
        let rate = OnLink::of(name, [reflector, weir], quotient(&seen[0], &seen[1]));
        step(&rate.to_string());
        rates.push(rate);
    }
    Ok(rates)
}

fn measure_kind(stage: &Stage, options: Options, name: &'static str, packets: &Packets) -> Result<Rate, LabError> {
    let seen = measure_in_turn([&stage.weirs, &stage.tunnels, &stage.reflectors], options, packets)?;
    let [weir, tunnel, reflector] = seen.each_ref().map(|seen| Seen::median(seen));
    let (of_tunnel, of_reflector) = (quotient(&seen[0], &seen[1]), quotient(&seen[0], &seen[2]));
    Ok(Rate::of(name, [reflector, tunnel, weir], of_reflector, of_tunnel))
}

/// What is seen on each link in each round.
fn measure_in_turn<const N: usize>(
    sides: [&[End; 2]; N],
    options: Options,
    packets: &Packets,
) -> Result<[Vec<Seen>; N], LabError> {
    // Two at one interface that comes to nothing would be in each other's way, so each is opened when it is needed.
    let mut seen = [const { Vec::new() }; N];
    for round in 0..options.rounds {
        for turn in 0..N {
            // One way, then the other: what drifts is the same for all.
            let side = if round % 2 == 0 { turn } else { N - 1 - turn };
            let mut generator = Stage::generator(sides[side], packets)?;
            seen[side].push(Seen::while_sent(sides[side], &mut generator, Duration::from_millis(options.span))?);
        }
    }
    Ok(seen)
}

/// One rate by the other: the median of each round's quotient.
fn quotient(seen: &[Seen], other: &[Seen]) -> f64 {
    median(seen.iter().zip(other).map(|(one, other)| one.rate / other.rate).collect())
}

/// Packets a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// That the balancer's program ran for.
    pub(super) rate: f64,
    /// That the generator has made.
    pub(super) offered: f64,
    /// That came back.
    pub(super) returned: f64,
}

impl Seen {
    fn while_sent([router, balancer]: &[End; 2], generator: &mut Generator, span: Duration) -> Result<Self, LabError> {
        if interrupt::requested() {
            return Err(LabError::Interrupted);
        }
        let ended = AtomicBool::new(false);
        let (sent, counted) = thread::scope(|scope| {
            let (begun, sending) = (Instant::now(), scope.spawn(|| generator.send(None, &ended)));
            let counted = (|| {
                thread::sleep(WARM_UP);
                let before = Snapshot::of(router, balancer)?;
                thread::sleep(span);
                Ok::<_, LabError>((before, Snapshot::of(router, balancer)?))
            })();
            ended.store(true, Ordering::Relaxed);
            let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            (sent.map(|sent| (sent, begun.elapsed())), counted)
        });
        let ((sent, took), (before, after)) = (sent?, counted?);
        let seconds = (after.at - before.at).as_secs_f64();
        let rate = |after: Counted, before: Counted| real(after.received - before.received) / seconds;
        Ok(Self {
            rate: rate(after.balancer, before.balancer),
            offered: real(sent) / took.as_secs_f64(),
            returned: rate(after.router, before.router),
        })
    }

    fn median(seen: &[Self]) -> Self {
        let median = |figure: fn(&Self) -> f64| median(seen.iter().map(figure).collect());
        Self {
            rate: median(|seen| seen.rate),
            offered: median(|seen| seen.offered),
            returned: median(|seen| seen.returned),
        }
    }
}

/// Both ends' counters at a time.
struct Snapshot {
    at: Instant,
    router: Counted,
    balancer: Counted,
}

impl Snapshot {
    fn of(router: &End, balancer: &End) -> Result<Self, LabError> {
        let balancer = balancer.counted()?;
        let at = Instant::now();
        Ok(Self { at, balancer, router: router.counted()? })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of seconds, far below 2^52")]
fn real(count: u64) -> f64 {
    count as f64
}
