//! The generations of this balancer's pools, for others to take over, and those of others, which a balancer that starts
//! with nothing takes over as if a controller before it had left them.

use super::{Known, Service, ServiceError, State, duty::Duty, ledger::RingEntry, rings::Ring};
use crate::{
    bus::generations::{Backend, Generation, Previous, Window},
    clock,
    config::BackendState,
    layout::BackendRow,
    numbering::BackendName,
};
use aya::maps::MapError;
use lb_common::{
    hash::sip,
    ids::{BackendId, PoolId},
    ring::{self, Member},
    tables::{RING_SLOTS, Slot},
    transition::Deadlines,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::Notify;

/// The pools that this balancer has changed and nobody was told of.
#[derive(Debug, Default)]
pub(super) struct Changed {
    pools: BTreeSet<PoolId>,
    notify: Arc<Notify>,
}

/// What has become of the generation that another balancer has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// So many slots in transition are known now.
    Slots(usize),
    /// Nothing is in transition any more.
    Over,
    /// It is of another cluster key.
    OtherKey,
    /// It is of a pool with other backends.
    OtherBackends,
}

impl Changed {
    /// Notes that slots of a pool have changed.
    pub(super) fn note(&mut self, pool: PoolId) {
        self.pools.insert(pool);
        self.notify.notify_one();
    }
}

impl Service {
    /// Moves when this balancer has changed a pool.
    pub fn pools_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.state().changed.notify)
    }

    /// The pools of the configuration.
    pub fn pools(&self) -> Vec<String> {
        self.state().layout.pools.iter().map(|pool| pool.name.clone()).collect()
    }

    /// The pools that this balancer has changed since it was last asked, as they are now.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn generations(&self) -> Result<Vec<(String, Generation)>, MapError> {
        let mut state = self.state();
        let times = Times::now();
        let changed = std::mem::take(&mut state.changed.pools);
        let [key_mark, _] = state.key_marks()?;
        Ok(changed.into_iter().filter_map(|pool| state.generation(pool, key_mark, times)).collect())
    }

    /// Takes over a pool of which nothing was known, as another balancer has left it.
    ///
    /// # Errors
    /// The kernel refuses an entry, or there are no numbers for the backends.
    pub fn take_over(&self, pool: &str, generation: &Generation) -> Result<TakeOver, ServiceError> {
        let mut state = self.state();
        let times = Times::now();
        let deadlines = times.deadlines(&generation.window);
        if generation.previous.is_empty() || deadlines.ends_at <= times.monotonic {
            return Ok(TakeOver::Over);
        }
        if !state.key_marks()?.contains(&generation.key_mark) {
            return Ok(TakeOver::OtherKey);
        }
        if generation.configuration() != state.configuration(pool) {
            return Ok(TakeOver::OtherBackends);
        }
        state.adopt(pool, generation, deadlines)?;
        Ok(TakeOver::Slots(generation.previous.len()))
    }
}

impl State {
    /// What tells cluster keys apart and tells nothing of them: the mark of the key, and of the former one while that is
    /// rotated out.
    fn key_marks(&self) -> Result<[u64; 2], MapError> {
        let globals = self.balancer.globals.read(0)?;
        let mark = |key| sip::sip13_bytes(key, b"weir generations");
        let former = if globals.rotation.is_under_way() { globals.former_key() } else { globals.key() };
        Ok([mark(globals.key()), mark(former)])
    }

    fn generation(&self, pool: PoolId, key_mark: u64, times: Times) -> Option<(String, Generation)> {
        let name = &self.layout.pools.iter().find(|row| row.id == pool)?.name;
        let ring = self.rings.get(&pool)?;
        let mut backends = Backends::default();
        let configured = self.layout.backends.iter().filter(|row| row.pool == pool);
        let configured = configured.map(|row| (backends.place(row), row.weight, row.state)).collect();
        let place = |backends: &mut Backends, id| Some(backends.place(&self.backends.get(&id)?.row));
        let mut members = Vec::new();
        for member in ring.members() {
            members.push((place(&mut backends, BackendId(member.id))?, member.weight));
        }
        let (mut previous, mut gap) = (Vec::new(), 0);
        for slot in ring.transitions.slots() {
            if !slot.is_in_transition() {
                gap += 1;
                continue;
            }
            let backend = place(&mut backends, slot.previous())?;
            previous.push(Previous { gap: std::mem::take(&mut gap), backend, keeps_datagrams: slot.keeps_datagrams() });
        }
        let from = self.config.bus.as_ref().map_or_else(String::new, |bus| bus.name.to_string());
        let window = times.window(ring.transitions.deadlines());
        let backends = backends.list;
        Some((name.clone(), Generation { from, key_mark, backends, configured, members, previous, window }))
    }

    /// The backends of a pool's configuration, and what is said of each.
    fn configuration(&self, pool: &str) -> BTreeMap<(&str, IpAddr), (u16, BackendState)> {
        let rows = self.layout.backends.iter().filter(|row| row.name.pool == pool);
        rows.map(|row| ((row.name.name.as_str(), row.name.address), (row.weight, row.state))).collect()
    }

    fn adopt(&mut self, pool: &str, generation: &Generation, deadlines: Deadlines) -> Result<(), ServiceError> {
        let pool_id = self.numbers.pool(pool);
        let mut ids = Vec::new();
        for backend in &generation.backends {
            ids.push(self.adopt_backend(pool_id, pool, backend)?);
        }
        let members: Vec<_> = generation
            .members
            .iter()
            .map(|&(place, weight)| Member {
                id: ids[usize::from(place)].0,
                identity: ring::identity(&generation.backends[usize::from(place)].name),
                weight,
            })
            .collect();
        let mut slots: Vec<_> =
            ring::build(&members).into_iter().map(|owner| Slot::settled(BackendId(owner))).collect();
        for (place, previous) in generation.slots() {
            let Some(slot) = usize::try_from(place).ok().and_then(|place| slots.get_mut(place)) else { continue };
            let in_transition = Slot::in_transition(slot.owner(), ids[usize::from(previous.backend)]);
            *slot = if previous.keeps_datagrams { in_transition.keeping_datagrams() } else { in_transition };
        }
        let entry = RingEntry { times: deadlines.into(), full_packets: 0, full_at: None };
        self.rings.insert(pool_id, Ring::resumed(slots, &entry));
        self.save()?;
        let all: Vec<u32> = (0..RING_SLOTS).collect();
        Ok(self.balancer.rings.write(pool_id, self.rings[&pool_id].transitions.slots(), &all)?)
    }

    /// A backend by its number here; one that has left the configuration keeps its connections.
    fn adopt_backend(&mut self, pool_id: PoolId, pool: &str, backend: &Backend) -> Result<BackendId, ServiceError> {
        let name = BackendName { pool: pool.to_owned(), name: backend.name.clone(), address: backend.address };
        let id = self.numbers.take_in(&name)?;
        if !self.backends.contains_key(&id) {
            let row = BackendRow {
                id,
                name,
                pool: pool_id,
                weight: 0,
                state: BackendState::Up,
                forward: backend.forward,
                quic_servers: Vec::new(),
            };
            let sent_before = super::report::sum(&self.balancer.sent.read(u32::from(id.0))?);
            self.backends.insert(id, Known { sent_before, ..Known::new(row, Duty::Leaving) });
        }
        Ok(id)
    }
}

impl Generation {
    fn configuration(&self) -> BTreeMap<(&str, IpAddr), (u16, BackendState)> {
        let configured = self.configured.iter().filter_map(|&(place, weight, state)| {
            let backend = self.backends.get(usize::from(place))?;
            Some(((backend.name.as_str(), backend.address), (weight, state)))
        });
        configured.collect()
    }
}

/// Backends, each once.
#[derive(Default)]
struct Backends {
    list: Vec<Backend>,
    places: BTreeMap<BackendId, u16>,
}

impl Backends {
    fn place(&mut self, row: &BackendRow) -> u16 {
        *self.places.entry(row.id).or_insert_with(|| {
            let BackendName { name, address, .. } = &row.name;
            self.list.push(Backend { name: name.clone(), address: *address, forward: row.forward });
            u16::try_from(self.list.len() - 1).unwrap_or(u16::MAX)
        })
    }
}

/// The kernel's monotonic clock and the one on the wall, at one time: machines have only the latter in common.
#[derive(Clone, Copy)]
struct Times {
    monotonic: Duration,
    unix: Duration,
}

impl Times {
    fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { monotonic: clock::now(), unix }
    }

    fn window(self, deadlines: Deadlines) -> Window {
        let unix_ms = |at: Duration| millis((self.unix + at).saturating_sub(self.monotonic));
        Window {
            length_ms: millis(deadlines.length),
            pins_at_ms: unix_ms(deadlines.pins_at),
            ends_at_ms: unix_ms(deadlines.ends_at),
            moves_datagrams_at_ms: unix_ms(deadlines.moves_datagrams_at),
            is_extended: deadlines.is_extended,
        }
    }

    /// A clock that is wrong makes no window longer than it was to be.
    fn deadlines(self, window: &Window) -> Deadlines {
        let length = Duration::from_millis(window.length_ms);
        let latest = self.monotonic.saturating_add(length);
        let at = |unix_ms: u64| {
            let unix = Duration::from_millis(unix_ms);
            self.monotonic.saturating_add(unix).saturating_sub(self.unix).min(latest)
        };
        Deadlines {
            length,
            pins_at: at(window.pins_at_ms),
            ends_at: at(window.ends_at_ms),
            moves_datagrams_at: at(window.moves_datagrams_at_ms),
            is_extended: window.is_extended,
        }
    }
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_deadline_is_the_same_on_a_machine_with_another_monotonic_clock() {
        let (here, there) = (
            Times { monotonic: SECOND * 100, unix: SECOND * 5000 },
            Times { monotonic: SECOND * 7000, unix: SECOND * 5010 },
        );
        let deadlines = Deadlines {
            length: SECOND * 60,
            pins_at: SECOND * 95,
            ends_at: SECOND * 150,
            moves_datagrams_at: SECOND * 120,
            is_extended: true,
        };
        let window = here.window(deadlines);
        assert_eq!((window.ends_at_ms, window.pins_at_ms), (5_050_000, 4_995_000));
        let seen = there.deadlines(&window);
        let times = [seen.pins_at, seen.moves_datagrams_at, seen.ends_at].map(|at| at.as_secs());
        assert_eq!((times, seen.is_extended), ([6985, 7010, 7040], true));
        // One whose clock is an hour late.
        let late = Times { unix: SECOND * 1410, ..there };
        assert_eq!(late.deadlines(&window).ends_at, SECOND * 7060);
    }
}
