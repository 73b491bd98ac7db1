//! Whatever changes of the pool come, and whatever a stranger spoofs: a TCP connection stays with the backend that its SYN
//! went to, as long as that one serves.

use etherparse::PacketBuilder;
use lb_common::{
    encap::{Link, Tunnel},
    hash::SipKey,
    host::HostTables,
    ids::{BackendId, PoolId, VipId},
    reason::Reason,
    steer::steer,
    tables::{Backend, RING_SLOTS, Service, UnknownJoin, Ways},
    transition::Transitions,
    wire::ip::{self, Address},
};
use proptest::prelude::*;
use std::time::Duration;

const VIP: [u8; 4] = [192, 0, 2, 1];
const BACKENDS: u16 = 4;
const CLIENTS: u16 = 12;
const WINDOW: Duration = Duration::from_secs(100);

#[derive(Clone, Debug)]
enum Step {
    /// A client opens its connection: SYN, and the third ACK at once or with the first data.
    Open { client: u16, sequence: u32 },
    /// An open connection sends data.
    Send { client: u16 },
    /// A stranger sends a SYN with the 5-tuple of a client's connection.
    Spoof { client: u16, sequence: u32 },
    /// The slots get new owners.
    Change { pattern: u16 },
    /// Time passes, and every open connection shows itself in the last part of the window.
    Settle,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0..CLIENTS;
    let step = prop_oneof![
        3 => (client.clone(), any::<u32>()).prop_map(|(client, sequence)| Step::Open { client, sequence }),
        4 => client.clone().prop_map(|client| Step::Send { client }),
        2 => (client, any::<u32>()).prop_map(|(client, sequence)| Step::Spoof { client, sequence }),
        2 => (0..64_u16).prop_map(|pattern| Step::Change { pattern }),
        1 => Just(Step::Settle),
    ];
    prop::collection::vec(step, 1..60)
}

/// An open connection, as its client knows it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    sequence: u32,
    backend: BackendId,
    is_confirmed: bool,
}

struct World {
    tables: HostTables,
    ring: Transitions,
    now: Duration,
    connections: Vec<Option<Connection>>,
}

impl World {
    fn new() -> Self {
        let mut tables = HostTables::new(SipKey::from_bytes([7; 16]));
        let link = Link { interface: 1, source_mac: [2; 6], next_hop_mac: [4; 6], mtu: 1500 };
        for id in 1..=BACKENDS {
            let [_, low] = id.to_be_bytes();
            let tunnel = Tunnel::V4 { source: [10, 0, 0, 1].into(), destination: [10, 0, 1, low].into() };
            tables.add_backend(Backend::ipip(&link, tunnel));
        }
        let owners = owners(0);
        let pool = tables.add_pool(owners.iter().copied());
        let service = Service {
            port_first: 80,
            port_last: 80,
            protocol: ip::TCP,
            ways: Ways::LEARN,
            unknown_join: UnknownJoin::DROP,
            reserved: 0,
            pool,
            vip: VipId(1),
        };
        tables.add_services(Address::v4(VIP), &[service]);
        let connections = vec![None; usize::from(CLIENTS)];
        Self { tables, ring: Transitions::settled(&owners), now: Duration::ZERO, connections }
    }

    fn steer(&mut self, client: u16, sequence: u32, is_syn: bool) -> (BackendId, Reason) {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6]).ipv4([198, 51, 100, 1], VIP, 64);
        let tcp = builder.tcp(1000 + client, 80, sequence, 1000);
        let tcp = if is_syn { tcp.syn() } else { tcp.ack(1) };
        let mut frame = Vec::new();
        tcp.write(&mut frame, &[]).expect("a frame");
        let forward = steer(&frame.as_slice(), &mut self.tables).verdict.expect("every packet has a backend");
        (forward.id, forward.reason)
    }

    fn write_slots(&mut self, changed: &[u32]) {
        for &slot in changed {
            let index = lb_common::flow::slot_index(PoolId(0), slot) as usize;
            self.tables.slots[index] = self.ring.slots()[slot as usize];
        }
    }

    fn open(&mut self, client: u16, sequence: u32) {
        let (backend, _) = self.steer(client, sequence, true);
        self.connections[usize::from(client)] = Some(Connection { sequence, backend, is_confirmed: false });
    }

    fn send(&mut self, client: u16) -> Result<(), TestCaseError> {
        let Some(mut connection) = self.connections[usize::from(client)] else { return Ok(()) };
        let offset = if connection.is_confirmed { 1000 } else { 1 };
        let (backend, reason) = self.steer(client, connection.sequence.wrapping_add(offset), false);
        prop_assert_eq!(backend, connection.backend, "client {} by {:?}", client, reason);
        connection.is_confirmed = true;
        self.connections[usize::from(client)] = Some(connection);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Open { client, sequence } => self.open(client, sequence),
            Step::Send { client } => self.send(client)?,
            Step::Spoof { client, sequence } => {
                // Who guesses the very sequence number that a live connection uses next is no stranger.
                let guessed = self.connections[usize::from(client)].is_some_and(|live| {
                    [1, 1000].map(|n| live.sequence.wrapping_add(n)).contains(&sequence.wrapping_add(1))
                });
                let is_live = self.connections[usize::from(client)].is_some_and(|live| live.is_confirmed);
                if is_live && !guessed {
                    self.steer(client, sequence, true);
                }
            }
            Step::Change { pattern } => {
                let changed = self.ring.change(&owners(pattern), self.now, WINDOW, |_| true);
                self.write_slots(&changed);
                self.now += WINDOW / 20;
            }
            Step::Settle => {
                self.now += WINDOW;
                let pinning = self.ring.advance(self.now, None);
                self.write_slots(&pinning);
                for client in 0..CLIENTS {
                    self.send(client)?;
                }
                self.now += WINDOW;
                let settled = self.ring.advance(self.now, None);
                self.write_slots(&settled);
                prop_assert_eq!(self.ring.in_transition(), 0);
            }
        }
        Ok(())
    }
}

/// A ring that differs from another pattern's in some of its slots.
fn owners(pattern: u16) -> Vec<u16> {
    let owner = |slot: u32| {
        let differs = (slot.wrapping_mul(0x9e37_79b1) >> 26) < u32::from(pattern);
        #[expect(clippy::cast_possible_truncation, reason = "below BACKENDS")]
        let plain = (slot % u32::from(BACKENDS)) as u16;
        1 + if differs { (plain + pattern) % BACKENDS } else { plain }
    };
    (0..RING_SLOTS).map(owner).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_connection_stays_with_its_backend(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step)?;
        }
        for client in 0..CLIENTS {
            world.send(client)?;
        }
    }
}
