//! A scrape costs the same with ten flows and a million: the kernel is asked as often, as strace counts.

use crate::stage::{CONFIG, Stage};
use aya::maps::{HashMap, Map, MapData};
use lb_user::{config::Config, metrics::Source as _, service::Service};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::{Pid, gettid},
};
use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    ops::Range,
    process::{Command, Stdio},
};

const PINS: &str = "/sys/fs/bpf/weir";

/// A BPF file system that only this thread sees, and that ends with it.
pub(crate) fn own_bpffs() {
    unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("a namespace of its own");
    mount(Some("bpf"), "/sys/fs/bpf", Some("bpf"), MsFlags::empty(), none).expect("a BPF file system");
}

/// The table of tokens by its pin, as plain bytes.
pub(crate) fn tokens() -> HashMap<MapData, [u8; 8], [u8; 32]> {
    let version = fs::read_dir(PINS).expect("pins").flatten().next().expect("a version").path();
    let map = MapData::from_pin(version.join("weir_tokens")).expect("the tokens");
    HashMap::try_from(Map::HashMap(map)).expect("a hash map")
}

/// Puts tokens into their table, of a pool that no ring has been made for yet.
pub(crate) fn learn_tokens(numbers: Range<u32>) {
    let mut tokens = tokens();
    for token in numbers {
        let mut key = [0; 8];
        key[4..].copy_from_slice(&token.to_be_bytes());
        tokens.insert(key, [1; 32], 0).expect("there is room");
    }
}

/// How many `bpf` calls this thread makes while it works.
fn bpf_calls(work: impl FnOnce()) -> usize {
    let mut strace = Command::new("strace")
        .args(["-e", "trace=bpf", "-p", &gettid().to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("strace is installed: `cargo xtask setup` does it");
    let mut said = BufReader::new(strace.stderr.take().expect("piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("strace says that it has attached");
    assert!(line.contains("attached"), "{line}");
    // Its pipe must not fill while this thread is held by it.
    let reader = std::thread::spawn(move || {
        let mut rest = String::new();
        said.read_to_string(&mut rest).map(|_| rest).expect("text")
    });
    work();
    kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGINT).expect("it runs");
    strace.wait().expect("it ends");
    let trace = reader.join().expect("read");
    trace.lines().filter(|line| line.starts_with("bpf(")).count()
}

#[test]
fn a_scrape_asks_as_often_with_ten_tokens_as_with_a_million() {
    let stage = Stage::new();
    own_bpffs();
    let config = Config::parse(&CONFIG.replace("tokens = 4096", "tokens = 1048576"), "weir.toml").expect("it is good");
    let service = Service::load(config).expect("it loads");
    let fill = |from: u32, to: u32| learn_tokens(from..to);
    let scrape = || {
        let snapshot = service.snapshot();
        assert!(snapshot.packets.iter().any(|count| count.reason == "ring" && count.vip == "site"));
    };
    fill(0, 10);
    let few = bpf_calls(scrape);
    fill(10, 1_000_000);
    let many = bpf_calls(scrape);
    assert!(few > 50, "a call for each reason at least: {few}");
    assert_eq!(few, many);
    drop(stage);
}
