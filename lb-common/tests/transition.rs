//! Whatever changes of the pool come, and whatever a stranger spoofs: a TCP connection stays with the backend that its SYN
//! went to, as long as that one serves. And a balancer that has seen nothing of a flow decides like one that has, unless
//! the flow has an entry.

use etherparse::PacketBuilder;
use lb_common::{
    encap::{Link, Tunnel},
    flow::{Ports, WireAddress as _},
    hash::SipKey,
    host::HostTables,
    ids::{BackendId, PoolId, Tick, VipId},
    reason::Reason,
    recent::Bucket,
    rekey::Rotation,
    steer::steer,
    tables::{Backend, RING_SLOTS, Service, UnknownJoin, Ways},
    transition::Transitions,
    wire::ip::{self, Address},
};
use proptest::prelude::*;
use std::{collections::BTreeSet, time::Duration};

const VIP: [u8; 4] = [192, 0, 2, 1];
const CLIENT: [u8; 4] = [198, 51, 100, 1];
const BACKENDS: u16 = 4;
const CLIENTS: u16 = 12;
/// No key comes twice.
const KEYS: usize = 8;
const WINDOW: Duration = Duration::from_secs(100);
/// How often every live connection shows itself: twice in the last part of a window.
const TICK: Duration = Duration::from_secs(5);
/// The same by the kernel's clock: below it no live connection with an entry is silent.
const TICK_TICKS: u32 = 5;

#[derive(Clone, Debug)]
enum Step {
    /// A client opens its connection: SYN, and the third ACK at once or with the first data.
    Open { client: u16, sequence: u32 },
    /// An open connection sends data.
    Send { client: u16 },
    /// A client closes its connection.
    Close { client: u16 },
    /// A stranger sends a SYN with the 5-tuple of a client's connection, and the ACK of it where the flow has an entry.
    Spoof { client: u16, sequence: u32 },
    /// The slots get new owners.
    Change { pattern: u16 },
    /// A backend takes no new connections.
    Drain { backend: u16, pattern: u16 },
    /// A backend is over: killed, or its drain has come to its end.
    End { backend: u16, pattern: u16 },
    /// A backend takes connections, again or still.
    Return { backend: u16, pattern: u16 },
    /// Flows are named by another cluster key, unless they still are by two.
    Rekey,
    /// The controller dies, and another goes on with what the tables say, and with what was written down.
    Restart,
    /// Time passes, and every open connection shows itself now and then.
    Wait { ticks: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let change = || (1..=BACKENDS, 0..64_u16);
    let step = prop_oneof![
        6 => (client.clone(), any::<u32>()).prop_map(|(client, sequence)| Step::Open { client, sequence }),
        6 => client.clone().prop_map(|client| Step::Send { client }),
        2 => client.clone().prop_map(|client| Step::Close { client }),
        4 => (client, any::<u32>()).prop_map(|(client, sequence)| Step::Spoof { client, sequence }),
        3 => (0..64_u16).prop_map(|pattern| Step::Change { pattern }),
        1 => change().prop_map(|(backend, pattern)| Step::Drain { backend, pattern }),
        1 => change().prop_map(|(backend, pattern)| Step::End { backend, pattern }),
        1 => change().prop_map(|(backend, pattern)| Step::Return { backend, pattern }),
        2 => Just(Step::Rekey),
        1 => Just(Step::Restart),
        2 => (1..30_u32).prop_map(|ticks| Step::Wait { ticks }),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Syn,
    Ack,
    Fin,
}

/// An open connection, as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    sequence: u32,
    backend: BackendId,
    is_confirmed: bool,
    /// The pool has changed since its SYN.
    has_seen_change: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Duty {
    Up,
    Draining,
    Ended,
}

struct World {
    tables: HostTables,
    /// The slots that the clients' flows fall in, and what becomes of them: the others are as they were.
    places: Vec<u32>,
    ring: Transitions,
    /// The time of a rotation of the key, as a slot, and the number of the key that holds.
    rotation: Transitions,
    key: usize,
    /// A balancer of the same cluster that never saw a packet before the one at hand.
    stranger: HostTables,
    duties: [Duty; BACKENDS as usize],
    pattern: u16,
    now: Duration,
    full_at: Option<Duration>,
    connections: Vec<Option<Connection>>,
}

impl World {
    fn new() -> Self {
        let mut tables = HostTables::new(key(0));
        for id in 1..=BACKENDS {
            tables.add_backend(backend(id));
        }
        let duties = [Duty::Up; BACKENDS as usize];
        let places = places();
        let pool = tables.add_pool(owners(0, &duties, 0..RING_SLOTS));
        let service = Service {
            port_first: 80,
            port_last: 80,
            protocol: ip::TCP,
            ways: Ways::LEARN,
            unknown_join: UnknownJoin::DROP,
            pool,
            vip: VipId(1),
            ..Service::default()
        };
        tables.add_services(Address::v4(VIP), &[service]);
        Self {
            stranger: tables.clone(),
            tables,
            ring: Transitions::settled(&owners(0, &duties, places.iter().copied())),
            places,
            rotation: Transitions::settled(&[Rotation::BEFORE.0]),
            key: 0,
            duties,
            pattern: 0,
            now: Duration::ZERO,
            full_at: None,
            connections: vec![None; usize::from(CLIENTS)],
        }
    }

    fn with_room_for(entries: usize) -> Self {
        let mut world = Self::new();
        world.tables.entries_max = entries;
        world
    }

    fn duty(&self, backend: BackendId) -> Duty {
        self.duties[usize::from(backend.0 - 1)]
    }

    /// Where a packet goes, and why. What the ring alone decides, the stranger decides alike.
    fn steer(
        &mut self,
        client: u16,
        sequence: u32,
        kind: Kind,
    ) -> Result<Result<(BackendId, Reason), Reason>, TestCaseError> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4(CLIENT, VIP, 64);
        let tcp = builder.tcp(1000 + client, 80, sequence, 1000);
        let tcp = match kind {
            Kind::Syn => tcp.syn(),
            Kind::Ack => tcp.ack(1),
            Kind::Fin => tcp.ack(1).fin(),
        };
        let mut frame = Vec::new();
        tcp.write(&mut frame, &[]).expect("a frame");
        let verdict = steer(&frame.as_slice(), &mut self.tables).verdict.map(|forward| (forward.id, forward.reason));
        let by_ring = [Reason::RingNew, Reason::Ring, Reason::RingPrevious, Reason::Pinned, Reason::PinnedFull];
        if let Ok((backend, reason)) = verdict
            && by_ring.contains(&reason)
            && !(reason == Reason::PinnedFull && self.has_entry(client))
        {
            let elsewhere = steer(&frame.as_slice(), &mut self.stranger).verdict.map(|forward| forward.id);
            forget(&mut self.stranger, kind);
            prop_assert_eq!(elsewhere, Ok(backend), "another balancer than {:?} decides", reason);
        }
        if let Ok((_, Reason::PinnedFull)) = verdict {
            self.full_at = Some(self.now);
        }
        Ok(verdict.map_err(|refusal| refusal.reason))
    }

    fn write_slots(&mut self, changed: &[u32]) {
        for &place in changed {
            let index = HostTables::slot_index(PoolId(0), self.places[place as usize]);
            self.tables.slots[index] = self.ring.slots()[place as usize];
            self.stranger.slots[index] = self.ring.slots()[place as usize];
        }
    }

    fn write_rotation(&mut self) {
        let window = self.rotation.slots()[0];
        for globals in [&mut self.tables.globals, &mut self.stranger.globals] {
            globals.rotation = globals.rotation.within(window);
            if !window.is_in_transition() {
                globals.keys = [*globals.key(); 2];
            }
        }
    }

    /// Names flows by the next key, as the controller does after a reload.
    fn rekey(&mut self) {
        if self.rotation.in_transition() > 0 || self.key + 1 == KEYS {
            return;
        }
        self.key += 1;
        self.rotation = Transitions::settled(&[Rotation::BEFORE.0]);
        self.rotation.change(&[Rotation::AFTER.0], self.now, WINDOW, |_| true);
        for globals in [&mut self.tables.globals, &mut self.stranger.globals] {
            let next = 1 - globals.rotation.index();
            globals.keys[next] = key(self.key);
            globals.rotation = Rotation::settled(u32::from(next == 1));
        }
        self.write_rotation();
        for connection in self.connections.iter_mut().flatten() {
            connection.has_seen_change = true;
        }
    }

    /// A new connection never goes to a backend that takes none.
    fn open(&mut self, client: u16, sequence: u32) -> Result<(), TestCaseError> {
        let opened = self.steer(client, sequence, Kind::Syn)?;
        if let Ok((backend, Reason::RingNew)) = opened {
            prop_assert_eq!(self.duty(backend), Duty::Up);
        }
        let connection = opened.ok().map(|(backend, _)| Connection {
            sequence,
            backend,
            is_confirmed: false,
            has_seen_change: false,
        });
        self.connections[usize::from(client)] = connection;
        Ok(())
    }

    /// A packet goes where the connection lives. Only a table without room for its entry may end a connection that is
    /// not confirmed, and the reason says so.
    fn send(&mut self, client: u16) -> Result<(), TestCaseError> {
        let Some(mut connection) = self.connections[usize::from(client)] else { return Ok(()) };
        let offset = if connection.is_confirmed { 1000 } else { 1 };
        let sent = self.steer(client, connection.sequence.wrapping_add(offset), Kind::Ack)?;
        if sent == Err(Reason::MovedFull) {
            prop_assert!(!connection.is_confirmed && self.tables.moved.len() == self.tables.entries_max);
            self.connections[usize::from(client)] = None;
            return Ok(());
        }
        prop_assert_eq!(sent.map(|(backend, _)| backend), Ok(connection.backend), "client {}: {:?}", client, sent);
        connection.is_confirmed = true;
        self.connections[usize::from(client)] = Some(connection);
        Ok(())
    }

    fn spoof(&mut self, client: u16, sequence: u32) -> Result<(), TestCaseError> {
        let Some(live) = self.connections[usize::from(client)] else { return Ok(()) };
        // Who guesses the very sequence number that a live connection uses next is no stranger.
        let guessed = [1, 1000].map(|n| live.sequence.wrapping_add(n)).contains(&sequence.wrapping_add(1));
        if !live.is_confirmed || guessed {
            return Ok(());
        }
        let _ = self.steer(client, sequence, Kind::Syn)?;
        if self.has_entry(client) {
            let _ = self.steer(client, sequence.wrapping_add(1), Kind::Ack)?;
        }
        Ok(())
    }

    fn has_entry(&self, client: u16) -> bool {
        let flows = self.tables.globals.keys.map(|key| CLIENT.flow_hash(&key, VIP, ports(client), ip::TCP));
        let tables = [&self.tables.moved, &self.tables.pinned];
        tables.iter().any(|entries| flows.iter().any(|flow| entries.contains_key(flow)))
    }

    fn close(&mut self, client: u16) -> Result<(), TestCaseError> {
        if let Some(connection) = self.connections[usize::from(client)].take_if(|connection| connection.is_confirmed) {
            let sent = self.steer(client, connection.sequence.wrapping_add(2000), Kind::Fin)?;
            prop_assert_eq!(sent.map(|(backend, _)| backend), Ok(connection.backend));
        }
        Ok(())
    }

    /// Gives the slots owners among the backends that are up, as the controller does after a reload.
    fn change(&mut self, pattern: u16) {
        self.pattern = pattern;
        let owners = owners(pattern, &self.duties, self.places.iter().copied());
        let duties = self.duties;
        let serves = |backend: BackendId| duties[usize::from(backend.0 - 1)] != Duty::Ended;
        let changed = self.ring.change(&owners, self.now, WINDOW, serves);
        self.write_slots(&changed);
        for connection in self.connections.iter_mut().flatten() {
            connection.has_seen_change = true;
        }
    }

    fn set(&mut self, backend: u16, duty: Duty, pattern: u16) {
        self.duties[usize::from(backend - 1)] = duty;
        if duty == Duty::Ended {
            // Its connections are over, and so is a handshake that two changes come upon.
            let ended = |at: &Connection| at.backend.0 == backend || !at.is_confirmed && at.has_seen_change;
            for connection in &mut self.connections {
                *connection = connection.filter(|connection| !ended(connection));
            }
        }
        self.change(pattern);
        if duty == Duty::Ended {
            let changed = self.ring.forget(BackendId(backend));
            self.write_slots(&changed);
            assert!(!self.ring.mentions(BackendId(backend)));
        }
        let entry = if duty == Duty::Ended { Backend::GONE } else { self::backend(backend) };
        self.tables.backends[usize::from(backend)] = entry;
        self.stranger.backends[usize::from(backend)] = entry;
    }

    fn wait(&mut self, ticks: u32) -> Result<(), TestCaseError> {
        for _ in 0..ticks {
            self.now += TICK;
            for tables in [&mut self.tables, &mut self.stranger] {
                tables.now = Tick(tables.now.0 + TICK_TICKS);
            }
            let changed = self.ring.advance(self.now, self.full_at);
            self.write_slots(&changed);
            self.rotation.advance(self.now, self.full_at);
            self.write_rotation();
            for client in 0..CLIENTS {
                self.send(client)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Open { client, sequence } => self.open(client, sequence)?,
            Step::Send { client } => self.send(client)?,
            Step::Close { client } => self.close(client)?,
            Step::Spoof { client, sequence } => self.spoof(client, sequence)?,
            Step::Change { pattern } => self.change(pattern),
            Step::Drain { backend, pattern } => self.set(backend, Duty::Draining, pattern),
            Step::End { backend, pattern } => self.set(backend, Duty::Ended, pattern),
            Step::Return { backend, pattern } => self.set(backend, Duty::Up, pattern),
            Step::Rekey => self.rekey(),
            Step::Restart => self.restart(),
            Step::Wait { ticks } => self.wait(ticks)?,
        }
        Ok(())
    }

    fn restart(&mut self) {
        self.ring = Transitions::resumed(self.ring.slots().to_vec(), self.ring.deadlines());
        let window = self.tables.globals.rotation.window();
        self.rotation = Transitions::resumed(vec![window], self.rotation.deadlines());
    }

    fn run(mut self, steps: &[Step]) -> Result<Self, TestCaseError> {
        for step in steps {
            self.step(step)?;
        }
        for client in 0..CLIENTS {
            self.send(client)?;
        }
        Ok(self)
    }
}

fn backend(id: u16) -> Backend {
    let link = Link { interface: 1, source_mac: [2; 6], next_hop_mac: [4; 6], mtu: 1500 };
    let [_, low] = id.to_be_bytes();
    Backend::ipip(&link, Tunnel::V4 { source: [10, 0, 0, 1].into(), destination: [10, 0, 1, low].into() })
}

/// Forgets what a packet has left behind.
fn forget(tables: &mut HostTables, kind: Kind) {
    tables.pinned.clear();
    match kind {
        Kind::Syn => {
            tables.pending.fill(Bucket::default());
            tables.embryonic.fill(Bucket::default());
        }
        Kind::Fin => tables.closing.fill(Bucket::default()),
        Kind::Ack => {}
    }
}

const fn ports(client: u16) -> Ports {
    Ports { source: 1000 + client, destination: 80 }
}

/// The cluster keys, one after the other.
fn key(number: usize) -> SipKey {
    SipKey::from_bytes([b"rotating"[number]; 16])
}

/// The slots of the clients' flows under all keys, each once.
fn places() -> Vec<u32> {
    let slot = |key, client| CLIENT.flow_hash(&key, VIP, ports(client), ip::TCP).slot();
    let slots = (0..KEYS).flat_map(|number| (0..CLIENTS).map(move |client| slot(key(number), client)));
    slots.collect::<BTreeSet<_>>().into_iter().collect()
}

/// The owners of slots among the backends that are up; they differ from another pattern's in some.
fn owners(pattern: u16, duties: &[Duty], slots: impl Iterator<Item = u32>) -> Vec<u16> {
    let up: Vec<u16> = (1..).zip(duties).filter(|(_, duty)| **duty == Duty::Up).map(|(id, _)| id).collect();
    let owner = |slot: u32| {
        let differs = (slot.wrapping_mul(0x9e37_79b1) >> 26) < u32::from(pattern);
        let index = slot as usize + if differs { usize::from(pattern) } else { 0 };
        if up.is_empty() { 0 } else { up[index % up.len()] }
    };
    slots.map(owner).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_connection_stays_with_its_backend(steps in steps()) {
        let mut world = World::new().run(&steps)?;
        world.wait(50)?;
        prop_assert_eq!(world.ring.in_transition(), 0, "twice a window after the last change");
    }

    #[test]
    fn full_tables_break_nothing_silently(steps in steps(), room in 0..3_usize) {
        let mut world = World::with_room_for(room).run(&steps)?;
        world.wait(50)?;
        let survivors = world.full_at.is_some_and(|at| world.now < at + WINDOW / 5);
        let open = world.ring.in_transition() + world.rotation.in_transition();
        prop_assert_eq!(open > 0, survivors, "windows last while survivors find no room");
    }
}
