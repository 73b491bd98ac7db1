//! Following the kernel: which of its changes matter to the ways to the backends, and keeping their neighbours fresh.
//!
//! A neighbour entry that no packet of the stack uses goes stale and is collected in the end. So a stale entry that
//! Weir uses is confirmed at once, and a silent one is asked again. Whoever waits sees "something changed", not what:
//! resolving anew is cheap and cannot get out of step.

use super::error::ResolveError;
use super::neighbour::{self, State};
use super::{Mac, Neighbour};
use futures_util::{Stream, StreamExt as _};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::NeighbourMessage;
use rtnetlink::{Handle, MulticastGroup, sys::SocketAddr};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// What the kernel is asked to tell.
pub(super) const GROUPS: [MulticastGroup; 9] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
    MulticastGroup::Nexthop,
];

/// How often silent neighbours are asked again.
const RETRY: Duration = Duration::from_secs(5);
/// A burst of changes has ended when nothing has followed for so long.
const QUIET: Duration = Duration::from_millis(50);
/// A burst of changes is reported after this time even if it goes on.
const BURST_MAX: Duration = Duration::from_secs(1);

/// The neighbours that Weir sends to, and the addresses that it was told of.
#[derive(Debug)]
pub(super) struct Neighbours {
    /// `None` where the neighbour is silent or not resolved yet.
    followed: Mutex<HashMap<Neighbour, Option<Mac>>>,
    /// Moves with every event about a followed neighbour.
    heard: watch::Receiver<()>,
    /// Moves with every change that may move a backend's way.
    changed: watch::Receiver<()>,
}

/// Changes that may move a backend's way.
#[derive(Debug)]
pub struct Changes {
    moved: watch::Receiver<()>,
    /// When the burst of a change that nobody has been told of ends at the latest.
    burst_end: Option<Instant>,
}

impl Changes {
    fn new(moved: watch::Receiver<()>) -> Self {
        Self { moved, burst_end: None }
    }

    /// Waits for a change, and for the burst around it to end (50 ms of quiet, at most 1 s). Changes since the last
    /// call count, also those of a wait that was cancelled.
    ///
    /// # Errors
    /// The resolver is gone.
    pub async fn next(&mut self) -> Result<(), ResolveError> {
        let burst_end = if let Some(burst_end) = self.burst_end {
            burst_end
        } else {
            self.moved.changed().await.map_err(|_| ResolveError::Closed)?;
            *self.burst_end.insert(Instant::now() + BURST_MAX)
        };
        loop {
            let quiet = burst_end.min(Instant::now() + QUIET);
            match timeout_at(quiet, self.moved.changed()).await {
                Ok(Ok(())) if Instant::now() < burst_end => {}
                Ok(Err(_)) => return Err(ResolveError::Closed),
                Ok(Ok(())) | Err(_) => break,
            }
        }
        self.burst_end = None;
        Ok(())
    }
}

impl Neighbours {
    pub(super) fn changes(&self) -> Changes {
        Changes::new(from_now_on(&self.changed))
    }

    /// Follows a neighbour; the receiver moves with events about any, from now on.
    pub(super) fn follow(&self, neighbour: Neighbour) -> watch::Receiver<()> {
        let heard = from_now_on(&self.heard);
        self.followed().entry(neighbour).or_default();
        heard
    }

    /// Notes an address that the caller knows already.
    pub(super) fn learn(&self, neighbour: Neighbour, mac: Mac) {
        self.followed().insert(neighbour, Some(mac));
    }

    pub(super) fn forget(&self) {
        self.followed().clear();
    }

    fn silent(&self) -> Vec<Neighbour> {
        let followed = self.followed();
        let silent = followed.iter().filter(|(_, mac)| mac.is_none());
        silent.map(|(neighbour, _)| *neighbour).collect()
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<Neighbour, Option<Mac>>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn from_now_on(receiver: &watch::Receiver<()>) -> watch::Receiver<()> {
    let mut receiver = receiver.clone();
    receiver.mark_unchanged();
    receiver
}

/// Takes in the kernel's events. Whoever waits for one learns when it is gone.
pub(super) struct Follower {
    netlink: Handle,
    neighbours: Arc<Neighbours>,
    heard: watch::Sender<()>,
    changed: watch::Sender<()>,
}

/// Whether an event was about a neighbour that Weir sends to.
enum Followed {
    Yes,
    No,
}

impl Follower {
    pub(super) fn new(netlink: Handle) -> (Self, Arc<Neighbours>) {
        let (heard, changed) = (watch::Sender::default(), watch::Sender::default());
        let neighbours =
            Arc::new(Neighbours { followed: Mutex::default(), heard: heard.subscribe(), changed: changed.subscribe() });
        let follower = Self { netlink, neighbours: Arc::clone(&neighbours), heard, changed };
        (follower, neighbours)
    }

    /// Runs until the netlink socket closes.
    pub(super) async fn run(
        self,
        mut events: impl Stream<Item = (NetlinkMessage<RouteNetlinkMessage>, SocketAddr)> + Unpin,
    ) {
        let mut retry = interval(RETRY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.next() => {
                    let Some((event, _)) = event else { return };
                    self.take_in(event.payload).await;
                }
                _ = retry.tick() => {
                    for neighbour in self.neighbours.silent() {
                        self.ask(neighbour).await;
                    }
                }
            }
        }
    }

    async fn take_in(&self, event: NetlinkPayload<RouteNetlinkMessage>) {
        match event {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) => {
                self.take_in_entry(&entry).await;
            }
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelNeighbour(entry)) => {
                if let Some(neighbour) = neighbour::of_entry(&entry) {
                    self.hear(neighbour, None);
                }
            }
            // Also an overrun: what was lost may have been of any kind.
            _ => {
                self.changed.send_replace(());
                self.heard.send_replace(());
            }
        }
    }

    async fn take_in_entry(&self, entry: &NeighbourMessage) {
        let Some(neighbour) = neighbour::of_entry(entry) else {
            return;
        };
        let state = neighbour::entry_state(entry);
        let followed = self.hear(neighbour, state.mac());
        if let (Followed::Yes, State::Stale(_)) = (followed, state) {
            self.ask(neighbour).await;
        }
    }

    /// Notes what the kernel now knows of a neighbour.
    fn hear(&self, neighbour: Neighbour, mac: Option<Mac>) -> Followed {
        let mut followed = self.neighbours.followed();
        let Some(known) = followed.get_mut(&neighbour) else {
            return Followed::No;
        };
        let moved = *known != mac;
        *known = mac;
        drop(followed);
        if moved {
            self.changed.send_replace(());
        }
        self.heard.send_replace(());
        Followed::Yes
    }

    /// A neighbour that cannot be asked now (its interface is down or gone) is asked again with the silent ones.
    async fn ask(&self, neighbour: Neighbour) {
        let _ = neighbour::refresh(&self.netlink, neighbour).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[tokio::test]
    async fn a_change_outlives_a_wait_that_is_cancelled() {
        let (sender, moved) = watch::channel(());
        let mut changes = Changes::new(moved);
        sender.send(()).expect("somebody waits");
        assert!(changes.next().now_or_never().is_none(), "the burst has not ended");
        changes.next().await.expect("the change");
        assert!(changes.next().now_or_never().is_none() && changes.burst_end.is_none(), "there was one change");
    }
}
