//! A farm that has all of it: TCP and UDP, exact addresses, prefixes, one port, ranges and any port, QUIC, affinity, every
//! way to a backend, paths too narrow, and slots in every state.

use super::{
    oracle,
    setup::{Backend, ELSEWHERE, LOOPBACK, Limits, Path, Pool, Setup, Vip, vip_address},
};
use lb_common::{
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId},
    stateless::{Bearer, Codec, Epoch, IdBits, TokenId},
    tables::{QuicKey, RING_SLOTS, Slot, Traits, UnknownJoin, Ways},
    wire::ip::{self, Family},
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Learns, and drops unknown joins.
pub(crate) const LEARNING: PoolId = PoolId(0);
/// Learns what it did not see begin, sends unknown joins by the ring, and takes TCP in pieces.
pub(crate) const HASHING: PoolId = PoolId(1);
/// Resets unknown joins; behind tagged and narrow paths.
pub(crate) const RESETTING: PoolId = PoolId(2);
/// Reads the server ids of QUIC.
pub(crate) const QUIC: PoolId = PoolId(3);
/// Keeps a source address at one backend.
pub(crate) const AFFINE: PoolId = PoolId(4);
/// Has no backend for a third of its slots, and a path that takes next to nothing.
pub(crate) const POOR: PoolId = PoolId(5);

/// The backends that the slots of each pool's ring go to in turn.
const RINGS: [&[u16]; 6] =
    [&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5], &[6, 7, 8], &[1, 2, 3, 4, 5, 6, 7], &[2, 4, 6], &[8, 9, 4]];

/// Whom a pool's ring names while every slot is settled.
pub(crate) fn owner(pool: PoolId, hash: FlowHash) -> Option<BackendId> {
    let (slot, backends) = (oracle::slot(hash) as usize, RINGS[usize::from(pool.0)]);
    let is_gap = pool == POOR && slot % 3 == 2;
    if is_gap { None } else { Some(BackendId(backends[slot % backends.len()])) }
}

/// The backends' numbers.
pub(crate) const BACKENDS: std::ops::RangeInclusive<u16> = 1..=9;
/// Bytes of a server's id.
pub(crate) const QUIC_ID_LEN: u8 = 4;
/// The port at which clients join backend 2.
pub(crate) const JOIN_PORT: u16 = 4502;
/// All ports.
const ANY: std::ops::RangeInclusive<u16> = 0..=u16::MAX;

/// The third parts of slots, modulo eight, that are in transition in the restless farm.
pub(crate) const IN_TRANSITION: u32 = 0;
/// Those whose transition is about to end.
pub(crate) const PINNING: u32 = 1;

/// The server's id that names a backend.
pub(crate) const fn quic_id(backend: u16) -> [u8; QUIC_ID_LEN as usize] {
    let [high, low] = backend.to_be_bytes();
    [0x5e, 0x1d, high, low]
}

/// The address of which all ports are a pool's.
pub(crate) const fn open_address(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(192, 0, 2, 11)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x11)),
    }
}

/// An address of the wide prefix, and one of the narrow prefix within.
pub(crate) const fn prefix_addresses(family: Family) -> [IpAddr; 2] {
    match family {
        Family::V4 => [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 129)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 250))],
        Family::V6 => [
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0x8123, 0, 0, 0, 1)),
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0x8fed, 0, 0, 0, 1)),
        ],
    }
}

const fn prefix_lens(family: Family) -> [u32; 2] {
    match family {
        Family::V4 => [25, 28],
        Family::V6 => [52, 56],
    }
}

impl Setup {
    /// The farm that has all of it, with every slot settled.
    pub(crate) fn wide() -> Self {
        Self::wide_with(|slot, owner, _| if slot % 3 == 2 { None } else { Some(Slot::settled(owner)) })
    }

    /// The same with slots in every state, and tables that a few flows fill.
    pub(crate) fn wide_and_restless() -> Self {
        let mut setup = Self::wide_with(|slot, owner, former| {
            Some(match slot / 3 % 8 {
                IN_TRANSITION => Slot::in_transition(owner, former),
                PINNING => Slot::in_transition(owner, former).pinning(),
                2 => Slot::in_transition(owner, former).keeping_datagrams(),
                3 if slot % 3 == 2 => return None,
                _ => Slot::settled(owner),
            })
        });
        setup.name_by_tokens();
        setup.limits = Limits { entries: 14, entries_per_network: 12, joins_per_token: 20, icmp_errors_per_cpu: 3 };
        setup
    }

    /// `slot` says what the slot of a number is, for its owner and another backend; where it says nothing, the poor pool
    /// has no backend and the others have a settled one.
    fn wide_with(slot: impl Fn(u32, BackendId, BackendId) -> Option<Slot>) -> Self {
        let ring = |pool: PoolId| -> Vec<Slot> {
            let backends = RINGS[usize::from(pool.0)];
            let of = |place: u32| BackendId(backends[place as usize % backends.len()]);
            let gap = |owner| if pool == POOR { Slot::default() } else { Slot::settled(owner) };
            (0..RING_SLOTS).map(|i| slot(i, of(i), of(i + 1)).unwrap_or_else(|| gap(of(i)))).collect()
        };
        let unseen = Ways::LEARN.and(Ways::LEARN_UNSEEN);
        Self {
            backends: backends(),
            pools: vec![
                Pool::new(Ways::LEARN, UnknownJoin::DROP, ring(LEARNING)),
                Pool { traits: Traits::TCP_FRAGMENTS, ..Pool::new(unseen, UnknownJoin::HASH, ring(HASHING)) },
                Pool::new(Ways::LEARN, UnknownJoin::RESET, ring(RESETTING)),
                Pool { quic_id_len: QUIC_ID_LEN, ..Pool::new(Ways::OFF, UnknownJoin::DROP, ring(QUIC)) },
                Pool { traits: Traits::SOURCE_AFFINITY, ..Pool::new(Ways::OFF, UnknownJoin::DROP, ring(AFFINE)) },
                Pool::new(Ways::LEARN, UnknownJoin::HASH, ring(POOR)),
            ],
            vips: [Family::V4, Family::V6].into_iter().flat_map(vips).collect(),
            quic_servers: [0, 1]
                .into_iter()
                .flat_map(|rotation| {
                    BACKENDS.map(move |id| (QuicKey::new(QUIC, rotation, &quic_id(id)), BackendId(id)))
                })
                .collect(),
            codecs: Vec::new(),
            bearers: Vec::new(),
            limits: Limits::DEFAULT,
        }
    }

    /// Has the tokens of the pools that know joins name backends: in two of four epochs, and by ids of which some are
    /// nobody's and some were a backend's that is gone.
    fn name_by_tokens(&mut self) {
        let bits = IdBits::for_backends(16).expect("four bits");
        let epochs = [0, 2].map(|number| (Epoch::new(number).expect("below 4"), SipKey::from_bytes([number; 16])));
        let codec = epochs.into_iter().fold(Codec::new(bits), |codec, (epoch, key)| codec.with(epoch, key));
        for pool in [LEARNING, HASHING, RESETTING] {
            let ways = &mut self.pools[usize::from(pool.0)].ways;
            *ways = ways.and(Ways::TOKEN);
            self.codecs.push((pool, codec));
            self.bearers.extend(BACKENDS.map(|id| (pool, TokenId(id), Bearer::of(BackendId(id)))));
            self.bearers.extend([10, 11].map(|id| (pool, TokenId(id), Bearer::GONE)));
        }
    }
}

fn backends() -> Vec<Backend> {
    const DOT1Q: u16 = 0x8100;
    const DOT1AD: u16 = 0x88a8;
    let backend = |id, path, interface| Backend::new(BackendId(id), path, interface);
    vec![
        backend(1, Path::L2, LOOPBACK),
        Backend { spread: 16, ..backend(2, Path::InIpv4, LOOPBACK) },
        Backend { spread: 32, ..backend(3, Path::InIpv6, ELSEWHERE) },
        backend(4, Path::InGue4, LOOPBACK),
        Backend { spread: 20, ..backend(5, Path::InGue6, ELSEWHERE) },
        Backend { tags: &[DOT1Q], ..backend(6, Path::L2, ELSEWHERE) },
        Backend { tags: &[DOT1AD, DOT1Q], ..backend(7, Path::InIpv6, LOOPBACK) },
        Backend { mtu: 400, ..backend(8, Path::InGue4, LOOPBACK) },
        Backend { mtu: 90, ..backend(9, Path::L2, LOOPBACK) },
    ]
}

fn vips(family: Family) -> Vec<Vip> {
    let (exact, open, [wide, narrow]) = (vip_address(family), open_address(family), prefix_addresses(family));
    let [wide_len, narrow_len] = prefix_lens(family);
    let prefix = |address, len, protocol, pool| Vip { prefix: Some(len), ..Vip::exact(address, protocol, ANY, pool) };
    vec![
        Vip::exact(exact, ip::TCP, 8000..=8001, LEARNING),
        Vip::exact(exact, ip::TCP, 443..=443, HASHING),
        Vip::exact(exact, ip::TCP, 25..=25, RESETTING),
        Vip::exact(exact, ip::TCP, 110..=110, POOR),
        Vip::exact(exact, ip::UDP, 443..=443, QUIC),
        Vip::exact(exact, ip::UDP, 53..=53, AFFINE),
        Vip::exact(exact, ip::UDP, 5000..=5999, LEARNING),
        Vip::exact(open, ip::TCP, ANY, AFFINE),
        Vip::exact(open, ip::UDP, ANY, POOR),
        prefix(wide, wide_len, ip::TCP, LEARNING),
        prefix(wide, wide_len, ip::UDP, QUIC),
        prefix(narrow, narrow_len, ip::TCP, HASHING),
        prefix(narrow, narrow_len, ip::UDP, RESETTING),
        Vip::endpoint(exact, JOIN_PORT, LEARNING, BackendId(2)),
    ]
}
