//! A packet generator, the plainest balancer there can be, and a place where packets end: what Weir is measured by on
//! whole links. The generator runs by `BPF_PROG_TEST_RUN` on live frames; its packets are a benchmark's, from the network
//! that is for benchmarks (RFC 2544, appendix C.2.2).

use crate::{bench, cursor::XdpFrame};
use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use lb_common::{
    bench::{CLIENTS, CLIENTS_MASK},
    packet::{Frame as _, Packet as _},
    wire::{ethernet, ip},
};

/// From the start of a frame without tags to its type, to the protocol of its IPv4 or IPv6 header, and to its IPv4 source.
const TYPE: usize = 12;
const PROTOCOL_V4: usize = 14 + 9;
const PROTOCOL_V6: usize = 14 + 6;
const SOURCE: usize = 14 + 12;
/// Bytes of an IP header.
const IPV4: usize = 20;
const IPV6: usize = 40;

/// Sends the next packet out of the interface that it is run for.
#[xdp(frags)]
#[inline(always)]
pub fn weir_generate(ctx: XdpContext) -> u32 {
    match bench::make_anew(&mut XdpFrame::new(ctx.ctx)) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_ABORTED,
    }
}

/// Sends each packet back to where it came from.
#[xdp(frags)]
#[inline(always)]
pub fn weir_reflect(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let Some(addresses) = frame.place::<12>(0) else { return xdp_action::XDP_DROP };
    let [a, b, c, d, e, f, u, v, w, x, y, z] = *addresses;
    *addresses = [u, v, w, x, y, z, a, b, c, d, e, f];
    xdp_action::XDP_TX
}

/// Drops the generator's packets, in a tunnel or not; all others go on.
#[xdp(frags)]
#[inline(always)]
pub fn weir_sink(ctx: XdpContext) -> u32 {
    let frame = XdpFrame::new(ctx.ctx);
    let source = match frame.load(TYPE).map(u16::from_be_bytes) {
        Some(ethernet::IPV4) if frame.load(PROTOCOL_V4) == Some([ip::IPIP]) => SOURCE + IPV4,
        Some(ethernet::IPV4) => SOURCE,
        Some(ethernet::IPV6) if frame.load(PROTOCOL_V6) == Some([ip::IPIP]) => SOURCE + IPV6,
        _ => return xdp_action::XDP_PASS,
    };
    let is_generated = frame.load(source).is_some_and(|source| u32::from_be_bytes(source) & CLIENTS_MASK == CLIENTS);
    if is_generated { xdp_action::XDP_DROP } else { xdp_action::XDP_PASS }
}
