//! Health checks: one task for each backend that is checked, which connects to a VIP of its pool on that backend alone, by
//! the way that clients' packets take, and tells how it went.
//!
//! Nothing here decides what a backend does: it hands each outcome on.

mod failure;
mod http;
mod mptcp;
mod socket;
mod tls;
mod verdict;

pub use failure::Failure;
pub use verdict::{Health, Outcome, Verdict};

use crate::config::{self, Check};
use lb_common::{ids::BackendId, limits::HEALTH_CHECKS_AT_ONCE};
use socket::Transport;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    sync::Semaphore,
    task::AbortHandle,
    time::{sleep, timeout},
};

/// What is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The backend.
    pub id: BackendId,
    /// What is asked of it, and how often.
    pub health: config::Health,
    /// The mark that leads to it.
    pub mark: u32,
}

/// Who hears how the checks end.
pub trait Listener: Send + Sync + 'static {
    /// Why the backend cannot be reached at all, if that is known without asking it.
    fn obstacle(&self, id: BackendId) -> Option<String>;

    /// A check has ended.
    fn note(&self, id: BackendId, outcome: Outcome);
}

/// The checks under way. Dropping it ends them.
pub struct Checker<L> {
    listener: Arc<L>,
    permits: Arc<Semaphore>,
    tasks: HashMap<BackendId, (Plan, AbortHandle)>,
}

impl<L: Listener> Checker<L> {
    /// Without any checks yet.
    pub fn new(listener: Arc<L>) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(HEALTH_CHECKS_AT_ONCE)), tasks: HashMap::new() }
    }

    /// Checks these backends from now on and no others. What has not changed goes on as it is.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn follow(&mut self, plans: Vec<Plan>) {
        let mut before = std::mem::take(&mut self.tasks);
        for plan in plans {
            let task = match before.remove(&plan.id) {
                Some((same, task)) if same == plan => task,
                other => {
                    if let Some((_, task)) = other {
                        task.abort();
                    }
                    self.spawn(plan.clone())
                }
            };
            self.tasks.insert(plan.id, (plan, task));
        }
        for (_, task) in before.into_values() {
            task.abort();
        }
    }

    fn spawn(&self, plan: Plan) -> AbortHandle {
        let (listener, permits) = (Arc::clone(&self.listener), Arc::clone(&self.permits));
        tokio::spawn(async move {
            // The first ones too are spread over an interval, but for those that would keep a small farm waiting.
            sleep(first_delay(&plan.health)).await;
            loop {
                let begun = Instant::now();
                let Ok(permit) = permits.acquire().await else { return };
                let outcome = check(&plan, listener.obstacle(plan.id)).await;
                drop(permit);
                listener.note(plan.id, outcome);
                sleep(jittered(&plan.health).saturating_sub(begun.elapsed())).await;
            }
        })
        .abort_handle()
    }
}

impl<L> Drop for Checker<L> {
    fn drop(&mut self) {
        for (_, task) in self.tasks.values() {
            task.abort();
        }
    }
}

/// Checks a backend once.
async fn check(plan: &Plan, obstacle: Option<String>) -> Outcome {
    let begun = Instant::now();
    let limit = plan.health.timeout;
    let attempt = async {
        match obstacle {
            Some(obstacle) => Err(Failure::NoWay(obstacle)),
            None => timeout(limit, attempt(plan)).await.unwrap_or(Err(Failure::Late(limit))),
        }
    };
    let error = attempt.await.err().map(|failure| failure.to_string());
    Outcome { error, took: begun.elapsed() }
}

async fn attempt(plan: &Plan) -> Result<(), Failure> {
    let target = plan.health.target;
    let connect = |transport| socket::connect(target, plan.mark, transport);
    match &plan.health.check {
        Check::Tcp => connect(Transport::Tcp).await.map(drop),
        Check::Mptcp => mptcp::is_spoken(&connect(Transport::Mptcp).await?),
        Check::Http(request) => http::ask(connect(Transport::Tcp).await?, request).await,
        Check::Https(request, trust) => {
            let stream = tls::wrap(connect(Transport::Tcp).await?, &request.host, trust).await?;
            http::ask(stream, request).await
        }
    }
}

/// A random part of a second, or of the interval where that is shorter.
fn first_delay(health: &config::Health) -> Duration {
    const SPREAD_MAX: Duration = Duration::from_secs(1);
    health.interval.min(SPREAD_MAX) * random_percent(100) / 100
}

fn jittered(health: &config::Health) -> Duration {
    let percent = 100 - health.jitter_percent + random_percent(2 * health.jitter_percent);
    health.interval * percent / 100
}

/// Between 0 and `most`.
fn random_percent(most: u32) -> u32 {
    let random = getrandom::u32().unwrap_or_default();
    random % (most + 1)
}
