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
pub use mptcp::TokenCheck;
pub use verdict::{Health, Minting, Outcome, Verdict};

use crate::config::{self, Check};
use futures_util::future::join_all;
use lb_common::{
    ids::{BackendId, Token},
    limits::HEALTH_CHECKS_AT_ONCE,
};
use socket::Transport;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
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
    /// What its tokens are to say, where they name backends and MPTCP is asked for.
    pub token: Option<TokenCheck>,
}

/// Who hears how the checks end.
pub trait Listener: Send + Sync + 'static {
    /// Why the backend cannot be reached at all by a VIP, if that is known without asking it.
    fn obstacle(&self, id: BackendId, vip: IpAddr) -> Option<String>;

    /// The token that the server has given a check of a backend, over a family and from a port, once its third packet has
    /// left.
    fn server_token(&self, id: BackendId, over_ipv6: bool, port: u16) -> Option<Token>;

    /// A check has ended.
    fn note(&self, id: BackendId, outcome: Outcome);

    /// This machine could not make a check, which says nothing of the backend.
    fn note_unmade(&self, id: BackendId, why: String);
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
                let checked = check(&plan, &*listener).await;
                drop(permit);
                match checked {
                    Ok(outcome) => listener.note(plan.id, outcome),
                    Err(Unmade(why)) => listener.note_unmade(plan.id, why),
                }
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

/// Why this machine could not make a check.
#[derive(Debug, PartialEq, Eq)]
struct Unmade(String);

/// Checks a backend once, at all targets at the same time: it is well if it is well at each.
async fn check(plan: &Plan, listener: &impl Listener) -> Result<Outcome, Unmade> {
    let begun = Instant::now();
    let limit = plan.health.timeout;
    let attempts = plan.health.targets.iter().map(|&target| async move {
        let attempt = async {
            match listener.obstacle(plan.id, target.ip()) {
                Some(obstacle) => Err(Failure::NoWay(obstacle)),
                None => timeout(limit, attempt(plan, target, listener)).await.unwrap_or(Err(Failure::Late(limit))),
            }
        };
        (target, attempt.await)
    });
    let ends = join_all(attempts).await;
    let found = ends.iter().filter_map(|(_, end)| *end.as_ref().ok()?);
    let minting = found.reduce(|all, one| if all == one { all } else { Minting::PlainTcp });
    Ok(Outcome { error: all_well(&ends)?, minting, took: begun.elapsed() })
}

/// What is wrong, if anything: the target is named unless all of them have failed alike. Where nothing else is wrong than
/// that this machine could not ask, nobody knows.
fn all_well<T>(ends: &[(SocketAddr, Result<T, Failure>)]) -> Result<Option<String>, Unmade> {
    let failures = || ends.iter().filter_map(|(_, end)| end.as_ref().err());
    match failures().next() {
        Some(failure) if failures().all(Failure::is_ours) => Err(Unmade(failure.to_string())),
        _ => Ok(what_is_wrong(ends)),
    }
}

fn what_is_wrong<T>(ends: &[(SocketAddr, Result<T, Failure>)]) -> Option<String> {
    let words = |end: &Result<T, Failure>| end.as_ref().err().map(ToString::to_string);
    let (_, first) = ends.first()?;
    let first = words(first);
    if ends.iter().all(|(_, end)| words(end) == first) {
        return first;
    }
    let family = |target: &SocketAddr| if target.is_ipv4() { "IPv4" } else { "IPv6" };
    let said = ends.iter().filter_map(|(target, end)| Some(format!("{}: {}", family(target), words(end)?)));
    Some(said.collect::<Vec<_>>().join("; "))
}

async fn attempt(plan: &Plan, target: SocketAddr, listener: &impl Listener) -> Result<Option<Minting>, Failure> {
    let connect = |transport| socket::connect(target, plan.mark, transport);
    match (&plan.health.check, &plan.token) {
        (Check::Mptcp, Some(check)) => {
            let stream = connect(Transport::Mptcp).await?;
            return check.judge(&stream, plan.id, target, listener).await.map(Some);
        }
        (Check::Mptcp, None) => mptcp::is_spoken(&connect(Transport::Mptcp).await?)?,
        (Check::Tcp, _) => drop(connect(Transport::Tcp).await?),
        (Check::Http(request), _) => {
            http::ask(connect(Transport::Tcp).await?, &request.host_at(target), request).await?;
        }
        (Check::Https(request, trust), _) => {
            let host = request.host_at(target);
            let stream = tls::wrap(connect(Transport::Tcp).await?, &host, trust).await?;
            http::ask(stream, &host, request).await?;
        }
    }
    Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_backend_is_well_if_it_is_at_each_target_and_the_one_that_fails_is_named() {
        let late = || Err(Failure::Late(Duration::from_secs(1)));
        for (ends, wrong) in [
            ([Ok(()), Ok(())], None),
            ([Ok(()), Err(Failure::Refused)], Some("IPv6: connection refused")),
            ([Err(Failure::Refused), Err(Failure::Refused)], Some("connection refused")),
            ([late(), Err(Failure::Refused)], Some("IPv4: no answer in 1 s; IPv6: connection refused")),
        ] {
            assert_eq!(all_well(&at_both(ends)), Ok(wrong.map(str::to_owned)));
        }
    }

    #[test]
    fn that_this_machine_cannot_ask_is_no_fault_of_the_backend() {
        let no_files = || Err(Failure::Socket(io::Error::from_raw_os_error(nix::libc::EMFILE)));
        for ends in [[no_files(), no_files()], [Ok(()), no_files()]] {
            let Err(Unmade(why)) = all_well(&at_both(ends)) else { panic!("it says something of the backend") };
            assert!(why.contains("Too many open files"), "{why}");
        }
        assert!(matches!(all_well(&at_both([no_files(), Err(Failure::Refused)])), Ok(Some(_))));
    }

    fn at_both<T>(ends: [Result<T, Failure>; 2]) -> Vec<(SocketAddr, Result<T, Failure>)> {
        let targets = ["192.0.2.1:80", "[2001:db8::1]:80"].map(|target| target.parse().expect("a target"));
        targets.into_iter().zip(ends).collect()
    }
}
