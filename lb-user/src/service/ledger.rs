//! What a controller writes down for the next: what the numbers in the tables mean, and when what is under way ends.
//!
//! It is written before a number stands in a table, and never says less than the tables need. It holds names and addresses
//! of the configuration, and nothing of a client.

use super::{Duty, Known, State, rings::Ring, tokens::TokenMemory};
use crate::{
    bpf::LedgerError,
    config::{BackendState, Forward, VipAddress},
    health::Verdict,
    layout::BackendRow,
    numbering::{BackendName, Numbering},
};
use lb_common::{
    ids::{BackendId, PoolId},
    tables::{Counter, QuicKey},
    transition::Deadlines,
};
use serde::{Deserialize, Serialize};
use std::{net::IpAddr, time::Duration};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// The version of what is written down.
const FORMAT: u32 = 1;

/// Why a ledger says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Illegible {
    /// Another version has written it.
    #[error(
        "the pinned tables are of weir {version}, whose ledger this version does not read: run that version, or give the \
         tables up with `weir detach`, tokens and entries included, and start again"
    )]
    Format {
        /// Which.
        version: String,
    },
    /// It is not what was written.
    #[error(
        "the ledger of the pinned tables is not understood ({0}): give the tables up with `weir detach`, tokens and \
         entries included, and start again"
    )]
    Damaged(String),
}

/// All of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ledger {
    format: u32,
    /// Which version has written it.
    version: String,
    vips: Vec<VipEntry>,
    pub(super) pools: Vec<PoolEntry>,
    pub(super) backends: Vec<BackendEntry>,
    /// When the cluster key's rotation ends, if one is under way.
    #[serde(default)]
    pub(super) rekeying: Option<RingEntry>,
    /// Whom the ids in tokens have meant.
    #[serde(default)]
    pub(super) tokens: TokenMemory,
}

/// Enough to say of a ledger of another format whose it is.
#[derive(Deserialize)]
struct Heading {
    format: u32,
    version: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct VipEntry {
    number: u16,
    prefix: String,
    ports: String,
    protocol: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PoolEntry {
    pub(super) number: u16,
    pub(super) name: String,
    /// Nothing while its slots have never been written.
    pub(super) ring: Option<RingEntry>,
}

/// What its slots do not say of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RingEntry {
    pub(super) times: Times,
    /// How many packets of survivors had found no room for an entry, and when the last of them was noticed.
    pub(super) full_packets: u64,
    pub(super) full_at: Option<Duration>,
}

/// [`Deadlines`], as they are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times {
    length: Duration,
    pins_at: Duration,
    ends_at: Duration,
    moves_datagrams_at: Duration,
    is_extended: bool,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BackendEntry {
    number: u16,
    pool: u16,
    pool_name: String,
    name: String,
    address: IpAddr,
    weight: u16,
    state: BackendState,
    forward: Forward,
    /// [`QuicKey`]s in hexadecimal digits.
    quic_servers: Vec<String>,
    pub(super) duty: Duty,
    /// Whether the operator has ordered it to drain.
    #[serde(default)]
    pub(super) drain_ordered: bool,
    /// What its health checks said, if it was checked.
    #[serde(default)]
    pub(super) health: Option<Verdict>,
    packets_before: u64,
    bytes_before: u64,
}

impl From<Deadlines> for Times {
    fn from(Deadlines { length, pins_at, ends_at, moves_datagrams_at, is_extended }: Deadlines) -> Self {
        Self { length, pins_at, ends_at, moves_datagrams_at, is_extended }
    }
}

impl From<Times> for Deadlines {
    fn from(Times { length, pins_at, ends_at, moves_datagrams_at, is_extended }: Times) -> Self {
        Self { length, pins_at, ends_at, moves_datagrams_at, is_extended }
    }
}

impl State {
    /// Writes down what the next controller has to know. What is there already is not written again.
    pub(super) fn save(&mut self) -> Result<(), LedgerError> {
        let bytes = serde_json::to_vec(&self.to_ledger()).unwrap_or_default();
        self.ledger.write(&bytes)
    }

    fn to_ledger(&self) -> Ledger {
        let vips = self.numbers.vips().map(|(address, number)| VipEntry::of(address, number));
        let pools = self.numbers.pools().map(|(name, number)| PoolEntry {
            number,
            name: name.to_owned(),
            ring: self.rings.get(&PoolId(number)).map(Ring::to_entry),
        });
        Ledger {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            vips: vips.collect(),
            pools: pools.collect(),
            backends: self.backends.values().map(BackendEntry::of).collect(),
            rekeying: self.rekeying.as_ref().map(Ring::to_entry),
            tokens: self.tokens.clone(),
        }
    }
}

impl Ledger {
    /// Reads what was written down.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Illegible> {
        let damaged = |error: serde_json::Error| Illegible::Damaged(error.to_string());
        let Heading { format, version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format != FORMAT {
            return Err(Illegible::Format { version });
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    /// The numbers in use.
    pub(super) fn numbers(&self) -> Result<Numbering, Illegible> {
        let vips = self.vips.iter().map(|vip| Ok((vip.address()?, vip.number))).collect::<Result<_, _>>()?;
        let pools = self.pools.iter().map(|pool| (pool.name.clone(), pool.number)).collect();
        let backends = self.backends.iter().map(|backend| (backend.backend_name(), backend.number)).collect();
        Ok(Numbering::resumed(vips, pools, backends))
    }
}

impl VipEntry {
    fn of(VipAddress { prefix, ports, protocol }: VipAddress, number: u16) -> Self {
        Self { number, prefix: prefix.to_string(), ports: ports.to_string(), protocol: protocol.to_string() }
    }

    fn address(&self) -> Result<VipAddress, Illegible> {
        let damaged = || Illegible::Damaged(format!("VIP {}", self.number));
        Ok(VipAddress {
            prefix: self.prefix.parse().map_err(|_| damaged())?,
            ports: match self.ports.parse::<u16>() {
                Ok(port) => port.into(),
                Err(_) => self.ports.parse().map_err(|_| damaged())?,
            },
            protocol: self.protocol.parse().map_err(|_| damaged())?,
        })
    }
}

impl BackendEntry {
    fn of(known: &Known) -> Self {
        let BackendRow { id, name, pool, weight, state, forward, quic_servers } = &known.row;
        let digits = |key: &QuicKey| {
            let pairs: Vec<_> = key.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            pairs.concat()
        };
        Self {
            number: id.0,
            pool: pool.0,
            pool_name: name.pool.clone(),
            name: name.name.clone(),
            address: name.address,
            weight: *weight,
            state: *state,
            forward: *forward,
            quic_servers: quic_servers.iter().map(digits).collect(),
            duty: known.duty,
            drain_ordered: known.drain_ordered,
            health: known.health.as_ref().map(|health| health.verdict),
            packets_before: known.sent_before.packets,
            bytes_before: known.sent_before.bytes,
        }
    }

    fn backend_name(&self) -> BackendName {
        BackendName { pool: self.pool_name.clone(), name: self.name.clone(), address: self.address }
    }

    /// The backend as its pool had it.
    pub(super) fn row(&self) -> Result<BackendRow, Illegible> {
        Ok(BackendRow {
            id: BackendId(self.number),
            name: self.backend_name(),
            pool: PoolId(self.pool),
            weight: self.weight,
            state: self.state,
            forward: self.forward,
            quic_servers: self.quic_servers.iter().map(|digits| quic_key(digits)).collect::<Result<_, _>>()?,
        })
    }

    pub(super) const fn sent_before(&self) -> Counter {
        Counter { packets: self.packets_before, bytes: self.bytes_before }
    }
}

fn quic_key(digits: &str) -> Result<QuicKey, Illegible> {
    let damaged = || Illegible::Damaged(format!("the QUIC server id {digits:?}"));
    let pairs = digits.as_bytes().chunks(2).map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
    let bytes: Vec<u8> = pairs.collect::<Option<_>>().ok_or_else(damaged)?;
    QuicKey::read_from_bytes(&bytes).map_err(|_| damaged())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Ports, Protocol};
    use lb_common::limits::{BACKENDS_MAX, LEDGER_BYTES_MAX, POOLS_MAX, VIPS_MAX};

    const LONG: Duration = Duration::new(u32::MAX as u64, 999_999_999);

    /// A name of the greatest length.
    fn name(number: u16) -> String {
        format!("{number:0>63}")
    }

    fn backend(number: u16) -> BackendEntry {
        let address = IpAddr::from([0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, number]);
        let row = BackendRow {
            id: BackendId(number),
            name: BackendName { pool: name(1), name: name(number), address },
            pool: PoolId(63),
            weight: u16::MAX,
            state: BackendState::Drain,
            forward: Forward::Ipip,
            quic_servers: (0..7).map(|rotation| QuicKey::new(PoolId(63), rotation, &[0xff; 15])).collect(),
        };
        let duty = Duty::Draining { since: LONG, until: LONG };
        BackendEntry::of(&Known {
            sent_before: Counter { packets: u64::MAX, bytes: u64::MAX },
            health: Some(crate::health::Health::new(Verdict::Unproven)),
            ..Known::new(row, duty)
        })
    }

    fn largest() -> Ledger {
        let times = Times { length: LONG, pins_at: LONG, ends_at: LONG, moves_datagrams_at: LONG, is_extended: false };
        let ring = RingEntry { times, full_packets: u64::MAX, full_at: Some(LONG) };
        let pool = |number| PoolEntry { number, name: name(number), ring: Some(ring) };
        let prefix = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0/124".parse().expect("a prefix");
        let ports = |number| Ports::from(60_000 + number);
        let number = |limit: u32| u16::try_from(limit).expect("a number");
        Ledger {
            format: FORMAT,
            version: "1000.1000.1000-alpha".to_owned(),
            vips: (1..=number(VIPS_MAX))
                .map(|number| {
                    VipEntry::of(VipAddress { prefix, ports: ports(number), protocol: Protocol::Udp }, number)
                })
                .collect(),
            pools: (0..number(POOLS_MAX)).map(pool).collect(),
            backends: (1..=number(BACKENDS_MAX)).map(backend).collect(),
            rekeying: Some(ring),
            tokens: TokenMemory::largest(),
        }
    }

    #[test]
    fn the_largest_ledger_has_room_and_is_read_as_it_was_written() {
        let ledger = largest();
        let bytes = serde_json::to_vec(&ledger).expect("it can be written");
        assert!(bytes.len() <= LEDGER_BYTES_MAX as usize, "{} bytes", bytes.len());
        let read = Ledger::parse(&bytes).expect("it can be read");
        assert_eq!(read, ledger);
        let numbers = read.numbers().expect("all of it is understood");
        let row = read.backends[6].row().expect("likewise");
        assert_eq!((numbers.backend(&row.name), row.id), (BackendId(7), BackendId(7)));
        assert_eq!(row.quic_servers[3], QuicKey::new(PoolId(63), 3, &[0xff; 15]));
        assert_eq!((numbers.pool(&name(5)).0, numbers.vips().count()), (5, VIPS_MAX as usize));
    }

    #[test]
    fn a_ledger_of_another_format_says_whose_it_is() {
        let refused = Ledger::parse(br#"{"format": 2, "version": "9.9.9", "all": "else"}"#).expect_err("unknown");
        assert!(refused.to_string().contains("weir 9.9.9"), "{refused}");
        let refused = Ledger::parse(b"{}").expect_err("nothing");
        assert!(refused.to_string().contains("weir detach"), "{refused}");
    }
}
