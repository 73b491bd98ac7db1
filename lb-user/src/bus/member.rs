//! A member of a cluster: it tells and hears, answers who asks, and catches up when it starts and when the bus is back.

use super::{
    ANSWER_WAIT, BATCH_ENTRIES, BusCounts, CATCH_UP_WAIT, CONNECT_WAIT, Generations, Handover, Publisher, Refusal,
    link::{Link, LinkError},
    publisher,
    wire::{Batch, Notice},
};
use crate::config;
use async_nats::{Message, StatusCode, Subject, Subscriber};
use futures_util::StreamExt as _;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tracing::{info, warn};

/// How long who missed messages waits before it looks whether it has missed more.
const OVERRUN_PAUSE: Duration = Duration::from_secs(10);

/// Who has something to share.
pub trait Sharer: Send + Sync + 'static {
    /// Whether it takes in what others tell, and asks for it.
    fn listens(&self) -> bool {
        true
    }
    /// Takes in what another member tells, and counts what it has taken, and why not the rest.
    fn enter(&self, batch: &Batch, counts: &BusCounts);
    /// All that it knows, for who has missed it.
    fn recall(&self) -> Vec<Notice>;
}

/// A running member.
pub struct Bus {
    /// Where to say what others are to know.
    pub publisher: Publisher,
    /// What has been done.
    pub counts: Arc<BusCounts>,
    link: Arc<Link>,
    sharer: Arc<dyn Sharer>,
    caught_up: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

impl Bus {
    /// Begins to tell, to hear and to answer; nobody is waited for.
    ///
    /// # Errors
    /// The settings cannot be used.
    pub async fn start(settings: &config::Bus, sharer: Arc<dyn Sharer>) -> Result<Self, LinkError> {
        let counts = Arc::<BusCounts>::default();
        let link = Arc::new(Link::begin(settings, Arc::clone(&counts)).await?);
        let (publisher, queue) = Publisher::new(Arc::clone(&counts));
        let mut tasks = JoinSet::new();
        let told = if sharer.listens() { vec![link.tokens(), link.flows(), link.handover()] } else { Vec::new() };
        for subject in told.into_iter().chain([link.catch_up()]) {
            let Some(messages) = link.listen(subject).await else { continue };
            tasks.spawn(hear(Arc::clone(&link), messages, Arc::clone(&sharer), Arc::clone(&counts)));
        }
        tasks.spawn(publisher::send(Arc::clone(&link), queue, Arc::clone(&counts)));
        let (tell, caught_up) = watch::channel(false);
        tasks.spawn(follow(Arc::clone(&link), Arc::clone(&sharer), Arc::clone(&counts), tell));
        Ok(Self { publisher, counts, link, sharer, caught_up, tasks })
    }

    /// Waits until what others know is known here, or for as long as that may take; says so if it is not.
    pub async fn catch_up(&self) {
        if timeout(CONNECT_WAIT, self.link.connected()).await.is_err() {
            warn!("the bus is not reached: goes on alone, and catches up when it is");
            return;
        }
        let mut caught_up = self.caught_up.clone();
        if timeout(CATCH_UP_WAIT + 2 * ANSWER_WAIT, caught_up.wait_for(|done| *done)).await.is_err() {
            warn!("others have not told all that they know: goes on without");
        }
    }

    /// Where the generations of pools are written and read.
    pub fn generations(&self) -> Generations {
        Generations::new(Arc::clone(&self.link))
    }

    /// The way to hand over to the others.
    pub fn handover(&self) -> Handover {
        Handover { link: Arc::clone(&self.link), sharer: Arc::clone(&self.sharer) }
    }

    /// Ends the member.
    pub async fn end(mut self) {
        self.tasks.shutdown().await;
    }
}

/// Catches up in both directions each time that the bus is there.
async fn follow(link: Arc<Link>, sharer: Arc<dyn Sharer>, counts: Arc<BusCounts>, tell: watch::Sender<bool>) {
    let (mut changes, mut due) = (link.changes(), Instant::now());
    loop {
        if *changes.borrow_and_update() {
            if sharer.listens() {
                let members = ask(&link, &sharer, &counts).await;
                info!(members, "on the bus, and caught up with the others");
            } else {
                info!("on the bus");
            }
            counts.caught_up.store(true, Relaxed);
            tell.send_replace(true);
            tell_all(&link, &sharer, None).await;
        } else if counts.caught_up.swap(false, Relaxed) {
            warn!("the bus is lost: goes on alone, and catches up when it is back");
        }
        loop {
            tokio::select! {
                there = changes.changed() => match there {
                    Ok(()) => break,
                    Err(_) => return,
                },
                () = missed(&link, due), if sharer.listens() => {
                    warn!("messages on the bus were missed, because they came too fast: asks the others again");
                    ask(&link, &sharer, &counts).await;
                    due = Instant::now() + OVERRUN_PAUSE;
                }
            }
        }
    }
}

/// Waits until messages have been missed, and for this time at least.
async fn missed(link: &Link, due: Instant) {
    sleep_until(due).await;
    link.missed().await;
}

/// Asks the others for what they know, and takes it in; how many have answered in full.
async fn ask(link: &Link, sharer: &Arc<dyn Sharer>, counts: &Arc<BusCounts>) -> usize {
    let Some(mut answers) = link.ask(link.catch_up()).await else { return 0 };
    let deadline = Instant::now() + CATCH_UP_WAIT;
    let mut members: BTreeMap<String, bool> = BTreeMap::new();
    loop {
        let next = deadline.min(Instant::now() + ANSWER_WAIT);
        let Ok(Some(message)) = timeout_at(next, answers.next()).await else { break };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            break;
        }
        if let Some((from, is_last)) = take(message, sharer, counts).await {
            *members.entry(from).or_default() |= is_last;
        }
    }
    members.values().filter(|is_done| **is_done).count()
}

/// Tells all that is known here: to who has asked, or to everybody.
async fn tell_all(link: &Link, sharer: &Arc<dyn Sharer>, to: Option<Subject>) {
    let source = Arc::clone(sharer);
    let Ok(notices) = spawn_blocking(move || source.recall()).await else { return };
    let (tokens, flows): (Vec<_>, Vec<_>) = notices.into_iter().partition(|notice| notice.op.is_of_token());
    for (notices, subject) in [(tokens, link.tokens()), (flows, link.flows())] {
        for chunk in notices.chunks(BATCH_ENTRIES) {
            let subject = to.clone().unwrap_or_else(|| subject.clone());
            link.publish(subject, &Batch::of(link.name(), chunk)).await;
        }
    }
    if let Some(to) = to {
        link.publish(to, &Batch { is_last: true, ..Batch::of(link.name(), &[]) }).await;
    }
}

/// Hears what comes on a subject. Who asks is answered after all that came there before has been taken in.
async fn hear(link: Arc<Link>, mut messages: Subscriber, sharer: Arc<dyn Sharer>, counts: Arc<BusCounts>) {
    while let Some(message) = messages.next().await {
        match message.reply.clone() {
            Some(who) if message.subject == link.catch_up() => tell_all(&link, &sharer, Some(who)).await,
            who => {
                take(message, &sharer, &counts).await;
                if let Some(who) = who {
                    link.publish(who, &Batch::of(link.name(), &[])).await;
                }
            }
        }
    }
}

/// Takes in a message; whose it is, and whether it is the last.
async fn take(message: Message, sharer: &Arc<dyn Sharer>, counts: &Arc<BusCounts>) -> Option<(String, bool)> {
    let batch = match Batch::decode(&message.payload) {
        Ok(batch) => batch,
        Err(error) => {
            counts.refuse(Refusal::Illegible, 1);
            if counts.illegible.may_tell(Instant::now().into_std()) {
                warn!("a message on the bus is left out: {error}; this is said once a minute at most");
            }
            return None;
        }
    };
    let (sharer, counts) = (Arc::clone(sharer), Arc::clone(counts));
    spawn_blocking(move || {
        sharer.enter(&batch, &counts);
        (batch.from, batch.is_last)
    })
    .await
    .ok()
}
