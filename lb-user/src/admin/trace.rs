//! What the admin socket tells of packets as they are decided: a line of JSON each, until the time or the number is up or
//! the client goes away. No line names a client.

use super::{
    fault::Fault,
    routes::{Answer, Call, Context, Parameter, Reply, Route, type_of},
};
use crate::service::{Named, Trace, TraceError};
use hyper::{Method, StatusCode, body::Bytes};
use lb_common::{
    limits::{TRACE_LINES_PER_CPU, TRACE_SECONDS_MAX},
    reason::Action,
    trace::Counts,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};
use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, interval, timeout},
};

/// How often the lines are fetched from the kernel.
const FETCH: Duration = Duration::from_millis(20);
/// Packets that are still on their way through a program when another is put in its place have left it after that.
const SETTLE: Duration = Duration::from_millis(50);
/// How often an empty line asks whether the client is still there.
const PULSE: Duration = Duration::from_secs(1);
/// A client that takes no line for so long has gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// Lines on their way to the client.
const QUEUE: usize = 1024;

/// Traces.
pub(super) const TRACE: Route = Route {
    method: Method::POST,
    path: "/v1/trace",
    about: "What is decided for packets, as it happens: a document a line, until the last, or until the client goes away. Empty lines say that it goes on.",
    query: &[
        Parameter { name: "one_in", kind: "integer", about: "Tell of one packet in so many; 1000 if not given." },
        Parameter { name: "seconds", kind: "integer", about: "For so long, 600 at most; 30 if not given." },
        Parameter { name: "count", kind: "integer", about: "End after so many packets." },
    ],
    body: None,
    answer: type_of::<TraceLine>,
    handler: trace,
};

/// A line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum TraceLine {
    /// The first: from now on packets are told of.
    Begin(TraceBegin),
    /// A packet.
    Packet(TracedPacket),
    /// The last: the data path is again as it was.
    End(TraceEnd),
}

/// What will be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceBegin {
    /// One packet in so many.
    pub one_in: u32,
    /// So many a CPU and second at most.
    pub lines_per_cpu: u32,
    /// For so long.
    pub seconds: u64,
}

/// What was decided for a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TracedPacket {
    /// Why.
    pub reason: String,
    /// What became of it: `pass`, `forward`, `reply` or `drop`.
    pub action: String,
    /// The VIP that it was for.
    pub vip: Option<String>,
    /// The pool.
    pub pool: Option<String>,
    /// The backend that it was sent to.
    pub backend: Option<String>,
    /// How: `ipip`, `gue` or `l2`.
    pub forward: Option<String>,
    /// The packet's protocol: `tcp`, `udp`, `icmp`, or its number.
    pub protocol: Option<String>,
}

/// How it ended, and what was not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TraceEnd {
    /// Packets that were decided meanwhile.
    pub packets_seen: u64,
    /// Those of them that were to be told of, by the sample.
    pub sampled: u64,
    /// Those that were told.
    pub told: u64,
    /// Those that were not, because a CPU had told enough in that second.
    pub over_limit: u64,
    /// Those that came after the last that was asked for.
    pub surplus: u64,
    /// Those that were lost on the way here.
    pub lost: u64,
}

/// What has become of the lines so far.
#[derive(Default)]
struct Tally {
    told: u64,
    surplus: u64,
}

struct Plan {
    one_in: u32,
    seconds: u64,
    count: Option<u64>,
}

fn trace(context: Context, call: Call) -> Answer {
    Box::pin(async move {
        let plan = Plan::of(&call)?;
        let trace = spawn_blocking(move || context.service.trace(plan.one_in)).await??;
        let (lines, reader) = mpsc::channel(QUEUE);
        tokio::spawn(tell(trace, plan, lines));
        Ok(Reply::Lines(reader))
    })
}

impl Plan {
    fn of(call: &Call) -> Result<Self, Fault> {
        let one_in = call.parameter("one_in")?.unwrap_or(1000);
        let seconds = call.parameter("seconds")?.unwrap_or(30);
        let count = call.parameter("count")?;
        if one_in == 0 || count == Some(0) {
            return Err(Fault::bad_request("no packet would be told of: `one_in` and `count` begin at 1"));
        }
        if !(1..=TRACE_SECONDS_MAX).contains(&seconds) {
            return Err(Fault::bad_request(format!("{seconds} seconds are not 1 to {TRACE_SECONDS_MAX}")));
        }
        Ok(Self { one_in, seconds, count })
    }
}

/// Tells until the plan is fulfilled or nobody listens. The trace ends with this, however it ends.
async fn tell(mut trace: Trace, plan: Plan, lines: mpsc::Sender<Bytes>) {
    let Plan { one_in, seconds, count } = plan;
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tally = Tally::default();
    let begin = TraceBegin { one_in, lines_per_cpu: TRACE_LINES_PER_CPU, seconds };
    let mut listens = say(&lines, &TraceLine::Begin(begin)).await;
    let (mut fetch, mut pulse) = (interval(FETCH), interval(PULSE));
    while listens && Instant::now() < end && count.is_none_or(|count| tally.told < count) {
        tokio::select! {
            () = lines.closed() => listens = false,
            _ = pulse.tick() => listens = put(&lines, Bytes::from_static(b"\n")).await,
            _ = fetch.tick() => listens = pass_on(&mut trace, count, &mut tally, &lines).await,
        }
    }
    let stopped = spawn_blocking(move || {
        trace.stop();
        trace
    });
    let Ok(mut trace) = stopped.await else { return };
    if !listens {
        return;
    }
    tokio::time::sleep(SETTLE).await;
    pass_on(&mut trace, count, &mut tally, &lines).await;
    let Ok(Counts { packets, sampled, over_limit }) = trace.counts() else { return };
    let Tally { told, surplus } = tally;
    let lost = sampled.saturating_sub(over_limit + told + surplus);
    say(&lines, &TraceLine::End(TraceEnd { packets_seen: packets, sampled, told, over_limit, surplus, lost })).await;
}

/// Passes on what has been told since. False if nobody listens.
async fn pass_on(trace: &mut Trace, count: Option<u64>, tally: &mut Tally, lines: &mpsc::Sender<Bytes>) -> bool {
    for named in trace.read() {
        if count.is_some_and(|count| tally.told >= count) {
            tally.surplus += 1;
            continue;
        }
        if !say(lines, &TraceLine::Packet(named.into())).await {
            return false;
        }
        tally.told += 1;
    }
    true
}

async fn say(lines: &mpsc::Sender<Bytes>, line: &TraceLine) -> bool {
    let Ok(mut line) = serde_json::to_vec(line) else { return false };
    line.push(b'\n');
    put(lines, line.into()).await
}

async fn put(lines: &mpsc::Sender<Bytes>, line: Bytes) -> bool {
    matches!(timeout(PATIENCE, lines.send(line)).await, Ok(Ok(())))
}

impl From<Named> for TracedPacket {
    fn from(Named { told, vip, pool, backend, forward }: Named) -> Self {
        let action = match told.reason.action() {
            Action::Pass => "pass",
            Action::Forward => "forward",
            Action::Reply => "reply",
            Action::Drop => "drop",
        };
        Self {
            reason: told.reason.as_str().to_owned(),
            action: action.to_owned(),
            protocol: vip.as_ref().map(|_| protocol(told.protocol)),
            vip,
            pool,
            backend,
            forward: forward.map(|forward| forward.as_str().to_owned()),
        }
    }
}

fn protocol(number: u8) -> String {
    match number {
        1 | 58 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        other => other.to_string(),
    }
}

impl From<TraceError> for Fault {
    fn from(error: TraceError) -> Self {
        match error {
            TraceError::Busy | TraceError::Ending => Self::conflict(error.to_string()),
            TraceError::Load(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(TraceBegin { one_in, .. }) => write!(
                f,
                "one packet in {one_in} is told of\n{:<20} {:<8} {:<24} {:<24} {:<24} {:<8} PROTOCOL",
                "REASON", "ACTION", "VIP", "POOL", "BACKEND", "FORWARD"
            ),
            Self::Packet(TracedPacket { reason, action, vip, pool, backend, forward, protocol }) => {
                let or_none = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
                let (vip, pool, backend) = (or_none(vip), or_none(pool), or_none(backend));
                let (forward, protocol) = (or_none(forward), or_none(protocol));
                write!(f, "{reason:<20} {action:<8} {vip:<24} {pool:<24} {backend:<24} {forward:<8} {protocol}")
            }
            Self::End(TraceEnd { packets_seen, sampled, told, over_limit, surplus, lost }) => write!(
                f,
                "told: {told}; not told: {over_limit} above the limit of lines a second, {surplus} after the last that was \
                 asked for, {lost} lost; in the sample: {sampled}; packets seen: {packets_seen}"
            ),
        }
    }
}
