//! Packet benchmarks: programs for `BPF_PROG_TEST_RUN` around the balancer's own code, in an object of their own.
//!
//! With `repeat` the kernel does not restore the packet, so the wrapper makes each packet anew, calls what is to be
//! measured, and undoes the tunnel. The same wrapper around a stub is what has to be subtracted. A wrapper must touch
//! nothing that the balancer reads but the packet.

use crate::{balance, cursor::XdpFrame, maps::KernelTables};
use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action},
    btf_maps::Array,
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use lb_common::{
    bench::{Plan, SEGMENT, VARIED, Varies, client, key, token},
    flow::{Ports, WireAddress as _},
    ids::BackendId,
    packet::Frame as _,
    steer::Common,
    tables::{Exception, FlowEntry, InsertError, Tables as _},
    wire::{
        ip::{self, Header as _},
        ipv4::Ipv4,
    },
};

#[btf_map(name = "weir_bench_plan")]
static PLAN: Array<Plan, 1> = Array::new();

/// Makes a packet, lets it be handled by `$measured`, and undoes that. All of it is one function, for the balancer and the
/// digest that it calls fill the stack of 512 bytes; so the plan is looked up twice, to be held by nothing meanwhile. A
/// macro, for LLVM inlines no call by a function's name through `Fn` that is as large as the balancer.
macro_rules! wrap {
    ($ctx:ident, $measured:expr) => {{
        if make(&mut XdpFrame::new($ctx.ctx)).is_none() {
            return xdp_action::XDP_ABORTED;
        }
        let action = $measured(&$ctx);
        if action == xdp_action::XDP_TX && undo(&mut XdpFrame::new($ctx.ctx)).is_none() {
            return xdp_action::XDP_ABORTED;
        }
        action
    }};
}

/// The balancer.
#[xdp(frags)]
#[inline(always)]
pub fn weir_bench(ctx: XdpContext) -> u32 {
    wrap!(ctx, balance::<Common>)
}

/// Nothing: the floor.
#[xdp(frags)]
#[inline(always)]
pub fn weir_bench_0(ctx: XdpContext) -> u32 {
    wrap!(ctx, pass)
}

/// Room for an IPv4 header, the least that a balancer does.
#[xdp(frags)]
#[inline(always)]
pub fn weir_bench_20(ctx: XdpContext) -> u32 {
    wrap!(ctx, push::<20>)
}

/// Room for an IPv6 header.
#[xdp(frags)]
#[inline(always)]
pub fn weir_bench_40(ctx: XdpContext) -> u32 {
    wrap!(ctx, push::<40>)
}

/// Room for an IPv4, a UDP and a GUE header.
#[xdp(frags)]
#[inline(always)]
pub fn weir_bench_32(ctx: XdpContext) -> u32 {
    wrap!(ctx, push::<32>)
}

/// Nothing, as a program of TC's: what the agent's are held against, which need no wrapper.
#[classifier]
#[inline(always)]
pub fn weir_bench_tc(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Gives the flow of each IPv4 packet an entry, as the data path does for a joined subflow on backend 1.
#[xdp(frags)]
#[inline(always)]
pub fn weir_bench_track(ctx: XdpContext) -> u32 {
    wrap!(ctx, track)
}

#[inline(always)]
fn pass(_: &XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[inline(always)]
fn push<const N: i32>(ctx: &XdpContext) -> u32 {
    if XdpFrame::new(ctx.ctx).move_start(-N) { xdp_action::XDP_TX } else { xdp_action::XDP_DROP }
}

#[inline(always)]
fn plan() -> Option<&'static mut Plan> {
    let plan = PLAN.get_ptr_mut(0)?;
    // SAFETY: the element stays as long as the map, and only one benchmark at a time runs with it.
    Some(unsafe { &mut *plan })
}

#[inline(always)]
fn make(frame: &mut XdpFrame) -> Option<()> {
    let plan = plan()?;
    if plan.ipv6 == 1 { make_next::<34, 54>(frame, plan) } else { make_next::<26, 34>(frame, plan) }
}

/// Makes the next packet of a frame that has been on its way: it comes back as it was left, with a tunnel's headers over its
/// own Ethernet header.
#[inline(always)]
pub fn make_anew(frame: &mut XdpFrame) -> Option<()> {
    *frame.place(0)? = plan()?.ethernet;
    make(frame)
}

/// Makes the next packet out of the last. `CLIENT` is where the last 32 bits of the source address stand, `TCP` where
/// the ports do, right behind the destination address.
#[inline(always)]
fn make_next<const CLIENT: usize, const TCP: usize>(frame: &mut XdpFrame, plan: &mut Plan) -> Option<()> {
    let packet = plan.packets;
    plan.packets = packet.wrapping_add(1);
    if plan.alternates == 1 {
        *frame.place::<SEGMENT>(TCP + 4)? = plan.segments[(packet & 1) as usize];
    }
    if plan.flows > 1 {
        if plan.alternates == 0 || packet & 1 == 0 {
            let next = plan.flow + plan.stride;
            plan.flow = if next >= plan.flows { next - plan.flows } else { next };
        }
        let (address, port) = client(plan.client, plan.flow);
        *frame.place(CLIENT)? = address.to_be_bytes();
        *frame.place(TCP)? = (u32::from(port) << 16 | u32::from(plan.port)).to_be_bytes();
        if plan.vips > 1 {
            *frame.place(TCP - 4)? = plan.vip.wrapping_add(plan.flow & (plan.vips - 1)).to_be_bytes();
        }
    }
    match plan.varies {
        Varies::TOKEN => *frame.place(TCP + VARIED)? = token(plan.flow & (plan.tokens - 1)).to_wire(),
        Varies::KEY if packet & 1 == 1 => *frame.place(TCP + VARIED)? = key(packet >> 1),
        _ => {}
    }
    Some(())
}

/// Takes the tunnel off.
#[inline(always)]
fn undo(frame: &mut XdpFrame) -> Option<()> {
    let plan = plan()?;
    if plan.pushed > 0 && !frame.move_start(i32::from(plan.pushed)) {
        return None;
    }
    *frame.place(0)? = plan.ethernet;
    Some(())
}

#[inline(always)]
fn track(ctx: &XdpContext) -> u32 {
    let (Some(()), Some(plan)) = (make_entry(&XdpFrame::new(ctx.ctx)), plan()) else { return xdp_action::XDP_ABORTED };
    plan.tracked = plan.tracked.wrapping_add(1);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn make_entry(frame: &XdpFrame) -> Option<()> {
    let mut tables = KernelTables;
    let header = Ipv4::load(frame, 14).ok()?;
    let ip = header.check(frame).ok()?;
    let tcp = lb_common::wire::tcp::Tcp::parse(frame, &ip).ok()?;
    let ports = Ports { source: tcp.source_port, destination: tcp.destination_port };
    let flow = header.source().flow_hash(tables.globals()?.key(), header.destination(), ports, ip::TCP);
    let entry = FlowEntry { sequence: 0, seen: tables.now(), backend: BackendId(1), state: FlowEntry::OPEN };
    match tables.insert_entry(Exception::Joined, flow, entry) {
        Ok(()) | Err(InsertError::Exists) => Some(()),
        Err(InsertError::Full) => None,
    }
}
