//! The least that the hops of Weir's way need: a tunnel put on at the balancer, and taken off at the backend, for one service
//! and one backend. What whole transfers through Weir are measured by. It must decide nothing, remember nothing and count
//! nothing.

use crate::cursor::XdpFrame;
use aya_ebpf::{
    bindings::xdp_action,
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use lb_common::{
    bench::Hop,
    packet::{Frame as _, Packet as _},
    wire::{
        checksum, ethernet,
        ip::{IPIP, IPV6_IN_IP},
        ipv4, ipv6,
    },
};

#[btf_map(name = "weir_hop")]
static HOP: Array<Hop, 1> = Array::new();

/// From the start of a frame without tags to its type, and to fields of its IP header.
const TYPE: usize = 12;
const IP: usize = ethernet::HEADER_LEN;
const LEN_V4: usize = IP + 2;
const PROTOCOL_V4: usize = IP + 9;
const DESTINATION_V4: usize = IP + 16;
const LEN_V6: usize = IP + 4;
const DESTINATION_V6: usize = IP + 24;
const OUTER: i32 = ipv4::HEADER_LEN as i32;

/// Sends the service's packets to its backend.
#[xdp(frags)]
#[inline(always)]
pub fn weir_stub_wrap(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let Some(hop) = HOP.get(0) else { return xdp_action::XDP_PASS };
    let Some((len, protocol)) = served(&frame, hop) else { return xdp_action::XDP_PASS };
    match wrap(&mut frame, hop, len, protocol) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_DROP,
    }
}

/// Takes the tunnel off.
#[xdp(frags)]
#[inline(always)]
pub fn weir_stub_unwrap(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(ctx.ctx);
    let inner = match (frame.load(TYPE).map(u16::from_be_bytes), frame.load(PROTOCOL_V4)) {
        (Some(ethernet::IPV4), Some([IPIP])) => ethernet::IPV4,
        (Some(ethernet::IPV4), Some([IPV6_IN_IP])) => ethernet::IPV6,
        _ => return xdp_action::XDP_PASS,
    };
    match unwrap(&mut frame, inner) {
        Some(()) => xdp_action::XDP_PASS,
        None => xdp_action::XDP_DROP,
    }
}

/// The length of a packet for the service, and its protocol in a tunnel.
#[inline(always)]
fn served(frame: &XdpFrame, hop: &Hop) -> Option<(u16, u8)> {
    match u16::from_be_bytes(frame.load(TYPE)?) {
        ethernet::IPV4 if frame.load(DESTINATION_V4)? == hop.vip_v4 => {
            Some((u16::from_be_bytes(frame.load(LEN_V4)?), IPIP))
        }
        ethernet::IPV6 if frame.load(DESTINATION_V6)? == hop.vip_v6 => {
            Some((u16::from_be_bytes(frame.load(LEN_V6)?) + ipv6::HEADER_LEN as u16, IPV6_IN_IP))
        }
        _ => None,
    }
}

/// Puts the tunnel on, back to where the frame came from.
#[inline(always)]
fn wrap(frame: &mut XdpFrame, hop: &Hop, len: u16, protocol: u8) -> Option<()> {
    let [a, b, c, d, e, f, u, v, w, x, y, z]: [u8; 12] = frame.load(0)?;
    if !frame.move_start(-OUTER) {
        return None;
    }
    let len = len + ipv4::HEADER_LEN as u16;
    *frame.place(0)? = [u, v, w, x, y, z, a, b, c, d, e, f];
    *frame.place(TYPE)? = ethernet::IPV4.to_be_bytes();
    let outer = frame.place::<{ ipv4::HEADER_LEN }>(IP)?;
    *outer = hop.outer;
    [outer[2], outer[3]] = len.to_be_bytes();
    outer[9] = protocol;
    [outer[10], outer[11]] = checksum::finish(hop.sum + u32::from(len) + u32::from(protocol));
    Some(())
}

#[inline(always)]
fn unwrap(frame: &mut XdpFrame, inner: u16) -> Option<()> {
    let addresses: [u8; 12] = frame.load(0)?;
    if !frame.move_start(OUTER) {
        return None;
    }
    *frame.place(0)? = addresses;
    *frame.place(TYPE)? = inner.to_be_bytes();
    Some(())
}
