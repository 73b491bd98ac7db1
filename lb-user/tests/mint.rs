//! The programs that mint, run by the kernel over single frames in a network namespace of their own: what they answer is read
//! by etherparse, and whose cookie it is the kernel itself says. Needs root.

use aya::{TestRun as _, programs::TestRunOptions};
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice, checksum::Sum16BitWords};
use lb_common::{
    clamp::Rule,
    mint::{Key, Listener, Mint, Service},
    wire::ip::Address,
};
use lb_user::bpf::{AgentPrograms, MintCounters};
use nix::sched::{CloneFlags, unshare};
use std::{fs, process::Command, thread};

const CLIENT4: [u8; 4] = [198, 51, 100, 1];
const VIP4: [u8; 4] = [192, 0, 2, 10];
const CLIENT6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const PORT: u16 = 443;
const SEQUENCE: u32 = 0x1234_5678;
const CAPABLE: [u8; 4] = [30, 4, 0x01, 0x01];
const TIMESTAMPS: [u8; 10] = [8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
const JOIN: [u8; 12] = [30, 12, 0x10, 1, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4];

const UNSPEC: u32 = u32::MAX;
const REDIRECT: u32 = 7;

/// The programs, in a namespace from which there is a route to the clients.
struct Backend {
    programs: AgentPrograms,
    counters: MintCounters,
}

/// Runs a test in such a namespace.
fn on_a_backend(test: impl FnOnce(Backend) + Send) {
    thread::scope(|scope| {
        scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root");
            for line in [
                "link set lo up",
                "link add eth0 type veth peer name peer",
                "link set eth0 up",
                "link set peer up",
                "address add 10.0.0.2/24 dev eth0",
                "-6 address add 2001:db8:1::2/64 dev eth0 nodad",
                "route add default via 10.0.0.1",
                "-6 route add default via 2001:db8:1::1",
            ] {
                let done = Command::new("ip").args(line.split(' ')).status().expect("`ip` is installed");
                assert!(done.success(), "ip {line}");
            }
            let mut programs = AgentPrograms::load(Some(64)).expect("the kernel takes them");
            let tables = programs.mint().expect("it mints");
            let counters = tables.take_counters().expect("they are asked for once");
            let rule = Rule::new(u16::MAX, &[[PORT, PORT]]).expect("one range");
            for address in [Address::v4(VIP4), Address::v6(VIP6)] {
                tables.listeners.write(Service::new(address, PORT), listener(u64::MAX)).expect("room");
                tables.vips.write(128, address, rule).expect("room");
            }
            test(Backend { programs, counters });
        });
    });
}

fn let_routes_be_asked() {
    for family in ["ipv4", "ipv6"] {
        fs::write(format!("/proc/sys/net/{family}/conf/lo/forwarding"), "1").expect("a setting");
    }
}

fn listener(until: u64) -> Listener {
    Listener { until, mss: 1400, window: 64_400, wscale: 7, flags: Listener::SACK | Listener::WSCALE, zero: 0 }
}

impl Backend {
    fn run(&mut self, program: &'static str, frame: &[u8]) -> (u32, Vec<u8>) {
        let mut bytes = vec![0; 2048];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut bytes), ..TestRunOptions::default() };
        let result = self.programs.program(program).expect("it is loaded").test_run(options).expect("a test run");
        bytes.truncate(result.data_size_out as usize);
        (result.return_value, bytes)
    }

    fn count(&self, outcome: Mint) -> u64 {
        let counts = self.counters.read().expect("counters");
        counts.into_iter().find(|(other, _)| *other == outcome).expect("all are there").1
    }

    fn push(&mut self, key: Key) {
        assert!(self.programs.mint().expect("it mints").keys.push(key).expect("the queue"));
    }
}

fn packet(is_v6: bool, answers: bool, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let builder = PacketBuilder::ethernet2([2; 6], [0; 6]);
    let builder = match (is_v6, answers) {
        (false, false) => builder.ipv4(CLIENT4, VIP4, 61),
        (false, true) => builder.ipv4(VIP4, CLIENT4, 64),
        (true, false) => builder.ipv6(CLIENT6, VIP6, 61),
        (true, true) => builder.ipv6(VIP6, CLIENT6, 64),
    };
    let (from, to) = if answers { (PORT, 40_000) } else { (40_000, PORT) };
    let builder = builder.tcp(from, to, SEQUENCE, 512).syn().options_raw(&padded).expect("options");
    let builder = if answers { builder.ack(9) } else { builder };
    let mut bytes = Vec::new();
    builder.write(&mut bytes, payload).expect("a packet");
    bytes
}

fn syn(is_v6: bool, options: &[u8]) -> Vec<u8> {
    packet(is_v6, false, options, &[])
}

fn checksum_is_right(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).expect("a packet");
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else { return false };
    let (addresses, len) = match packet.net.expect("IP") {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            (&frame[26..34], ip.payload().payload.len())
        }
        NetSlice::Ipv6(ip) => (&frame[22..54], ip.payload().payload.len()),
        NetSlice::Arp(_) => return false,
    };
    let segment = tcp.slice();
    let sum = Sum16BitWords::new().add_slice(addresses).add_2bytes([0, 6]);
    let sum = sum.add_2bytes(u16::try_from(len).expect("short").to_be_bytes());
    sum.add_slice(segment).add_slice(tcp.payload()).ones_complement() == 0
}

#[test]
fn a_syn_becomes_its_own_answer() {
    on_a_backend(|mut backend| {
        let_routes_be_asked();
        let mss = [2, 4, 5, 0xb4];
        let mut minted = 0;
        for is_v6 in [false, true] {
            for (before, after) in [
                ([&mss[..], &[4, 2], &TIMESTAMPS, &[1, 3, 3, 10]].concat(), vec![]),
                ([&[1, 1, 1][..], &TIMESTAMPS].concat(), vec![]),
                (vec![], [&TIMESTAMPS[..], &[3, 3, 9, 4, 2]].concat()),
                (TIMESTAMPS.to_vec(), [&mss[..], &[1; 20]].concat()),
            ] {
                let key = [minted + 1; 8];
                backend.push(key);
                let (action, frame) = backend.run("weir_mint", &syn(is_v6, &[&before[..], &CAPABLE, &after].concat()));
                minted += 1;
                assert_eq!((action, backend.count(Mint::Minted)), (REDIRECT, minted.into()), "{before:?} {after:?}");
                assert!(checksum_is_right(&frame), "{before:?} {after:?}");
                let packet = SlicedPacket::from_ethernet(&frame).expect("a packet");
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("TCP") };
                assert_eq!((tcp.source_port(), tcp.destination_port()), (PORT, 40_000));
                assert!(tcp.syn() && tcp.ack() && tcp.acknowledgment_number() == SEQUENCE + 1);
                assert!(tcp.options_iterator().any(|one| one == Ok(TcpOptionElement::MaximumSegmentSize(1400))));
                assert_eq!(tcp.options()[20..], [&[30, 12, 0x01, 0x01][..], &key].concat());
                let out = &backend.programs.mint().expect("it mints").out;
                assert!(out.read(key).expect("the table").is_some(), "it is noted as out");
                // Leaving, it keeps its key.
                assert_eq!(backend.run("weir_plain", &frame), (UNSPEC, frame.clone()));
            }
        }
        assert_eq!(backend.count(Mint::Plain), 0);
    });
}

#[test]
fn a_syn_that_came_damaged_is_answered_damaged() {
    on_a_backend(|mut backend| {
        let_routes_be_asked();
        backend.push([1; 8]);
        let mut damaged = syn(false, &[&TIMESTAMPS[..], &CAPABLE].concat());
        damaged[40] ^= 1;
        let (action, frame) = backend.run("weir_mint", &damaged);
        assert!(action == REDIRECT && !checksum_is_right(&frame));
    });
}

#[test]
fn what_is_not_answered_goes_on_untouched() {
    on_a_backend(|mut backend| {
        let ordinary = [&TIMESTAMPS[..], &CAPABLE].concat();
        let mut outcomes = Vec::new();
        let mut goes_on = |backend: &mut Backend, frame: Vec<u8>, outcome: Option<Mint>| {
            outcomes.extend(outcome);
            assert_eq!(backend.run("weir_mint", &frame), (UNSPEC, frame.clone()), "{outcome:?}");
            for outcome in Mint::ALL {
                let count = outcomes.iter().filter(|&&other| other == outcome).count() as u64;
                assert_eq!(backend.count(outcome), count, "{outcome:?}");
            }
        };
        backend.push([1; 8]);
        // The kernel tells no routes yet.
        goes_on(&mut backend, syn(false, &ordinary), Some(Mint::NoRoute));
        goes_on(&mut backend, syn(true, &ordinary), Some(Mint::NoRoute));
        let_routes_be_asked();
        goes_on(&mut backend, syn(false, &[&TIMESTAMPS[..], &JOIN].concat()), None);
        goes_on(&mut backend, syn(true, &TIMESTAMPS), None);
        goes_on(&mut backend, syn(false, &CAPABLE), Some(Mint::NotCarried));
        goes_on(&mut backend, packet(false, false, &ordinary, &[7; 9]), Some(Mint::NotCarried));
        let mut fragment = syn(false, &ordinary);
        fragment[20] = 0x20;
        goes_on(&mut backend, fragment, None);
        let mut elsewhere = syn(false, &ordinary);
        elsewhere[37] ^= 1;
        goes_on(&mut backend, elsewhere, None);
        let mut ack = syn(true, &ordinary);
        ack[14 + 40 + 13] = 0x10;
        goes_on(&mut backend, ack, None);
        let whole = syn(false, &ordinary);
        // A test run takes no frame whose IP header is not whole.
        for len in 34..whole.len() {
            let cut = whole[..len].to_vec();
            assert_eq!(backend.run("weir_mint", &cut), (UNSPEC, cut.clone()), "{len} bytes");
        }
        let before = backend.count(Mint::NotCarried);

        let service = Service::new(Address::v4(VIP4), PORT);
        backend.programs.mint().expect("it mints").listeners.write(service, listener(1)).expect("room");
        let (action, _) = backend.run("weir_mint", &whole);
        assert_eq!((action, backend.count(Mint::Paused), backend.count(Mint::NotCarried)), (UNSPEC, 1, before));
        backend.programs.mint().expect("it mints").listeners.write(service, listener(u64::MAX)).expect("room");
        backend.programs.mint().expect("it mints").keys.pop().expect("the queue").expect("the key is still there");
        let (action, _) = backend.run("weir_mint", &whole);
        assert_eq!((action, backend.count(Mint::NoKey)), (UNSPEC, 1));
    });
}

#[test]
fn a_key_that_was_not_given_out_becomes_nops() {
    on_a_backend(|mut backend| {
        let (mut plain, key) = (0, [9; 8]);
        for is_v6 in [false, true] {
            for before in 0..4 {
                let option = [&[30, 12, 0x01, 0x01][..], &key].concat();
                let options = [&vec![1; before][..], &option, &TIMESTAMPS].concat();
                let whole = packet(is_v6, true, &options, &[]);
                let (action, frame) = backend.run("weir_plain", &whole);
                plain += 1;
                assert_eq!((action, backend.count(Mint::Plain)), (UNSPEC, plain));
                assert!(checksum_is_right(&frame) && frame.len() == whole.len(), "behind {before} NOPs");
                let packet = SlicedPacket::from_ethernet(&frame).expect("a packet");
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("TCP") };
                assert_eq!(tcp.options()[..before + 12], vec![1; before + 12]);
                assert_eq!(tcp.options()[before + 12..][..10], TIMESTAMPS);
            }
        }
        let answer_to_a_join = packet(false, true, &[&[30, 16, 0x11, 2][..], &[7; 12]].concat(), &[]);
        for untouched in [answer_to_a_join, packet(true, true, &TIMESTAMPS, &[]), syn(false, &CAPABLE)] {
            assert_eq!(backend.run("weir_plain", &untouched), (UNSPEC, untouched.clone()));
        }
        assert_eq!(backend.count(Mint::Plain), plain);
    });
}
