//! What a balancer shares with its cluster: what its data path has learned, in the others' words, and what others tell, by
//! the rules of its own data path.

use super::{Service, ServiceError, State};
use crate::{
    bpf::AwaitedEvents,
    bus::{
        BusCounts, Publisher, Refusal, Sharer,
        wire::{Batch, Entry, Notice, Op},
    },
    config::{Join, Way},
    metrics::BusCount,
    sweep::Ended,
};
use aya::maps::MapError;
use lb_common::{
    ids::{BackendId, FlowHash, PoolId, Token},
    share::{Entered, Event},
    tables::{FlowEntry, Globals, Holder, TokenKey},
};
use std::{io, sync::atomic::Ordering::Relaxed};
use tracing::error;

/// Events that are named at once: for so long nobody else has the tables.
const EVENTS_AT_ONCE: usize = 1000;

impl Service {
    /// Has the data path tell what it learns from now on, and the program loaded that enters what others tell.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open_to_others(&self) -> Result<(), ServiceError> {
        let mut state = self.state();
        state.balancer.load_enter()?;
        let globals = state.balancer.globals.read(0)?;
        Ok(state.balancer.globals.write(0, Globals { tells: 1, ..globals })?)
    }

    /// Tells what the data path learns and what sweeps end, from now on and until the bus ends.
    ///
    /// # Errors
    /// The events cannot be waited for.
    pub async fn tell(&self, publisher: Publisher) -> io::Result<()> {
        let events = {
            let mut state = self.state();
            state.publisher = Some(publisher.clone());
            state.balancer.events.take()
        };
        let Some(events) = events else { return Ok(()) };
        let mut events: AwaitedEvents = events.waited_for()?;
        loop {
            let some = events.some(EVENTS_AT_ONCE).await?;
            self.state().notices(&some).for_each(|notice| publisher.tell(notice));
        }
    }
}

impl Sharer for Service {
    fn enter(&self, batch: &Batch, counts: &BusCounts) {
        let mut state = self.state();
        let places: Vec<_> = batch.places.iter().map(|(pool, backend)| state.place(pool, backend)).collect();
        for entry in &batch.entries {
            match state.enter(places.get(usize::from(entry.place)).copied().flatten(), entry) {
                Ok(()) => drop(counts.received.fetch_add(1, Relaxed)),
                Err(refusal) => counts.refuse(refusal, 1),
            }
        }
    }

    fn recall(&self) -> Vec<Notice> {
        let state = self.state();
        state.recall()
    }
}

/// A backend by the names that others have for it, and the ways of its pool.
#[derive(Clone, Copy)]
struct Place {
    pool: PoolId,
    backend: BackendId,
    learns: bool,
    takes_reports: bool,
    reads_tokens: bool,
}

impl State {
    fn place(&self, pool: &str, backend: &str) -> Option<Place> {
        let named = |known: &&super::Known| known.row.name.pool == pool && known.row.name.name == backend;
        let known = self.backends.values().filter(named).max_by_key(|known| self.is_configured(known.row.id))?;
        let config = self.config.pools.iter().find(|config| config.name.as_str() == pool)?;
        let has = |way| matches!(&config.join, Join::By(ways) if ways.contains(&way));
        Some(Place {
            pool: known.row.pool,
            backend: known.row.id,
            learns: has(Way::Learn),
            takes_reports: has(Way::Report),
            reads_tokens: has(Way::Token),
        })
    }

    fn enter(&mut self, place: Option<Place>, entry: &Entry) -> Result<(), Refusal> {
        let place = place.ok_or(Refusal::Unknown)?;
        let Place { pool, backend, learns, takes_reports, reads_tokens } = place;
        let is_wanted = match (entry.op.is_of_token(), entry.flow) {
            (true, Notice::BY_AGENT) => takes_reports,
            (true, _) => learns,
            (false, _) => learns || takes_reports || reads_tokens,
        };
        if !is_wanted {
            return Err(Refusal::Unwanted);
        }
        let key = TokenKey::new(pool, Token::from_wire(entry.value.to_be_bytes()));
        let flow = FlowHash(entry.flow);
        let (kind, value) = match entry.op {
            Op::Hold => (Event::LEARNED, u32::from_ne_bytes(key.token.to_wire())),
            Op::Recall => (Event::RECALLED, u32::from_ne_bytes(key.token.to_wire())),
            Op::Join => (Event::JOINED, entry.value),
            Op::Close => return self.close(key, backend, flow).map_err(|error| failed(&error)),
            Op::End => return self.end_flow(flow, backend, entry.value).map_err(|error| failed(&error)),
        };
        let event = Event { flow, value, pool, backend, kind, ..Event::default() };
        let entered: Entered = self.balancer.enter(&event).map_err(|error| failed(&error.into()))?;
        Refusal::of(entered).map_or(Ok(()), Err)
    }

    /// A connection's first subflow has closed elsewhere; or, says an agent, the connection has ended.
    fn close(&mut self, key: TokenKey, backend: BackendId, flow: FlowHash) -> Result<(), ServiceError> {
        let Some(mut entry) = self.balancer.tokens.read(key)? else { return Ok(()) };
        let is_it = |holder: &Holder| holder.is_some() && holder.backend == backend && holder.flow == flow;
        let Some(holder) = entry.holders.iter_mut().find(|holder| is_it(holder)) else { return Ok(()) };
        if flow != FlowHash(Notice::BY_AGENT) {
            self.heard_closed.insert(flow, crate::clock::tick());
            return Ok(());
        }
        *holder = Holder::default();
        if entry.holders.iter().any(Holder::is_some) {
            self.balancer.tokens.write(key, entry)?;
        } else {
            self.balancer.tokens.remove(key)?;
        }
        Ok(())
    }

    /// A flow has ended elsewhere; not if its packets come here.
    fn end_flow(&mut self, flow: FlowHash, backend: BackendId, sequence: u32) -> Result<(), ServiceError> {
        let known = self.balancer.joined.read(flow)?;
        let is_it = |entry: &FlowEntry| {
            entry.backend == backend && entry.sequence == sequence && entry.state & FlowEntry::UNPROVEN != 0
        };
        if known.is_some_and(|entry| is_it(&entry)) {
            self.balancer.joined.remove(flow)?;
        }
        Ok(())
    }

    /// Events in the words of others; those of backends that are gone say nothing.
    fn notices(&self, events: &[Event]) -> impl Iterator<Item = Notice> {
        let notice = |event: &Event| match event.kind {
            Event::LEARNED => self.notice(event.backend, Op::Hold, event.token().number(), event.flow),
            Event::JOINED => self.notice(event.backend, Op::Join, event.value, event.flow),
            _ => None,
        };
        events.iter().filter_map(notice).collect::<Vec<_>>().into_iter()
    }

    fn notice(&self, backend: BackendId, op: Op, value: u32, flow: FlowHash) -> Option<Notice> {
        let name = &self.backends.get(&backend)?.row.name;
        Some(Notice { pool: name.pool.clone(), backend: name.name.clone(), op, value, flow: flow.0 })
    }

    /// All tokens that one backend holds, and all joined flows.
    fn recall(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (key, entry) in self.balancer.tokens.entries().flatten() {
            for holder in entry.holders.iter().filter(|holder| holder.is_some() && holder.state != Holder::CROWD) {
                let token = key.token.number();
                notices.extend(self.notice(holder.backend, Op::Recall, token, holder.flow));
                if self.sweeper.has_closed(holder) {
                    notices.extend(self.notice(holder.backend, Op::Close, token, holder.flow));
                }
            }
        }
        for (flow, entry) in self.balancer.joined.entries().flatten() {
            if entry.state & FlowEntry::CLOSED == 0 {
                notices.extend(self.notice(entry.backend, Op::Join, entry.sequence, flow));
            }
        }
        notices
    }

    /// What has gone over the bus, if there is one.
    pub(super) fn bus_count(&self) -> Result<Option<BusCount>, MapError> {
        let Some(publisher) = &self.publisher else { return Ok(None) };
        let events_lost = self.balancer.events_lost.read(0)?.iter().sum();
        Ok(Some(BusCount { member: publisher.numbers(), events_lost }))
    }

    /// Tells what a sweep has ended.
    pub(super) fn tell_ended(&self, ended: &[Ended]) {
        let Some(publisher) = &self.publisher else { return };
        for ended in ended {
            let notice = match *ended {
                Ended::Token { key, holder } => self.notice(holder.backend, Op::Close, key.token.number(), holder.flow),
                Ended::Flow { flow, entry } => self.notice(entry.backend, Op::End, entry.sequence, flow),
            };
            if let Some(notice) = notice {
                publisher.tell(notice);
            }
        }
    }
}

fn failed(problem: &ServiceError) -> Refusal {
    error!("what another member told could not be entered: {problem}");
    Refusal::Full
}
