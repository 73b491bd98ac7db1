//! The way back to a client, by the host's own routes: tunnels bring its packets, and answers leave without one.
//!
//! The kernel only looks a route up for packets that it would forward. So it is asked as if the packet had come in by the
//! loopback interface, which is how it asks for its own; the agent lets that interface forward, and no other.

use crate::skb::SkbFrame;
use aya_ebpf::{
    bindings::{
        BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as Lookup, bpf_fib_lookup__bindgen_ty_3 as Source,
        bpf_fib_lookup__bindgen_ty_4 as Destination, bpf_redir_neigh as NextHop, bpf_redir_neigh__bindgen_ty_1 as Hop,
    },
    helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh},
};
use core::mem::zeroed;
use lb_common::wire::{ip, tcp};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The loopback interface has this number in each network namespace.
const LOOPBACK: u32 = 1;

/// An interface, and who is next there.
pub(super) struct Route {
    interface: u32,
    next: NextHop,
}

impl Route {
    /// To `client` from `service`; `tcp` is the header of the client's packet.
    #[inline(always)]
    pub(super) fn to_v4(
        client: [u8; 4],
        service: [u8; 4],
        tcp: &[u8; tcp::HEADER_LEN],
        frame: &SkbFrame,
    ) -> Option<Self> {
        let mut lookup = question(AF_INET, tcp);
        lookup.__bindgen_anon_3 = Source { ipv4_src: u32::from_ne_bytes(service) };
        lookup.__bindgen_anon_4 = Destination { ipv4_dst: u32::from_ne_bytes(client) };
        Self::find(lookup, frame)
    }

    /// The same.
    #[inline(always)]
    pub(super) fn to_v6(
        client: [u32; 4],
        service: [u32; 4],
        tcp: &[u8; tcp::HEADER_LEN],
        frame: &SkbFrame,
    ) -> Option<Self> {
        let mut lookup = question(AF_INET6, tcp);
        lookup.__bindgen_anon_3 = Source { ipv6_src: service };
        lookup.__bindgen_anon_4 = Destination { ipv6_dst: client };
        Self::find(lookup, frame)
    }

    #[inline(always)]
    fn find(mut lookup: Lookup, frame: &SkbFrame) -> Option<Self> {
        // SAFETY: the helper reads and writes the structure, whose length it is told.
        let answer = unsafe {
            bpf_fib_lookup(frame.context(), &raw mut lookup, size_of::<Lookup>() as i32, BPF_FIB_LOOKUP_SKIP_NEIGH)
        };
        if answer != 0 {
            return None;
        }
        // SAFETY: any bytes are four words.
        let hop = Hop { ipv6_nh: unsafe { lookup.__bindgen_anon_4.ipv6_dst } };
        Some(Self {
            interface: lookup.ifindex,
            next: NextHop { nh_family: u32::from(lookup.family), __bindgen_anon_1: hop },
        })
    }

    /// Has the packet sent there when the program ends: what it is to return.
    #[inline(always)]
    pub(super) fn send(mut self) -> Option<i32> {
        // SAFETY: the helper copies the structure, whose length it is told.
        let action = unsafe { bpf_redirect_neigh(self.interface, &raw mut self.next, size_of::<NextHop>() as i32, 0) };
        const TC_ACT_REDIRECT: i64 = 7;
        (action == TC_ACT_REDIRECT).then_some(action as i32)
    }
}

#[inline(always)]
fn question(family: u8, tcp: &[u8; tcp::HEADER_LEN]) -> Lookup {
    // SAFETY: all zero is a question about nothing.
    let mut lookup: Lookup = unsafe { zeroed() };
    (lookup.family, lookup.l4_protocol, lookup.ifindex) = (family, ip::TCP, LOOPBACK);
    (lookup.sport, lookup.dport) = (u16::from_ne_bytes([tcp[2], tcp[3]]), u16::from_ne_bytes([tcp[0], tcp[1]]));
    lookup
}
