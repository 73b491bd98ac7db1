//! The handing over of a balancer that goes: all that it knows is told to the others once more, and it hears from each that
//! this has been taken in.

use super::{
    ANSWER_WAIT, BATCH_ENTRIES, Sharer, TAKE_WAIT,
    link::Link,
    wire::{Batch, Notice},
};
use futures_util::StreamExt as _;
use std::{collections::BTreeSet, fmt, sync::Arc};
use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

/// What was handed over, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// The balancers that have it now, by their names on the bus.
    pub members: Vec<String>,
    /// How many tokens.
    pub tokens: usize,
    /// How many joined flows.
    pub flows: usize,
}

/// Why nothing is handed over, or not to all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandoverError {
    /// There is no connection.
    #[error("the bus is not reached")]
    Unreached,
    /// No other balancer answers.
    #[error("no other balancer answers on the bus")]
    Alone,
    /// Some have not said that they have it.
    #[error("{} did not say in {TAKE_WAIT:?} that it has been taken in", .0.join(" and "))]
    Silent(Vec<String>),
}

/// The way to hand over.
#[derive(Clone)]
pub struct Handover {
    pub(super) link: Arc<Link>,
    pub(super) sharer: Arc<dyn Sharer>,
}

impl Handover {
    /// Hands over.
    ///
    /// # Errors
    /// Not every balancer on the bus has all of it.
    pub async fn hand_over(&self) -> Result<HandedOver, HandoverError> {
        if !*self.link.changes().borrow() {
            return Err(HandoverError::Unreached);
        }
        let members = self.call_the_roll().await?;
        let source = Arc::clone(&self.sharer);
        let notices = spawn_blocking(move || source.recall()).await.unwrap_or_default();
        self.tell(&notices).await;
        let silent: Vec<_> = self.hear_from(&members).await?.into_iter().collect();
        if !silent.is_empty() {
            return Err(HandoverError::Silent(silent));
        }
        let tokens = notices.iter().filter(|notice| notice.op.is_of_token()).count();
        Ok(HandedOver { members: members.into_iter().collect(), tokens, flows: notices.len() - tokens })
    }

    /// The balancers that answer.
    async fn call_the_roll(&self) -> Result<BTreeSet<String>, HandoverError> {
        let mut answers = self.ask().await?;
        let (mut members, deadline) = (BTreeSet::new(), Instant::now() + ANSWER_WAIT);
        while let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await {
            members.extend(Batch::decode(&answer.payload).map(|batch| batch.from));
        }
        if members.is_empty() { Err(HandoverError::Alone) } else { Ok(members) }
    }

    async fn tell(&self, notices: &[Notice]) {
        for chunk in notices.chunks(BATCH_ENTRIES) {
            self.link.publish(self.link.handover(), &Batch::of(self.link.name(), chunk)).await;
        }
    }

    /// Waits for these to say that they have taken in all that came before; those that have not said so.
    async fn hear_from(&self, members: &BTreeSet<String>) -> Result<BTreeSet<String>, HandoverError> {
        let mut answers = self.ask().await?;
        let (mut silent, deadline) = (members.clone(), Instant::now() + TAKE_WAIT);
        while !silent.is_empty()
            && let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await
        {
            if let Ok(batch) = Batch::decode(&answer.payload) {
                silent.remove(&batch.from);
            }
        }
        Ok(silent)
    }

    /// Asks the balancers for a sign of life: each gives it when it has taken in what came before.
    async fn ask(&self) -> Result<async_nats::Subscriber, HandoverError> {
        self.link.ask(self.link.handover()).await.ok_or(HandoverError::Unreached)
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("link", &self.link).finish_non_exhaustive()
    }
}
