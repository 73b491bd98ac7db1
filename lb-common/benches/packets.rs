//! What the parts of a decision take on the host: reading headers, hashing a flow, walking options, deriving a token.
//!
//! The kernel's figures are `cargo xtask bench`'s; these show which part has become slower.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use etherparse::PacketBuilder;
use lb_common::{
    flow::{Ports, WireAddress as _},
    hash::SipKey,
    mptcp::{Options, Version, token},
    wire::{
        ethernet,
        ip::{self, Header},
        ipv4::Ipv4,
        ipv6::Ipv6,
        tcp::Tcp,
    },
};
use std::hint::black_box;

const PORTS: Ports = Ports { source: 40_000, destination: 443 };
/// MSS, SACK, timestamps, window scale, and an `MP_JOIN` at the end, as Linux sends them.
const JOINING: [u8; 32] =
    [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7, 30, 12, 16, 1, 1, 2, 3, 4, 5, 6, 7, 8];

fn v4_frame(options: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([198, 51, 100, 1], [192, 0, 2, 10], 57);
    write(builder.tcp(PORTS.source, PORTS.destination, 1, 65_000), options)
}

fn v6_frame(options: &[u8]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6([1; 16], [2; 16], 57);
    write(builder.tcp(PORTS.source, PORTS.destination, 1, 65_000), options)
}

fn write(builder: etherparse::PacketBuilderStep<etherparse::TcpHeader>, options: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = builder.options_raw(options).expect("at most 40 bytes of options");
    builder.write(&mut frame, &[]).expect("a vector takes all");
    frame
}

fn parse<H: Header>(frame: &[u8]) -> Option<Tcp> {
    let header = H::load(&frame, ethernet::parse(&frame).ok()?.payload).ok()?;
    Tcp::parse(&frame, &header.check(&frame).ok()?).ok()
}

fn parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    let (v4, v6) = (v4_frame(&[]), v6_frame(&[]));
    assert!(parse::<Ipv4>(&v4).is_some() && parse::<Ipv6>(&v6).is_some(), "the frames are good");
    group.bench_function("ipv4 and tcp", |b| b.iter(|| parse::<Ipv4>(black_box(&v4))));
    group.bench_function("ipv6 and tcp", |b| b.iter(|| parse::<Ipv6>(black_box(&v6))));

    let frame = v4_frame(&JOINING);
    let tcp = parse::<Ipv4>(&frame).expect("a good frame");
    let scan = || Options::scan(&black_box(frame.as_slice()), tcp.options, tcp.options_len);
    assert!(scan().join.is_some(), "the option is found");
    group.bench_function("options of a joining SYN", |b| b.iter(scan));
    group.finish();
}

fn hashing(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow hash");
    let key = SipKey::from_bytes([7; 16]);
    let (v4, v6) = (v4_frame(&[]), v6_frame(&[]));
    let v4 = Ipv4::load(&v4.as_slice(), ethernet::HEADER_LEN).expect("a header");
    let v6 = Ipv6::load(&v6.as_slice(), ethernet::HEADER_LEN).expect("a header");
    group.bench_function("ipv4", |b| {
        b.iter(|| black_box(v4.source()).flow_hash(&key, v4.destination(), PORTS, ip::TCP));
    });
    group.bench_function("ipv6", |b| {
        b.iter(|| black_box(v6.source()).flow_hash(&key, v6.destination(), PORTS, ip::TCP));
    });
    group.finish();
}

fn deriving(c: &mut Criterion) {
    let mut group = c.benchmark_group("token");
    for (name, version) in [("v0, SHA-1", Version::V0), ("v1, SHA-256", Version::V1)] {
        group.bench_function(name, |b| b.iter(|| token::derive(version, black_box([7; 8]))));
    }
    // What a search for a key whose token has 12 given bits comes down to: 4,096 tries on average.
    group.bench_function("search for 12 bits", |b| {
        let mut next = 0_u64;
        b.iter_batched(
            || {
                next = next.wrapping_add(0x9e37_79b9_7f4a_7c15);
                next
            },
            |start| {
                (start..=u64::MAX).find(|key| token::derive(Version::V1, key.to_be_bytes()).number() >> 20 == 0x5a5)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(std::time::Duration::from_millis(300)).measurement_time(std::time::Duration::from_secs(1)).sample_size(20);
    targets = parsing, hashing, deriving
}
criterion_main!(benches);
