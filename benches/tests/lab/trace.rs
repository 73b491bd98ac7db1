//! `weir trace` under traffic: the programs are swapped there and back, no packet is missed and no connection broken, and
//! what is told is what was counted. Judged by `ip`, `bpftool`, the interface's own counters and the sockets of the lab.
//! Needs root and the `weir` command.

use std::{
    collections::BTreeMap,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use weir_lab::{
    Lab,
    addresses::{Path, VIP},
    oracle::open_joined,
    ping::ping,
    process::Process,
    topology::INTERFACE,
    traffic::Connection,
    wait,
    weir::{Join, Weir, WeirConfig},
};

const LIMIT: Duration = Duration::from_mins(2);
const TRACE: [&str; 5] = ["trace", "--output", "json", "--sample", "1/1"];

fn json(lab: &Lab, program: &str, args: &[&str]) -> Value {
    let printed = lab.balancer.namespace.output(program, args).expect("it runs");
    serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{program} {args:?}: {error}"))
}

/// The XDP program on the balancer's interface: the kernel's digest of its instructions.
fn tag(lab: &Lab) -> String {
    let link = json(lab, "ip", &["-json", "-details", "link", "show", "dev", INTERFACE]);
    let id = link[0]["xdp"]["prog"]["id"].as_u64().expect("a program").to_string();
    let program = json(lab, "bpftool", &["--json", "prog", "show", "id", &id]);
    program["tag"].as_str().expect("a tag").to_owned()
}

fn wait_for_tag(lab: &Lab, tag_of_plain: &str) {
    wait::until("the plain program is back", LIMIT, || Ok((tag(lab) == tag_of_plain).then_some(())))
        .expect("it is put back");
}

/// The packets of a VIP, by reason.
fn counted(weir: &Weir) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for sample in weir.metrics().expect("a metrics page") {
        if sample.name == "weir_packets_total" {
            let reason = sample.label("reason").expect("a reason").to_owned();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
            let packets = sample.value as u64;
            *counted.entry(reason).or_default() += packets;
        }
    }
    counted
}

/// The packets that the balancer's interface has given to an XDP program, as the driver counts.
fn arrived(lab: &Lab) -> u64 {
    let counters = lab.balancer.namespace.output("ethtool", &["-S", INTERFACE]).expect("it runs");
    let packets = counters.lines().filter_map(|line| line.split_once("_xdp_packets: "));
    packets.map(|(_, packets)| packets.trim().parse::<u64>().expect("a count")).sum()
}

/// Begins a trace; returns when it tells.
fn begin(weir: &Weir, more: &[&str], log: &str) -> Process {
    let mut trace = weir.start_command(&[&TRACE, more].concat(), log).expect("it starts");
    trace.wait_for_word("begin", LIMIT).expect("it begins");
    trace
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

/// Opens connections of all kinds, and waits until their joins have ended.
fn open(lab: &Lab, count: usize) -> Vec<Connection> {
    let (connections, tally) = open_joined(lab, count, LIMIT).expect("connections");
    let joins = connections.iter().map(|connection| connection.mix.joins()).sum();
    assert_eq!((tally.established(), tally.lost()), (joins, 0));
    connections
}

#[test]
fn a_trace_under_traffic_misses_no_packet_and_leaves_no_trace() {
    let lab = Lab::builder().build().expect("a lab");
    let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let plain = tag(&lab);
    let mut held = open(&lab, 8);

    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        for connection in &mut held {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    connection.exchange().expect("no connection breaks");
                }
            });
        }
        for round in 0..4 {
            let log = format!("trace-{round}.log");
            let mut trace = begin(&weir, &["--count", "300", "--seconds", "600"], &log);
            wait::until("it ends", LIMIT, || Ok(trace.log().contains("\"kind\":\"end\"").then_some(())))
                .expect("it has told enough");
            wait_for_tag(&lab, &plain);
            let told = lines(&trace.log());
            assert_eq!(told.iter().filter(|line| line["kind"] == "packet").count(), 300);
            assert!(told.iter().any(|line| line["reason"] == "ring" && line["backend"].is_string()), "{told:?}");
            assert_eq!(told.last().expect("an end")["told"], 300);
            trace.stop();
        }
        ends.store(true, Ordering::Relaxed);
    });

    // Each packet that came was counted by one of the two programs.
    wait::until("all packets are counted", LIMIT, || {
        let came = arrived(&lab);
        let counted: u64 = counted(&weir).values().sum();
        Ok((came == counted && came == arrived(&lab)).then_some(()))
    })
    .expect("no packet is missed");
    for connection in &mut held {
        connection.exchange().expect("it works");
    }
}

#[test]
fn what_is_told_is_what_was_counted_and_names_no_client() {
    let lab = Lab::builder().build().expect("a lab");
    let weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let before = counted(&weir);
    let mut trace = begin(&weir, &["--seconds", "8"], "trace.log");
    let refused = weir.ask(&["trace", "--seconds", "1"]).expect_err("one at a time").to_string();
    assert!(refused.contains("one trace at a time"), "{refused}");
    let held = open(&lab, 6);
    let after = counted(&weir);
    wait::until("it ends", LIMIT, || Ok(trace.log().contains("\"kind\":\"end\"").then_some(()))).expect("time is up");

    let said = trace.log();
    let told = lines(&said);
    let end = told.last().expect("an end");
    assert_eq!((&end["over_limit"], &end["lost"]), (&0.into(), &0.into()), "{end}");
    // These come with new connections alone.
    for reason in ["ring_new", "learned", "join_token", "joined"] {
        let lines = told.iter().filter(|line| line["reason"] == reason);
        let backends: Vec<_> = lines.clone().map(|line| line["backend"].as_str().expect("a backend")).collect();
        let packets = after[reason] - before.get(reason).copied().unwrap_or_default();
        assert!(packets > 0, "{reason}: {after:?}");
        assert_eq!(backends.len() as u64, packets, "{reason}");
        assert!(backends.iter().all(|name| lab.backends.iter().any(|backend| backend.name == *name)), "{backends:?}");
        assert!(lines.clone().all(|line| line["action"] == "forward" && line["protocol"] == "tcp"));
        assert!(lines.clone().all(|line| line["vip"].is_string() && line["pool"] == "web"));
    }
    for address in Path::ALL.into_iter().flat_map(|path| path.client().both()) {
        assert!(!said.contains(&address.to_string()), "{address}");
    }
    drop(held);
    trace.stop();
}

#[test]
fn the_plain_program_is_back_whoever_goes() {
    let lab = Lab::builder().build().expect("a lab");
    let mut weir = Weir::start(&lab, &WeirConfig::for_lab(&lab, Join::Learn)).expect("weir runs");
    let plain = tag(&lab);
    let mut held = open(&lab, 6);
    let exchange = |held: &mut Vec<Connection>| {
        for connection in held {
            connection.exchange().expect("it works");
        }
        for vip in VIP.both() {
            ping(&lab.client, vip).expect("the programs that others go on to are there");
        }
    };

    let mut trace = begin(&weir, &["--seconds", "600"], "client.log");
    assert_ne!(tag(&lab), plain, "another program");
    exchange(&mut held);
    trace.end_by(Signal::SIGKILL).expect("it ends");
    wait_for_tag(&lab, &plain);

    let _trace = begin(&weir, &["--seconds", "600"], "service.log");
    weir.end_by(Signal::SIGTERM).expect("it ends");
    assert_eq!(tag(&lab), plain, "it does not leave the other there");
    exchange(&mut held);

    weir.start_again().expect("another runs");
    let _trace = begin(&weir, &["--seconds", "600"], "killed.log");
    weir.end_by(Signal::SIGKILL).expect("it ends");
    assert_ne!(tag(&lab), plain, "nobody has put it back");
    exchange(&mut held);
    weir.start_again().expect("another runs");
    assert_eq!(tag(&lab), plain, "a start always brings the plain one");
    exchange(&mut held);

    let version = fs::read_dir(lab.pins()).expect("a directory").flatten().next().expect("a version").path();
    let names = fs::read_dir(version).expect("a directory").flatten().map(|file| file.file_name());
    let programs = names.filter(|name| name.to_string_lossy().starts_with("weir_programs-")).count();
    assert_eq!(programs, 1, "one table of programs");
}
