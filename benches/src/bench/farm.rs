//! The balancer that is measured: its tables filled as the controller fills them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Range,
};

use lb_common::{
    bench,
    encap::{GUE_PORT, Link, Tunnel},
    hash::SipKey,
    ids::{BackendId, FlowHash, PoolId, Tick, VipId},
    mptcp::{Version, token},
    ring::{self, Member},
    stateless::{Bearer, Codec, Epoch, IdBits, TokenId},
    tables::{Backend, Holder, RING_SLOTS, Service, Services, Slot, TokenEntry, TokenKey, Ways},
    wire::ip,
};
use lb_user::bpf::{Balancer, Sizes};

use super::BenchError;

/// The client's and the service's addresses, and the service's port.
pub(super) const CLIENT_V4: Ipv4Addr = Ipv4Addr::from_bits(bench::CLIENTS);
pub(super) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
pub(super) const VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(super) const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
pub(super) const PORT: u16 = 443;
/// The first VIP.
const VIP: VipId = VipId(1);
/// Port rules of a VIP: one for each protocol.
const RULES: u32 = 2;

/// A test run's packets come in by the loopback interface; what goes out there is transmitted, not redirected.
const LOOPBACK: u32 = 1;
const MTU: u16 = 1500;
const POOL: PoolId = PoolId(0);

/// The bench's own object.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-bench.bpf.o"));

/// The tunnels to the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outer {
    /// Of IPv4.
    V4,
    /// Of IPv6.
    V6,
    /// Of UDP over IPv4.
    Gue,
}

impl Outer {
    /// Bytes that the tunnel puts in front of a packet.
    pub(crate) const fn pushed(self) -> u16 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
            Self::Gue => 32,
        }
    }

    fn backend(self, id: u16) -> Backend {
        let [high, low] = id.to_be_bytes();
        let v4 = Tunnel::V4 { source: Ipv4Addr::new(10, 0, 255, 1), destination: Ipv4Addr::new(10, 0, high, low) };
        let v6 = Tunnel::V6 {
            source: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, 1),
            destination: Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, id),
        };
        match self {
            Self::V4 => Backend::ipip(&link(id), v4),
            Self::V6 => Backend::ipip(&link(id), v6),
            Self::Gue => Backend::gue(&link(id), v4, GUE_PORT),
        }
    }
}

/// Opens the bench's object with empty tables; its programs are not loaded yet.
pub(super) fn open_bare(sizes: &Sizes) -> Result<Balancer, BenchError> {
    Ok(Balancer::open(OBJECT, sizes)?)
}

/// How much there is for a balancer to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Farm {
    /// Backends of its one pool.
    pub(crate) backends: u16,
    /// VIPs, a power of two: addresses that follow each other, each with a rule for TCP and one for UDP.
    pub(crate) vips: u16,
}

impl Farm {
    /// What figures are of where nothing else is said.
    pub(super) const USUAL: Self = Self { backends: 16, vips: 1 };

    /// Opens the bench's object with filled tables; its programs are not loaded yet.
    pub(super) fn open(self, sizes: &Sizes, outer: Outer) -> Result<Balancer, BenchError> {
        let mut balancer = open_bare(sizes)?;
        balancer.globals.write(0, sizes.globals(SipKey::from_bytes(*b"a benchmark's id")))?;
        self.write_services(&mut balancer, Ways::LEARN)?;
        let addresses = (0..).zip(self.vips()).flat_map(|(number, _)| {
            let rules = Services { first: RULES * number, count: RULES };
            let v4 = Ipv4Addr::from_bits(VIP_V4.to_bits() + number);
            let v6 = Ipv6Addr::from_bits(VIP_V6.to_bits() + u128::from(number));
            [IpAddr::V4(v4), IpAddr::V6(v6)].map(|address| (address.into(), rules))
        });
        balancer.write_addresses(&addresses.collect::<Vec<_>>(), &[])?;
        for id in 1..=self.backends {
            balancer.backends.write(id.into(), outer.backend(id))?;
        }
        let slots: Vec<_> = self.ring().into_iter().map(|owner| Slot::settled(BackendId(owner))).collect();
        balancer.rings.write(POOL, &slots, &(0..RING_SLOTS).collect::<Vec<_>>())?;
        Ok(balancer)
    }

    /// Its VIPs.
    pub(super) fn vips(self) -> impl Iterator<Item = VipId> {
        (VIP.0..).take(self.vips.into()).map(VipId)
    }

    /// Enters connections with these numbers in the token table, as if so many third packets had been seen.
    pub(super) fn learn(self, balancer: &mut Balancer, numbers: Range<u32>) -> Result<(), BenchError> {
        for number in numbers {
            let (key, entry) = self.token(number, Tick(1));
            balancer.tokens.write(key, entry)?;
        }
        Ok(())
    }

    /// The entry of a connection with a number, in a controller's tables too if it has no other pool.
    pub(crate) fn token(self, number: u32, since: Tick) -> (TokenKey, TokenEntry) {
        #[expect(clippy::cast_possible_truncation, reason = "at most as many as there are backends")]
        let backend = BackendId(1 + (number % u32::from(self.backends)) as u16);
        let holder = Holder { flow: FlowHash(u64::from(number)), since, backend, state: Holder::OPEN };
        (TokenKey::new(POOL, bench::token(number)), TokenEntry::held_by(holder))
    }

    /// Has every token name a backend, and no other be looked for.
    pub(super) fn name_by_tokens(self, balancer: &mut Balancer) -> Result<(), BenchError> {
        let bits = IdBits::for_backends(self.backends.into()).expect("as many ids as a balancer has backends");
        let epochs = (0..).map_while(Epoch::new);
        let codec =
            epochs.fold(Codec::new(bits), |codec, epoch| codec.with(epoch, SipKey::from_bytes([epoch.number(); 16])));
        balancer.codecs.write(u32::from(POOL.0), codec)?;
        let bearers = (1..=self.backends).map(|backend| (TokenId(backend - 1), Bearer::of(BackendId(backend))));
        balancer.bearers.write_pool(POOL, &bearers.collect())?;
        self.write_services(balancer, Ways::TOKEN)
    }

    fn write_services(self, balancer: &mut Balancer, ways: Ways) -> Result<(), BenchError> {
        let rules = self.vips().flat_map(|vip| [ip::TCP, ip::UDP].map(|protocol| service(vip, protocol, ways)));
        for (index, rule) in (0..).zip(rules) {
            balancer.services.write(index, rule)?;
        }
        Ok(())
    }

    fn ring(self) -> Vec<u16> {
        let member = |id| Member { id, identity: ring::identity(&format!("backend-{id}")), weight: 1 };
        ring::build(&(1..=self.backends).map(member).collect::<Vec<_>>())
    }
}

/// Takes the tokens of the first so many third packets of a batch out of the table.
pub(super) fn forget(balancer: &mut Balancer, third_packets: u32) -> Result<(), BenchError> {
    for number in 0..third_packets {
        let token = token::derive(Version::V1, bench::key(number));
        balancer.tokens.remove(TokenKey::new(POOL, token))?;
    }
    Ok(())
}

const fn service(vip: VipId, protocol: u8, ways: Ways) -> Service {
    Service { port_first: PORT, port_last: PORT, protocol, ways, pool: POOL, vip, ..Service::NONE }
}

fn link(backend: u16) -> Link {
    let [high, low] = backend.to_be_bytes();
    Link { interface: LOOPBACK, source_mac: [2, 0, 0, 0, 0, 1], next_hop_mac: [2, 0, 0, 1, high, low], mtu: MTU }
}
