//! The balancer that is measured: its tables filled as the controller fills them, for sixteen backends.

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
    tables::{Backend, Holder, RING_SLOTS, Service, Services, Slot, TokenEntry, TokenKey, Ways},
    wire::ip,
};
use lb_user::bpf::{Balancer, Sizes};

use super::BenchError;

/// The client's and the service's addresses, and the service's port.
pub(super) const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
pub(super) const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0);
pub(super) const VIP_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
pub(super) const VIP_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
pub(super) const PORT: u16 = 443;
/// The only VIP.
pub(super) const VIP: VipId = VipId(1);

pub(super) const BACKENDS: u16 = 16;
/// A test run's packets come in by the loopback interface; what goes out there is transmitted, not redirected.
const LOOPBACK: u32 = 1;
const MTU: u16 = 1500;
const POOL: PoolId = PoolId(0);

/// The bench's own object.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/weir-bench.bpf.o"));

/// The tunnels to the backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outer {
    /// Of IPv4.
    V4,
    /// Of IPv6.
    V6,
    /// Of UDP over IPv4.
    Gue,
}

impl Outer {
    /// Bytes that the tunnel puts in front of a packet.
    pub(super) const fn pushed(self) -> u16 {
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

/// Opens the bench's object with filled tables; its programs are not loaded yet.
pub(super) fn open(sizes: &Sizes, outer: Outer) -> Result<Balancer, BenchError> {
    let mut balancer = Balancer::open(OBJECT, sizes)?;
    balancer.globals.write(0, sizes.globals(SipKey::from_bytes(*b"a benchmark's id")))?;
    let protocols = [ip::TCP, ip::UDP];
    for (index, protocol) in (0..).zip(protocols) {
        balancer.services.write(index, service(protocol))?;
    }
    let rules = Services { first: 0, count: 2 };
    balancer.write_addresses(&[IpAddr::V4(VIP_V4), IpAddr::V6(VIP_V6)].map(|address| (address.into(), rules)), &[])?;
    for id in 1..=BACKENDS {
        balancer.backends.write(id.into(), outer.backend(id))?;
    }
    let slots: Vec<_> = ring().into_iter().map(|owner| Slot::settled(BackendId(owner))).collect();
    balancer.rings.write(POOL, &slots, &(0..RING_SLOTS).collect::<Vec<_>>())?;
    Ok(balancer)
}

/// Enters connections with these numbers in the token table, as if so many third packets had been seen.
pub(super) fn learn(balancer: &mut Balancer, numbers: Range<u32>) -> Result<(), BenchError> {
    for number in numbers {
        #[expect(clippy::cast_possible_truncation, reason = "at most as many as there are backends")]
        let backend = BackendId(1 + (number % u32::from(BACKENDS)) as u16);
        let flow = FlowHash(u64::from(number));
        let holder = Holder { flow, since: Tick(1), backend, state: Holder::OPEN };
        balancer.tokens.write(TokenKey::new(POOL, bench::token(number)), TokenEntry::held_by(holder))?;
    }
    Ok(())
}

/// Takes the tokens of the first so many third packets of a batch out of the table.
pub(super) fn forget(balancer: &mut Balancer, third_packets: u32) -> Result<(), BenchError> {
    for number in 0..third_packets {
        let token = token::derive(Version::V1, bench::key(number));
        balancer.tokens.remove(TokenKey::new(POOL, token))?;
    }
    Ok(())
}

const fn service(protocol: u8) -> Service {
    Service { port_first: PORT, port_last: PORT, protocol, ways: Ways::LEARN, pool: POOL, vip: VIP, ..Service::NONE }
}

fn link(backend: u16) -> Link {
    let [high, low] = backend.to_be_bytes();
    Link { interface: LOOPBACK, source_mac: [2, 0, 0, 0, 0, 1], next_hop_mac: [2, 0, 0, 1, high, low], mtu: MTU }
}

fn ring() -> Vec<u16> {
    let member = |id| Member { id, identity: ring::identity(&format!("backend-{id}")), weight: 1 };
    ring::build(&(1..=BACKENDS).map(member).collect::<Vec<_>>())
}
