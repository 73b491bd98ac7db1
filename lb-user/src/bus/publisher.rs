//! What a member has to tell, on its way to the bus: a bounded queue that nobody waits for.

use super::{
    BATCH_ENTRIES, BusCounts, BusNumbers, FLUSH, QUEUE_ENTRIES,
    link::Link,
    wire::{Batch, Notice},
};
use std::sync::{Arc, atomic::Ordering::Relaxed};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

/// Where a member says what others are to know. It never waits: what finds no room is counted.
#[derive(Clone, Debug)]
pub struct Publisher {
    queue: mpsc::Sender<Notice>,
    counts: Arc<BusCounts>,
}

impl Publisher {
    /// A queue, and its end.
    pub(super) fn new(counts: Arc<BusCounts>) -> (Self, mpsc::Receiver<Notice>) {
        let (queue, end) = mpsc::channel(QUEUE_ENTRIES);
        (Self { queue, counts }, end)
    }

    /// What its member has done so far.
    pub fn numbers(&self) -> BusNumbers {
        self.counts.numbers()
    }

    /// Tells it as soon as there is a bus.
    pub fn tell(&self, notice: Notice) {
        if self.queue.try_send(notice).is_err() {
            self.counts.lost.fetch_add(1, Relaxed);
        }
    }
}

/// Sends what is in the queue, as long as there is a bus; what comes while it is down stays there.
pub(super) async fn send(link: Arc<Link>, mut queue: mpsc::Receiver<Notice>, counts: Arc<BusCounts>) {
    let mut notices = Vec::with_capacity(BATCH_ENTRIES);
    // What comes after a pause goes at once; only what follows it is gathered.
    let mut due = Instant::now();
    loop {
        link.connected().await;
        let Some(first) = queue.recv().await else { return };
        notices.push(first);
        if queue.is_empty() {
            sleep_until(due).await;
        }
        while notices.len() < BATCH_ENTRIES
            && let Ok(notice) = queue.try_recv()
        {
            notices.push(notice);
        }
        link.connected().await;
        due = Instant::now() + FLUSH;
        let (tokens, flows): (Vec<_>, Vec<_>) = notices.drain(..).partition(|notice| notice.op.is_of_token());
        for (notices, subject) in [(tokens, link.tokens()), (flows, link.flows())] {
            if notices.is_empty() {
                continue;
            }
            let told = link.publish(subject, &Batch::of(link.name(), &notices)).await;
            let count = if told { &counts.sent } else { &counts.lost };
            count.fetch_add(notices.len() as u64, Relaxed);
        }
    }
}
