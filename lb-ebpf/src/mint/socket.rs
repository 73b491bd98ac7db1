//! Whether the kernel has more for a SYN than a listener: a connection that lives, or the rest of one that has ended.
//!
//! A connection between the same addresses and ports may have ended less than a minute ago (TIME-WAIT; RFC 9293, 3.6.1), or
//! live on in a server that its client has forgotten. The kernel judges the SYN then by what it knows of that connection.
//! And a cookie would not come back to the listener: the kernel would take the packet that brings it for the old connection's.

use crate::skb::SkbFrame;
use aya_ebpf::{
    bindings::{
        bpf_sock_tuple as Tuple, bpf_sock_tuple__bindgen_ty_1 as Ends,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as V4, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as V6,
    },
    helpers::generated::{bpf_sk_release, bpf_skc_lookup_tcp},
};
use lb_common::wire::tcp;

/// `TCP_LISTEN` of the kernel's `include/net/tcp_states.h`.
const LISTENS: u32 = 10;
/// The network namespace of the interface.
const THIS_NAMESPACE: u64 = u64::MAX;

/// Between `client` and `service`; `tcp` is the header of the client's packet.
#[inline(always)]
pub(super) fn is_kept_v4(client: u32, service: u32, tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> bool {
    let (sport, dport) = ports(tcp);
    is_kept(Ends { ipv4: V4 { saddr: client, daddr: service, sport, dport } }, size_of::<V4>(), frame)
}

/// The same.
#[inline(always)]
pub(super) fn is_kept_v6(client: [u32; 4], service: [u32; 4], tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> bool {
    let (sport, dport) = ports(tcp);
    is_kept(Ends { ipv6: V6 { saddr: client, daddr: service, sport, dport } }, size_of::<V6>(), frame)
}

#[inline(always)]
fn is_kept(ends: Ends, len: usize, frame: &SkbFrame) -> bool {
    let mut tuple = Tuple { __bindgen_anon_1: ends };
    // SAFETY: the helper reads so many bytes of the tuple.
    let socket = unsafe { bpf_skc_lookup_tcp(frame.context(), &raw mut tuple, len as u32, THIS_NAMESPACE, 0) };
    if socket.is_null() {
        return false;
    }
    // SAFETY: a socket that was found is there until it is released, which is once.
    unsafe {
        let state = (*socket).state;
        bpf_sk_release(socket.cast());
        state != LISTENS
    }
}

#[inline(always)]
fn ports(tcp: &[u8; tcp::HEADER_LEN]) -> (u16, u16) {
    (u16::from_ne_bytes([tcp[0], tcp[1]]), u16::from_ne_bytes([tcp[2], tcp[3]]))
}
