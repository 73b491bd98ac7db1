//! How a balancer becomes a member of its cluster: it tells and hears from then on, and takes over what others have in
//! transition if it has nothing of its own.

use super::{Service, ServiceError, TakeOver};
use crate::{
    bus::{Bus, Generations, LinkError, Sharer},
    config,
};
use std::sync::Arc;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

/// Why a balancer cannot be a member.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The kernel refuses.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The settings cannot be used.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl Service {
    /// Becomes a member. What goes on for it goes on in `tasks`. Before it steers, for slots that are in transition
    /// elsewhere have other owners than its configuration says.
    ///
    /// # Errors
    /// The kernel refuses, or the settings cannot be used; that no server is there is no error.
    pub async fn join(self: &Arc<Self>, settings: &config::Bus, tasks: &mut JoinSet<()>) -> Result<Bus, JoinError> {
        self.open_to_others()?;
        let sharer: Arc<dyn Sharer> = Arc::clone(self) as _;
        let bus = Bus::start(settings, sharer).await?;
        let (teller, publisher) = (Arc::clone(self), bus.publisher.clone());
        tasks.spawn(async move {
            if let Err(error) = teller.tell(publisher).await {
                error!("what this balancer learns is no longer told to the others: {error}");
            }
        });
        self.note_handover(bus.handover());
        let generations = bus.generations();
        if !self.is_resumed() {
            self.take_over_from(&generations).await?;
        }
        let keeper = Arc::clone(self);
        tasks.spawn(async move {
            let take = || {
                keeper.generations().unwrap_or_else(|error| {
                    error!("the slots in transition could not be read for others: {error}");
                    Vec::new()
                })
            };
            generations.keep(keeper.pools_changed(), take).await;
        });
        Ok(bus)
    }

    async fn take_over_from(&self, generations: &Generations) -> Result<(), ServiceError> {
        for (pool, generation) in generations.read(&self.pools()).await {
            let from = &generation.from;
            match self.take_over(&pool, &generation)? {
                TakeOver::Slots(slots) => {
                    info!(pool, from, slots, "takes over the slots in transition of another balancer");
                }
                TakeOver::Over => {}
                TakeOver::OtherKey => warn!(
                    pool,
                    from, "another balancer has another cluster key: its slots in transition are not taken over"
                ),
                TakeOver::OtherBackends => warn!(
                    pool,
                    from,
                    "another balancer has other backends, weights or states for this pool: its slots in transition are not \
                     taken over"
                ),
            }
        }
        Ok(())
    }
}
