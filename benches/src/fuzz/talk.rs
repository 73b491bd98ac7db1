//! What clients, strangers and routers say: short conversations with the wide farm, most of them as they should be.

use crate::random::Random;

use super::worlds::{
    frames::{self, datagram, icmp, packet, pieces, quic_long, quic_short},
    mptcp::{self, SYN_OPTIONS, TIMESTAMPS},
    oracle,
    packet::{ETHERNET, Flow, Segment},
    setup::vip_address,
    wide::{BACKENDS, IN_TRANSITION, JOIN_PORT, PINNING, open_address, prefix_addresses, quic_id},
};
use lb_common::wire::ip::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

type Frames = Vec<Vec<u8>>;

/// The keys that servers have: few, so that tokens meet.
const SERVER_KEYS: [mptcp::Key; 6] = [*b"server 1", *b"server 2", *b"server 3", *b"server 4", [0; 8], [0xff; 8]];
const TCP_PORTS: [u16; 9] = [8000, 8000, 8001, 443, 443, 25, 110, 81, JOIN_PORT];
const UDP_PORTS: [u16; 6] = [443, 443, 53, 5000, 5999, 6000];

/// A flow to a service of the farm, and its protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talker {
    pub(super) flow: Flow,
    pub(super) protocol: u8,
}

impl Talker {
    pub(super) fn any(random: &mut Random) -> Self {
        let family = random.one_of(&[Family::V4, Family::V6]);
        let udp = random.chance(35);
        let [wide, narrow] = prefix_addresses(family);
        let exact = vip_address(family);
        let vip = random.one_of(&[exact, exact, exact, exact, open_address(family), wide, narrow]);
        let port = random.one_of(if udp { &UDP_PORTS } else { &TCP_PORTS[..] });
        let client = SocketAddr::new(client(random, family), 1024 + random.u16() % 60_000);
        let flow = Flow { client, vip: SocketAddr::new(vip, port) };
        Self { flow, protocol: if udp { frames::UDP } else { 6 } }
    }

    /// The same client's other path to the same service, maybe over the other family.
    fn second(self, random: &mut Random) -> Self {
        let family = if random.chance(50) == self.flow.vip.is_ipv4() { Family::V4 } else { Family::V6 };
        let vip = SocketAddr::new(vip_address(family), self.flow.vip.port());
        let client = SocketAddr::new(client(random, family), random.u16().max(1));
        Self { flow: Flow { client, vip }, ..self }
    }

    /// The slot of the flow in any ring that goes by flows.
    pub(super) fn slot(self) -> u32 {
        oracle::slot(oracle::hash(self.flow, self.protocol))
    }
}

fn client(random: &mut Random, family: Family) -> IpAddr {
    let [network, host] = [random.byte() % 3, random.byte() % 4];
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(198, 51, 100 + network, host)),
        Family::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x100 + u16::from(network), 0, 0, 0, 0, host.into())),
    }
}

/// What is said over a flow.
pub(super) fn conversation(random: &mut Random, talker: Talker) -> Frames {
    if random.chance(2) {
        return flood(random, talker);
    }
    if random.chance(12) {
        return icmp_messages(random, talker);
    }
    let frames = match talker.protocol {
        6 if random.chance(70) => mptcp_connection(random, talker),
        6 => tcp_connection(random, talker.flow),
        _ => datagrams(random, talker.flow),
    };
    if random.chance(10) { in_pieces(random, &frames) } else { frames }
}

fn mptcp_connection(random: &mut Random, talker: Talker) -> Frames {
    let (flow, isn, key) = (talker.flow, random.u32(), random.one_of(&SERVER_KEYS));
    let version = if random.chance(25) { mptcp::V0 } else { mptcp::V1 };
    let capable = if version == mptcp::V0 {
        mptcp::capable_one_key(version, mptcp::CLIENT_KEY)
    } else {
        mptcp::capable_syn().to_vec()
    };
    let mut said = vec![with(random, flow.syn(isn), &SYN_OPTIONS, &capable)];
    said.push(with(
        random,
        flow.ack(isn.wrapping_add(1)),
        &TIMESTAMPS,
        &mptcp::capable_ack(version, mptcp::CLIENT_KEY, key),
    ));
    if random.chance(40) {
        said.push(flow.first_data(isn, key));
    }
    said.push(flow.data(isn));
    let token = mptcp::token(version, if random.chance(85) { key } else { random.one_of(&SERVER_KEYS) });
    // One that nobody has taught may name a backend all the same.
    let token = if random.chance(25) { random.u32() } else { token };
    for _ in 0..random.below(3) {
        let second = talker.second(random);
        said.extend(joined(random, second, token));
    }
    said.extend(end(random, flow, isn));
    frames_of(random, said)
}

fn joined(random: &mut Random, Talker { flow, .. }: Talker, token: u32) -> Vec<Segment> {
    let isn = random.u32();
    let syn = with(random, flow.syn(isn), &SYN_OPTIONS, &mptcp::join_syn(token));
    let mut said = vec![syn.clone(), flow.join_ack(if random.chance(90) { isn } else { random.u32() }), flow.data(isn)];
    if random.chance(15) {
        said.insert(1, syn);
    }
    if random.chance(15) {
        // A successor on the same 5-tuple, or a stranger's lie.
        let next = random.u32();
        said.extend([flow.plain_syn(next), flow.ack(next.wrapping_add(u32::from(random.chance(70)))), flow.data(isn)]);
    }
    said.extend(end(random, flow, isn));
    said
}

fn tcp_connection(random: &mut Random, flow: Flow) -> Frames {
    let isn = random.u32();
    let len = random.one_of(&[0, 0, 1, 100, 600, 1400]);
    let syn = if random.chance(10) { flow.plain_syn(isn).payload(len) } else { flow.plain_syn(isn) };
    let mut said = vec![syn, flow.ack(isn.wrapping_add(1)).options(&TIMESTAMPS), flow.data(isn).payload(len)];
    if random.chance(20) {
        let next = random.u32();
        said.extend([flow.plain_syn(next), flow.ack(next.wrapping_add(1)), flow.data(next)]);
    }
    if random.chance(20) {
        said.remove(0);
    }
    said.extend(end(random, flow, isn));
    frames_of(random, said)
}

fn end(random: &mut Random, flow: Flow, isn: u32) -> Option<Segment> {
    let last = flow.ack(isn.wrapping_add(500));
    match random.below(4) {
        0 => Some(last.fin()),
        1 => Some(last.rst()),
        2 => Some(last.rst().options(&mptcp::fastclose(SERVER_KEYS[0]))),
        _ => None,
    }
}

/// The segment with MPTCP's option among the others: behind them, in front, or between ones that nobody knows.
fn with(random: &mut Random, segment: Segment, others: &[u8], option: &[u8]) -> Segment {
    let unknown = [253, 4, random.byte(), random.byte()];
    let options = match random.below(10) {
        0 => [option, others].concat(),
        1 => [&unknown[..], option].concat(),
        2 => [&[1, 1][..], option, &[1, 1]].concat(),
        3 => [option, option].concat(),
        4 => [&[0][..], option].concat(),
        _ => [others, option].concat(),
    };
    let len = options.len().min(40);
    segment.options(&options[..len])
}

fn frames_of(random: &mut Random, said: Vec<Segment>) -> Frames {
    let said = said.into_iter().map(|segment| if random.chance(4) { segment.payload(1400) } else { segment });
    said.map(|segment| segment.frame()).collect()
}

fn datagrams(random: &mut Random, flow: Flow) -> Frames {
    let backend = u16::from(random.byte()) % (BACKENDS.end() + 2);
    let id = [&[random.one_of(&[0, 0x20, 0x40, 0xe0]) | random.byte() & 0x1f][..], &quic_id(backend), &[7; 3]].concat();
    let first = random.bytes(8);
    let version = random.one_of(&[1, 1, 0x6b33_43cf, 0x0a1a_2a3a]);
    let len = random.one_of(&[0, 1, 5, 20, 500, 1400]);
    let plain = random.bytes(len);
    let said = match random.below(3) {
        0 => vec![plain.clone(), plain],
        1 => vec![quic_long(0, version, &first), quic_long(2, version, &id), quic_short(&id), quic_short(&id)],
        _ => vec![quic_short(&id), quic_long(random.byte() & 3, version, &id), plain, quic_short(&first)],
    };
    said.iter().map(|payload| datagram(flow, payload)).collect()
}

/// One of the frames in pieces, in order or not, some of them lost.
fn in_pieces(random: &mut Random, frames: &[Vec<u8>]) -> Frames {
    let number = random.u32() % 8;
    let mut frames = frames.to_vec();
    let at = random.below(frames.len());
    let mut pieces = pieces(&frames[at], number, 8 * (1 + random.below(8)));
    pieces.truncate(5);
    if random.chance(30) {
        pieces.reverse();
    }
    if random.chance(20) {
        pieces.remove(random.below(pieces.len()));
    }
    frames.splice(at..=at, pieces);
    frames
}

fn icmp_messages(random: &mut Random, Talker { flow, protocol }: Talker) -> Frames {
    let (client, vip) = (flow.client.ip(), flow.vip.ip());
    let router = self::client(random, if vip.is_ipv4() { Family::V4 } else { Family::V6 });
    let (echo, error, other) = if vip.is_ipv4() { (8, [3, 11, 12], 13) } else { (128, [1, 2, 4], 135) };
    let back = Flow { client: flow.vip, vip: flow.client };
    let to_client = if protocol == 6 { back.data(random.u32()).frame() } else { datagram(back, &[9; 60]) };
    let quoted = if random.chance(85) { to_client } else { datagram(flow, &[9; 60]) };
    let quoted = if random.chance(10) { pieces(&quoted, 5, 16).pop().expect("a piece") } else { quoted };
    let quoted = &quoted[ETHERNET..];
    let quoted = &quoted[..quoted.len().min(if random.chance(80) { 100 } else { random.below(60) })];
    let len = random.one_of(&[0, 56, 300, 1400]);
    let error = icmp(router, vip, random.one_of(&error), random.byte() % 5, [0, 0, 5, 0x78], quoted);
    let echo = icmp(client, vip, echo, 0, [0, 1, 0, random.byte()], &random.bytes(len));
    let opening = if protocol == 6 { flow.plain_syn(1).frame() } else { datagram(flow, b"hello") };
    match random.below(4) {
        0 => vec![echo],
        1 => vec![opening, error],
        2 => vec![error, packet(client, vip, if vip.is_ipv4() { 1 } else { 58 }, &[other, 0, 0, 0])],
        _ => vec![opening, icmp(router, vip, other, 0, [0; 4], &[]), echo, packet(client, vip, 47, &[0; 20])],
    }
}

/// More flows than a table takes, or a network may open.
fn flood(random: &mut Random, talker: Talker) -> Frames {
    if random.chance(50) {
        return flood_of_slots(random, talker);
    }
    let mut frames = Vec::new();
    let kind = random.below(3);
    let connect = mptcp_connection(random, talker);
    frames.extend(connect.into_iter().take(2));
    for port in 0..40 {
        let mut flow = talker.second(random).flow;
        flow.client.set_port(2000 + port);
        if talker.protocol != 6 || kind == 0 {
            frames.push(datagram(flow, b"flood"));
            continue;
        }
        let isn = random.u32();
        let key = [&b"flood "[..], &port.to_be_bytes()].concat().try_into().expect("eight bytes");
        if kind == 1 {
            frames.extend([flow.capable_syn(isn).frame(), flow.third_ack(isn, key).frame()]);
        } else {
            frames.extend(SERVER_KEYS[..1].iter().flat_map(|&key| {
                let token = mptcp::token(mptcp::V1, key);
                [flow.join(isn, token).frame(), flow.join_ack(isn).frame()]
            }));
            frames.push(flow.data(isn).frame());
        }
    }
    frames
}

/// More connections than the tables of moved and of pinned flows take, all of them in slots in transition.
fn flood_of_slots(random: &mut Random, talker: Talker) -> Frames {
    let family = if talker.flow.vip.is_ipv4() { Family::V4 } else { Family::V6 };
    let wanted = random.one_of(&[IN_TRANSITION, PINNING]);
    let mut frames = Vec::new();
    for port in 0..400 {
        let client = SocketAddr::new(client(random, family), 2000 + port);
        let flow = Flow { client, vip: SocketAddr::new(vip_address(family), 8000) };
        if (Talker { flow, protocol: 6 }).slot() / 3 % 8 != wanted {
            continue;
        }
        let isn = random.u32();
        if wanted == IN_TRANSITION {
            frames.push(flow.plain_syn(isn).frame());
        }
        frames.push(flow.ack(isn.wrapping_add(1)).options(&TIMESTAMPS).frame());
    }
    frames
}
