//! The host's decision over any frames, one after the other: one reason that fits the verdict, a backend that there is, and
//! a tunnel from which the very packet comes out again. A frame is two bytes of length and its bytes.
#![no_main]

use lb_common::{
    decap,
    encap::{self, GUE_PORT, Link, Tunnel},
    hash::SipKey,
    host::{HostFrame, HostTables},
    ids::{BackendId, Tick, VipId},
    reason::Action,
    steer::steer,
    tables::{Backend, Encap, RING_SLOTS, Service, Services, Slot, Traits, UnknownJoin, Ways},
    wire::ip::{self, Address},
};
use libfuzzer_sys::fuzz_target;
use std::cell::RefCell;

/// Backends, each reached another way.
const BACKENDS: u16 = 5;

thread_local! {
    /// Rings take long to make.
    static FARM: RefCell<HostTables> = RefCell::new(farm());
}

fuzz_target!(|bytes: &[u8]| {
    FARM.with_borrow_mut(|tables| {
        forget(tables);
        let mut rest = bytes;
        while let Some(([high, low], behind)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([*high, *low])).min(behind.len());
            let (frame, behind) = behind.split_at(len);
            rest = behind;
            tables.now = Tick(tables.now.0 + u32::from(high >> 6));
            judge(frame, tables);
        }
    });
});

fn judge(frame: &[u8], tables: &mut HostTables) {
    let decision = steer(&frame, tables);
    let forward = match decision.verdict {
        Ok(forward) => forward,
        Err(refusal) => return assert_ne!(refusal.reason.action(), Action::Forward),
    };
    assert_eq!(forward.reason.action(), Action::Forward);
    assert!((1..=BACKENDS).contains(&forward.id.0) && forward.backend.is_reachable());
    assert_ne!(decision.vip, VipId::NONE);
    assert!(forward.ip.len + forward.backend.tunnel_len() <= usize::from(forward.backend.mtu));
    let inner = &frame[forward.ip.header..];
    let mut sent = HostFrame::new(frame);
    encap::encapsulate(&mut sent, &forward).expect("there is headroom");
    let outer = 14 + forward.backend.tunnel_len();
    assert_eq!(&sent.bytes()[outer..], inner, "the packet inside the tunnel changed");
    if forward.backend.encap == Encap::L2 {
        return;
    }
    let tunnel = decap::find_tunnel(&sent, |_| Some(GUE_PORT)).expect("a tunnel of ours");
    decap::unwrap(&mut sent, &tunnel).expect("it can be taken off");
    assert_eq!(&sent.bytes()[14..], inner, "another packet came out of the tunnel");
}

fn farm() -> HostTables {
    let mut tables = HostTables::new(SipKey::from_bytes([7; 16]));
    let link = Link { interface: 1, source_mac: [2; 6], next_hop_mac: [4; 6], mtu: 1500 };
    let v4 = Tunnel::V4 { source: [10, 0, 0, 1].into(), destination: [10, 0, 0, 2].into() };
    let v6 = Tunnel::V6 { source: [0xfd; 16].into(), destination: [0xfc; 16].into() };
    for backend in [
        Backend::l2(&link),
        Backend::ipip(&link, v4),
        Backend::ipip(&link, v6),
        Backend::gue(&link, v4, GUE_PORT),
        Backend::gue(&link, v6, GUE_PORT),
    ] {
        tables.add_backend(backend);
    }
    let pool = tables.add_pool((0..RING_SLOTS).map(|_| 1));
    for (slot, i) in tables.slots.iter_mut().zip(0_u16..) {
        let (owner, previous) = (BackendId(1 + i % BACKENDS), BackendId(1 + (i + 1) % BACKENDS));
        *slot = match i / BACKENDS % 4 {
            0 => Slot::in_transition(owner, previous),
            1 => Slot::in_transition(owner, previous).pinning().keeping_datagrams(),
            _ => Slot::settled(owner),
        };
    }
    let service =
        Service { port_last: u16::MAX, pool, unknown_join: UnknownJoin::HASH, vip: VipId(1), ..Service::NONE };
    let tcp = Service { protocol: ip::TCP, ways: Ways::LEARN, traits: Traits::TCP_FRAGMENTS, ..service };
    let udp = Service { protocol: ip::UDP, vip: VipId(2), quic_id_len: 4, ..service };
    tables.services = vec![tcp, udp];
    // Every address is a VIP's.
    tables.prefixes.insert((0, Address::v6([0; 16])), Services { first: 0, count: 2 });
    tables.globals.prefixes = 1;
    tables
}

fn forget(tables: &mut HostTables) {
    tables.tokens.clear();
    for table in [&mut tables.joined, &mut tables.moved, &mut tables.pinned] {
        table.clear();
    }
    for buckets in [&mut tables.pending, &mut tables.embryonic, &mut tables.datagrams, &mut tables.fragments] {
        buckets.fill(Default::default());
    }
}
