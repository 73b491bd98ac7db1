//! `weir-lab load` on a small scale: real servers and kernels, figures that add up, a page that needs nothing else, and a
//! body that is not what was meant; and its peers, what becomes of joins through each. Needs root, nginx, what
//! `cargo xtask setup` installs beside it, and the `weir` command (`cargo test --workspace` builds it).

use std::{
    env,
    fs::{self, OpenOptions, Permissions},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use weir_lab::wait;

const LIMIT: Duration = Duration::from_mins(2);
const EXIT_INTERRUPTED: i32 = 130;

fn start(options: &[&str], page: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["load", "--json", "--backends", "3", "--connections", "24", "--report", &page.to_string_lossy()])
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weir-lab starts")
}

fn page_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn report_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("one JSON object: {output:?}"))
}

fn figure(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} in {report}"))
}

/// What is below `/run` and `/run/netns` of the labs of a process.
fn left_by(process: u32) -> Vec<PathBuf> {
    let of_process = |place| {
        let entries = fs::read_dir(place).expect("a directory").flatten().map(|entry| entry.path());
        let name = format!("weirlab-{process}-");
        entries.filter(move |path| path.file_name().is_some_and(|entry| entry.to_string_lossy().starts_with(&name)))
    };
    of_process("/run").chain(of_process("/run/netns")).collect()
}

/// Waits until the lab of a process serves this file.
fn served_file(process: u32, name: &str) -> PathBuf {
    wait::until("the file is served", LIMIT, || {
        let served = left_by(process).into_iter().map(|lab| lab.join("web").join(name));
        Ok(served.into_iter().find(|file| file.exists()))
    })
    .expect("the lab comes up")
}

#[test]
fn figures_add_up_and_the_page_needs_nothing_else() {
    let page = page_file("load-figures.html");
    let options = ["--scenario", "mixed", "--subflows", "3", "--duration", "4", "--churn", "1"];
    let output = start(&options, &page).wait_with_output().expect("it ends");
    let report = report_of(&output);
    for name in ["joins_misrouted", "connections_plain", "corrupted", "datagrams_moved"] {
        assert_eq!(figure(&report, name), 0, "{name} in {output:?}");
    }
    let happened = ["connections_mptcp", "connections_tcp", "flows_udp", "transfers", "bytes", "datagrams"];
    for name in happened {
        assert!(figure(&report, name) > 0, "{name} in {report}");
    }
    let [attempted, established, refused, unfinished] =
        ["joins_attempted", "joins_established", "joins_refused", "joins_unfinished"].map(|name| figure(&report, name));
    assert!(established > 0, "{report}");
    assert_eq!(attempted, established + refused + unfinished, "{report}");
    let [tcp, flows, failed] = [
        figure(&report, "connections_mptcp") + figure(&report, "connections_tcp"),
        figure(&report, "flows_udp"),
        figure(&report, "connections_failed"),
    ];
    // A busy machine may lose packets, and have connections that end before their joins do; then that is what it says.
    let suffices = established * 1000 >= attempted * 999 && failed * 1000 <= tcp + flows;
    assert_eq!(output.status.success(), suffices, "{output:?}");

    let run = &report["runs"][0];
    let backends = run["backends"].as_array().expect("a list");
    let sum = |name: &str| backends.iter().map(|backend| figure(backend, name)).sum::<u64>();
    assert_eq!(sum("joins_established"), established);
    assert!((tcp - failed..=tcp).contains(&sum("connections")), "{report}");
    assert!(!run["changes"].as_array().expect("a list").is_empty(), "{run}");
    is_self_contained(&page, 6);
}

/// By a parser that is not ours: well-formed, with its plots in it, and nothing that a browser would fetch or run.
fn is_self_contained(page: &Path, plots: usize) {
    let elements = crate::page::elements_of_self_contained(&fs::read_to_string(page).expect("the page is written"));
    let count = |name: &str| elements.iter().filter(|element| *element == name).count();
    assert_eq!(count("svg"), plots);
    assert!(count("polyline") > 10 && count("rect") > plots);
}

#[test]
fn joins_end_in_a_proxy_and_miss_behind_a_hash() {
    let page = page_file("load-peers.html");
    let asked = ["--rounds", "1", "--connections", "4", "--megabytes", "8", "--requests", "40", "--joins", "80"];
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["load", "peers", "--json", "--backends", "4", "--report", &page.to_string_lossy()])
        .args(asked)
        .output()
        .expect("weir-lab starts");
    let report = report_of(&output);
    assert!(output.status.success(), "{output:?}");
    let standings = report["standings"].as_array().expect("a list");
    let of = |name: &str| standings.iter().find(|standing| standing["name"] == name);
    let joins = |name: &str| {
        let standing = of(name).unwrap_or_else(|| panic!("{name} in {report}"));
        ["attempted", "at_backends", "at_middle", "misrouted"].map(|count| figure(&standing["joins"], count))
    };
    for standing in standings {
        assert_eq!(figure(standing, "corrupted"), 0, "{standing}");
        assert!(figure(standing, "connections") > 40, "{standing}");
    }
    // 80 connections have 100 joins: every fourth has one more.
    assert_eq!(joins("weir"), [100, 100, 0, 0]);
    assert_eq!(joins("haproxy"), [100, 0, 100, 0]);
    assert_eq!(joins("nginx-stream"), [100, 0, 100, 0]);
    assert!(of("stub").is_some_and(|stub| stub["joins"].is_null()), "{report}");
    if of("nftables").is_some() {
        let [attempted, at_backends, at_middle, misrouted] = joins("nftables");
        assert_eq!((attempted, at_middle), (100, 0), "{report}");
        assert!(misrouted > 50 && at_backends < 50, "three in four are expected to miss: {report}");
    } else {
        let left_out = &report["left_out"][0];
        assert!(left_out["peer"] == "nftables" && left_out["why"].as_str().is_some(), "{report}");
    }
    is_self_contained(&page, 4);
}

#[test]
fn a_kernel_without_address_translation_is_said_and_leaves_the_peer_out() {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("load-nft");
    fs::create_dir_all(&place).expect("a place for a program");
    let nft = place.join("nft");
    fs::write(&nft, "#!/bin/sh\necho 'Could not process rule: Operation not supported' >&2\nexit 1\n")
        .expect("written");
    fs::set_permissions(&nft, Permissions::from_mode(0o755)).expect("it may be run");
    let path = format!("{}:{}", place.display(), env::var("PATH").expect("there is one"));
    let asked = ["--rounds", "1", "--megabytes", "1", "--requests", "4", "--joins", "4", "--backends", "2"];
    let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
        .args(["load", "peers", "--json", "--peers", "nftables", "--report"])
        .arg(page_file("load-nft.html"))
        .args(asked)
        .env("PATH", path)
        .output()
        .expect("weir-lab starts");
    let (report, said) = (report_of(&output), String::from_utf8_lossy(&output.stderr));
    let left_out = &report["left_out"][0];
    assert_eq!(left_out["peer"], "nftables", "{output:?}");
    assert!(left_out["why"].as_str().is_some_and(|why| why.contains("Operation not supported")), "{left_out}");
    assert!(said.contains("nftables is left out"), "{said}");
    let names: Vec<_> = report["standings"].as_array().expect("a list").iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["weir"]);
}

#[test]
fn a_peer_that_is_not_installed_is_named_with_its_package() {
    for (peer, program, package) in [("haproxy", "haproxy", "haproxy"), ("nftables", "nft", "nftables")] {
        let output = Command::new(env!("CARGO_BIN_EXE_weir-lab"))
            .args(["load", "peers", "--peers", peer])
            .env("PATH", "/nowhere")
            .output()
            .expect("weir-lab starts");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("`{program}` is not installed (Debian's package `{package}`)")), "{said}");
    }
}

#[test]
fn a_corrupted_body_is_found() {
    let process = start(&["--scenario", "short", "--duration", "2", "--churn", "0"], &page_file("load-corrupted.html"));
    let file = served_file(process.id(), "small-2048");
    let served = OpenOptions::new().write(true).read(true).open(file).expect("the file can be opened");
    let mut byte = [0];
    served.read_exact_at(&mut byte, 1000).expect("it is long enough");
    served.write_all_at(&[byte[0] ^ 1], 1000).expect("it can be written");

    let output = process.wait_with_output().expect("it ends");
    let report = report_of(&output);
    assert!(!output.status.success(), "{output:?}");
    let [corrupted, transfers] = ["corrupted", "transfers"].map(|name| figure(&report, name));
    assert!(0 < corrupted && corrupted < transfers, "{report}");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let process = start(&["--scenario", "long", "--duration", "600"], &page_file("load-interrupted.html"));
    let id = process.id();
    // What the client has stored: it runs.
    served_file(id, "up/0");
    kill(Pid::from_raw(id.cast_signed()), Signal::SIGINT).expect("it runs");
    let output = process.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(EXIT_INTERRUPTED), "{output:?}");
    assert_eq!(left_by(id), Vec::<PathBuf>::new());
}
