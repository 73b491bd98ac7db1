//! Follows the connections of VIPs: by events as they come, and by the kernel's list of sockets at the start, after a lost
//! event, and now and then.

use super::{
    Known, Report, Sink,
    events::{Event, Events, EventsError},
    mint::{Heard, Teller},
    sockets::Sockets,
};
use crate::config::AgentConfig;
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

/// How often the list is asked though no event is known to be lost. The kernel tells nothing of the end of a connection that
/// its client resets (`mptcp_check_fastclose` takes the token before the socket is closed), nor of an event for which it has
/// no memory. Balancers keep a token for minutes after its end, so that seconds do not matter.
const AUDIT: Duration = Duration::from_secs(10);
/// Of the time, what the reading of the list may take: a part in so many.
const AUDIT_SHARE: u32 = 100;
/// How long events gather before the next ones are read. The first after a quiet time are told at once; a busy host is not
/// woken for each.
const REST: Duration = Duration::from_millis(1);
/// Datagrams that are told together at most.
const BATCH: usize = 1000;

/// What happened so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections of VIPs that were created.
    pub created: AtomicU64,
    /// Those that ended.
    pub closed: AtomicU64,
    /// How often events were lost.
    pub lost: AtomicU64,
    /// How often the list of sockets was read.
    pub resyncs: AtomicU64,
}

/// What follows them.
pub struct Reporter {
    config: Arc<AgentConfig>,
    events: Events,
    sockets: Sockets,
    known: Arc<Known>,
    counts: Arc<Counts>,
    minter: Option<Teller>,
}

impl Reporter {
    /// Begins to listen to the kernel of this network namespace.
    ///
    /// # Errors
    /// It tells nothing.
    pub async fn subscribe(config: Arc<AgentConfig>) -> Result<Self, EventsError> {
        let events = Events::subscribe(config.event_buffer).await?;
        let (known, counts) = (Arc::default(), Arc::default());
        Ok(Self { config, events, sockets: Sockets::open()?, known, counts, minter: None })
    }

    /// Has one more told, of all connections and not only of those of VIPs.
    pub fn tell_minter(&mut self, minter: Teller) {
        self.minter = Some(minter);
    }

    /// The connections, for who asks.
    pub fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known)
    }

    /// What happened.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }

    /// Reads the kernel's list, and tells the difference.
    ///
    /// # Errors
    /// The kernel does not list its sockets.
    pub async fn resync(&mut self, sink: &mut impl Sink) -> Result<(), EventsError> {
        // What they tell of is in the list already.
        self.events.discard()?;
        let live = self.sockets.read().await?;
        self.counts.resyncs.fetch_add(1, Relaxed);
        if let Some(minter) = &self.minter {
            minter.tell(vec![Heard::All(live.iter().map(|live| live.token).collect())]);
        }
        let of_vips = live.into_iter().filter_map(|live| Some((live.token, self.config.pool_of(live.local)?.clone())));
        let reports = self.known.replace(of_vips.collect());
        tell(sink, reports);
        Ok(())
    }

    /// Tells what changes, for ever.
    ///
    /// # Errors
    /// The kernel tells no more.
    pub async fn follow(&mut self, sink: &mut impl Sink) -> Result<Infallible, EventsError> {
        let mut audit = Instant::now() + AUDIT;
        loop {
            let event = tokio::select! {
                event = self.events.next() => event?,
                () = sleep_until(audit) => {
                    let begun = Instant::now();
                    self.resync(sink).await?;
                    audit = Instant::now() + AUDIT.max(begun.elapsed() * AUDIT_SHARE);
                    continue;
                }
            };
            let mut events = vec![event];
            events.extend(self.events.at_hand(BATCH)?);
            let losses = events.iter().filter(|event| **event == Event::Lost).count();
            if let Some(minter) = &self.minter {
                minter.tell(events.iter().map(heard).collect());
            }
            tell(sink, events.into_iter().filter_map(|event| self.note(event)).collect());
            if losses > 0 {
                self.counts.lost.fetch_add(1, Relaxed);
                warn!("events about MPTCP connections were lost; reading all sockets instead");
                self.resync(sink).await?;
            }
            sleep(REST).await;
        }
    }

    fn note(&self, event: Event) -> Option<Report> {
        match event {
            Event::Created(token, local) => {
                let report = self.known.add(token, self.config.pool_of(local)?)?;
                self.counts.created.fetch_add(1, Relaxed);
                Some(report)
            }
            Event::Closed(token) => {
                let report = self.known.remove(token)?;
                self.counts.closed.fetch_add(1, Relaxed);
                Some(report)
            }
            Event::Lost => None,
        }
    }
}

const fn heard(event: &Event) -> Heard {
    match *event {
        Event::Created(token, _) => Heard::Created(token),
        Event::Closed(token) => Heard::Closed(token),
        Event::Lost => Heard::Lost,
    }
}

fn tell(sink: &mut impl Sink, reports: Vec<Report>) {
    if !reports.is_empty() {
        sink.take(reports);
    }
}
