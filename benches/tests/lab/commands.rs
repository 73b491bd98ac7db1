//! The `weir-lab` command as a person uses it, and as a signal or `kill -9` ends it. Needs root.

#[path = "../../../xtask/src/documents.rs"]
mod documents;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// `weir-lab up` without a balancer, from the moment that it says it is up.
struct Up {
    process: Child,
    lab: String,
}

impl Up {
    fn start() -> Self {
        let mut process = command(&["up", "--backends", "2", "--steering", "bypass"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("weir-lab starts");
        let stdout = process.stdout.as_mut().expect("a pipe");
        let mut first_line = String::new();
        BufReader::new(stdout).read_line(&mut first_line).expect("weir-lab says something");
        let lab = first_line
            .strip_prefix("The lab ")
            .and_then(|rest| rest.split(' ').next())
            .unwrap_or_else(|| panic!("no lab came up: {first_line:?}"))
            .to_owned();
        assert!(namespaces(&lab).len() >= 5, "client, router, weir, b1, b2");
        Self { process, lab }
    }

    fn end_by(&mut self, signal: Signal) -> std::process::ExitStatus {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        kill(pid, signal).expect("it runs");
        self.process.wait().expect("it ends")
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-lab"));
    command.args(args);
    command
}

fn down() -> Output {
    let output = command(&["down"]).output().expect("weir-lab starts");
    assert!(output.status.success(), "{output:?}");
    output
}

/// The names in /run/netns and /run that belong to `lab`.
fn namespaces(lab: &str) -> Vec<String> {
    let of_lab = |place| {
        let listing = Path::new(place).read_dir().expect("a directory");
        let names = listing.flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok())
    };
    of_lab("/run/netns").chain(of_lab("/run")).filter(|name| name.starts_with(lab)).collect()
}

/// A process in the client's namespace that ends only when it is told to.
fn bystander(lab: &str) -> Child {
    let namespace = format!("--net=/run/netns/{lab}-client");
    let mut child = Command::new("nsenter")
        .args([&namespace, "sh", "-c", "echo inside; cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("nsenter starts");
    let mut word = [0; 6];
    let stdout = child.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut word).expect("it is inside");
    child
}

#[test]
fn what_a_killed_lab_leaves_is_cleared_by_down() {
    let mut up = Up::start();
    let mut bystander = bystander(&up.lab);
    up.end_by(Signal::SIGKILL);

    down();
    assert_eq!(namespaces(&up.lab), Vec::<String>::new());
    let ended = bystander.wait().expect("its process is ended");
    assert!(!ended.success(), "by a signal, not by its own end");
}

#[test]
fn down_leaves_a_living_lab_alone() {
    let mut up = Up::start();
    let said = String::from_utf8(down().stdout).expect("text");
    let in_use = format!("{}: in use by process {}", up.lab, up.process.id());
    assert!(said.contains(&in_use), "{said}");
    assert!(namespaces(&up.lab).len() >= 5);
    up.end_by(Signal::SIGTERM);
}

#[test]
fn sigterm_and_ctrl_c_take_the_lab_down() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut up = Up::start();
        let status = up.end_by(signal);
        assert_eq!(status.code(), Some(130), "{signal}");
        assert_eq!(namespaces(&up.lab), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn who_is_impatient_leaves_no_namespace_behind() {
    let mut up = Up::start();
    let pid = Pid::from_raw(up.process.id().cast_signed());
    kill(pid, Signal::SIGINT).expect("it runs");
    // Another than the first, for two of one kind may be one.
    let status = up.end_by(Signal::SIGTERM);
    assert_eq!(status.code(), Some(130));
    assert_eq!(namespaces(&up.lab), Vec::<String>::new());
}

#[test]
fn a_cause_is_said_once() {
    let output = command(&["verifier", "--budget", "/nowhere/budget.toml"]).output().expect("weir-lab starts");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said.matches("No such file or directory").count(), 1, "{said}");
}

#[test]
fn an_impossible_lab_is_refused_with_the_limits() {
    let output = command(&["up", "--backends", "65"]).output().expect("weir-lab starts");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("1 to 64 backends, not 65"), "{said}");
}

#[test]
fn every_scenario_and_option_that_the_documents_name_is_one() {
    let mut seen = 0;
    for arguments in documents::arguments_of("cargo xtask") {
        let ours: &[String] = match arguments.first().map(String::as_str) {
            Some("lab") => &arguments[1..],
            Some("bench" | "churn" | "demo" | "drill" | "load" | "verifier") => &arguments,
            _ => continue,
        };
        let line = format!("a document names `cargo xtask {}`", arguments.join(" "));
        let words = ours.iter().map(String::as_str).take_while(|word| !word.starts_with("--"));
        let asked: Vec<&str> = words.chain(["--help"]).collect();
        let Output { status, stdout, .. } = command(&asked).output().expect("weir-lab starts");
        assert!(status.success(), "{line}");
        let help = String::from_utf8(stdout).expect("text");
        for option in ours.iter().filter(|argument| argument.starts_with("--")) {
            assert!(help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")), "{line}");
        }
        seen += 1;
    }
    assert!(seen > 5, "only {seen}");
}
