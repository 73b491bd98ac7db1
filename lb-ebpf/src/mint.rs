//! Minting on a backend: answers SYNs with MPTCP keys that the agent has chosen, and takes MPTCP out of SYN/ACKs whose key
//! nobody has chosen. Every other packet goes on to whoever comes next, untouched.
//!
//! A key that has gone out is in a table before its answer leaves, and what is not in that table leaves without MPTCP.

use crate::{prefix, skb::SkbFrame};
use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    btf_maps::{HashMap, LpmTrie, PerCpuArray, Queue},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
    programs::TcContext,
};
use lb_common::{
    clamp::Rule,
    flow::WireAddress as _,
    limits,
    mint::{ANSWER_LEN, Capable, Key, Listener, Mint, Offer, Service, Syn, judge},
    packet::Packet as _,
    wire::{
        ethernet,
        ip::{self, Address},
        ipv4::Ipv4,
        ipv6::{self, Ipv6},
        tcp,
    },
};

mod route;
mod socket;
mod version;

use version::Version;

/// Keys to be given out. An agent that mints makes it, like the next one, as large as it is to be.
#[btf_map(name = "weir_mint_keys")]
static KEYS: Queue<Key, 1> = Queue::new();
/// Keys that were given out and have not come back yet, and when.
#[btf_map(name = "weir_mint_out")]
static OUT: HashMap<Key, u64, 1> = HashMap::new();
/// The services that have a listener.
#[btf_map(name = "weir_mint_listeners")]
static LISTENERS: HashMap<Service, Listener, { limits::LISTENERS_MAX as usize }> = HashMap::new();
/// The VIPs whose handshakes carry no other keys than ours; of the rules only the ports count.
#[btf_map(name = "weir_mint_vips")]
static VIPS: LpmTrie<Address, Rule, { limits::VIPS_MAX as usize }> = LpmTrie::new();
#[btf_map(name = "weir_mints")]
static COUNTERS: PerCpuArray<u64, { Mint::COUNT }> = PerCpuArray::new();
#[btf_map(name = "weir_mint_scratch")]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// A SYN and its answer in memory of which helpers take any part.
#[repr(C, align(8))]
pub struct Scratch {
    ip: [u8; ipv6::HEADER_LEN],
    syn: [u8; 64],
    answer: [u8; ANSWER_LEN],
}

/// A SYN that is to be answered.
struct Asked<'l> {
    listener: &'l Listener,
    header: [u8; tcp::HEADER_LEN],
    offer: Offer,
    options_len: usize,
    /// Whether it is nothing but its headers, and for this host.
    is_whole: bool,
}

/// Answers a SYN, if it is one that offers MPTCP to a service with a listener.
#[inline(always)]
pub fn mint(ctx: &TcContext) -> i32 {
    let mut frame = SkbFrame::new(ctx.skb.skb);
    match frame.load(ethernet::HEADER_LEN - 2).map(u16::from_be_bytes) {
        Some(ethernet::IPV4) => mint_as::<Ipv4>(&mut frame),
        Some(ethernet::IPV6) => mint_as::<Ipv6>(&mut frame),
        _ => TC_ACT_UNSPEC,
    }
}

#[inline(always)]
fn mint_as<V: Version>(frame: &mut SkbFrame) -> i32 {
    let Some(asked) = read::<V>(frame) else { return TC_ACT_UNSPEC };
    let (outcome, action) = match answer::<V>(frame, &asked) {
        Ok(action) => (Mint::Minted, action),
        Err((outcome, action)) => (outcome, action),
    };
    count(outcome);
    action
}

/// The SYN, if it is one of those.
#[inline(always)]
fn read<V: Version>(frame: &mut SkbFrame) -> Option<Asked<'static>> {
    let tcp_at = ethernet::HEADER_LEN + V::LEN;
    let [protocol] = frame.load(ethernet::HEADER_LEN + V::PROTOCOL_AT)?;
    let header: [u8; tcp::HEADER_LEN] = frame.load(tcp_at)?;
    if protocol != ip::TCP || !Syn::is(&header) {
        return None;
    }
    let ip = V::load(frame, ethernet::HEADER_LEN).ok()?;
    if !ip.is_plain() {
        return None;
    }
    let service = Service::new(ip.destination().key(), u16::from_be_bytes([header[2], header[3]]));
    // SAFETY: whoever writes the entry writes it as a whole, and a torn one costs one answer.
    let listener = unsafe { LISTENERS.get(service) }?;
    let options_len = (usize::from(header[12] >> 4) * 4).checked_sub(tcp::HEADER_LEN)?;
    let headers = V::LEN + tcp::HEADER_LEN + options_len;
    let len = ip.outline(frame).ok()?.len;
    frame.pull(ethernet::HEADER_LEN + headers)?;
    let offer = frame.offer(tcp_at + tcp::HEADER_LEN, options_len);
    let is_whole = len == headers && frame.is_for_this_host();
    offer.is_mptcp().then_some(Asked { listener, header, offer, options_len, is_whole })
}

/// Where the packet goes; or why the kernel has it, or nobody.
#[inline(always)]
fn answer<V: Version>(frame: &mut SkbFrame, asked: &Asked<'_>) -> Result<i32, (Mint, i32)> {
    let left = |outcome| (outcome, TC_ACT_UNSPEC);
    // SAFETY: the helper only reads the clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if !asked.offer.is_carried() || !asked.is_whole {
        return Err(left(Mint::NotCarried));
    }
    if now >= asked.listener.until {
        return Err(left(Mint::Paused));
    }
    let scratch = SCRATCH.get_ptr_mut(0).ok_or(left(Mint::Refused))?;
    // SAFETY: the element is this CPU's own, and a TC program is not interrupted by another one of the same kind.
    let scratch = unsafe { &mut *scratch };
    let tcp_at = ethernet::HEADER_LEN + V::LEN;
    let syn_len = tcp::HEADER_LEN + asked.options_len;
    let (cookie, syn) = prepare::<V>(frame, asked, scratch, syn_len).ok_or(left(Mint::Refused))?;
    if V::has_socket(&scratch.ip, &asked.header, frame) {
        return Err(left(Mint::HasSocket));
    }
    let route = V::route(&scratch.ip, &asked.header, frame).ok_or(left(Mint::NoRoute))?;
    let key = give_out(now).map_err(left)?;
    scratch.answer = syn.answer(asked.listener, cookie, now, key);
    let written = write::<V>(frame, scratch, tcp_at, syn_len).and_then(|()| route.send());
    // The client asks again.
    written.ok_or((Mint::Refused, TC_ACT_SHOT))
}

/// A copy of the SYN, the cookie for it, and what its options ask for.
#[inline(always)]
fn prepare<V: Version>(
    frame: &SkbFrame,
    asked: &Asked<'_>,
    scratch: &mut Scratch,
    syn_len: usize,
) -> Option<(u32, Syn)> {
    let tcp_at = ethernet::HEADER_LEN + V::LEN;
    frame.copy(ethernet::HEADER_LEN, &mut scratch.ip, V::LEN)?;
    frame.copy(tcp_at, &mut scratch.syn, syn_len)?;
    let timestamp = frame.load(tcp_at + tcp::HEADER_LEN + SkbFrame::below_64(asked.offer.timestamp_at()))?;
    let syn = Syn::new(asked.header, V::traffic_class(&scratch.ip), asked.offer, timestamp);
    let cookie = V::cookie(scratch, SkbFrame::below_64(syn_len));
    // The cookie is the low half; an error is a small negative number.
    (cookie >= 0).then_some((cookie as u32, syn))
}

/// A key, which is noted as being out.
#[inline(always)]
fn give_out(now: u64) -> Result<Key, Mint> {
    let Some(key) = KEYS.pop().map_err(|_| Mint::Refused)? else { return Err(Mint::NoKey) };
    const ONLY_NEW: u64 = 1;
    if OUT.insert(key, now, ONLY_NEW).is_err() {
        // Somebody takes it later. Where it finds no room either, it is lost, and nothing else.
        let _ = KEYS.push(key, 0);
        return Err(Mint::Refused);
    }
    Ok(key)
}

/// Makes the packet its own answer, behind an Ethernet header that whoever sends it writes.
#[inline(always)]
fn write<V: Version>(frame: &mut SkbFrame, scratch: &mut Scratch, tcp_at: usize, syn_len: usize) -> Option<()> {
    frame.drop_tag()?;
    frame.resize(tcp_at + ANSWER_LEN)?;
    V::write(frame, &mut scratch.ip)?;
    frame.store(tcp_at, &scratch.answer)?;
    frame.checksum_by(tcp_at, &scratch.syn, syn_len, &scratch.answer)
}

/// Takes MPTCP out of a SYN/ACK, unless its key was given out here.
#[inline(always)]
pub fn plain(ctx: &TcContext) -> i32 {
    let mut frame = SkbFrame::new(ctx.skb.skb);
    let Some(found) = judge(&frame, |address| prefix::longest(&VIPS, address)) else { return TC_ACT_UNSPEC };
    // SAFETY: only whether there is an entry matters.
    if unsafe { OUT.get(found.key) }.is_some() {
        return TC_ACT_UNSPEC;
    }
    let (outcome, action) = match frame.replace(found.at, &Capable::NOPS, found.checksum, found.sum, Capable::NOPS_SUM)
    {
        Some(()) => (Mint::Plain, TC_ACT_UNSPEC),
        // With it, joins would go wrong.
        None => (Mint::Dropped, TC_ACT_SHOT),
    };
    count(outcome);
    action
}

#[inline(always)]
fn count(outcome: Mint) {
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: the element is this CPU's own.
        unsafe { *counter += 1 };
    }
}
