//! Weir as a user of its own, with three capabilities and no more, as the systemd units run it.

use crate::stage::{Running, Stage, sh, word};
use nix::{
    sys::signal::Signal,
    unistd::{Gid, Uid, chown},
};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// A user that no file of this machine belongs to.
const USER: u32 = 54321;
const CAPABILITIES: [&str; 3] = ["bpf", "net_admin", "perfmon"];

fn give(path: &Path) {
    chown(path, Some(Uid::from_raw(USER)), Some(Gid::from_raw(USER))).expect("given away");
}

/// The stage's folder belongs to the user, with a copy of the program where he may go.
fn program(stage: &Stage) -> PathBuf {
    let program = stage.copy_of_weir();
    give(stage.folder.path());
    program
}

/// `setpriv` and what makes it the user with these capabilities.
fn as_user(capabilities: &[&str], program: &Path, arguments: &[String]) -> Vec<String> {
    let only: String =
        ["-all".to_owned()].into_iter().chain(capabilities.iter().map(|name| format!(",+{name}"))).collect();
    let user = USER.to_string();
    let mut line: Vec<String> =
        ["--reuid", &user, "--regid", &user, "--clear-groups", "--no-new-privs"].map(str::to_owned).to_vec();
    line.extend(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={only}")));
    // After the change of user, or the kernel forgets it.
    line.extend(["--pdeathsig", "KILL", "--"].map(str::to_owned));
    line.push(word(program));
    line.extend(arguments.iter().cloned());
    line
}

/// Starts `weir run` as the unit does: first what that has root do.
fn start(stage: &Stage, line: &[String]) -> Running {
    let unit = include_str!("../../../deploy/weir.service");
    let as_root = unit.lines().filter_map(|line| line.strip_prefix("ExecStartPre=+"));
    let user = USER.to_string();
    let before: String = as_root.map(|command| command.replace("=weir ", &format!("={user} ")) + " && ").collect();
    assert!(before.contains(&user), "{before}");
    stage.start_after(&before, "log", "setpriv", line, &[])
}

#[test]
fn a_balancer_needs_no_root() {
    let stage = Stage::new();
    let program = program(&stage);
    let key = stage.folder.path().join("key");
    fs::write(&key, "000102030405060708090a0b0c0d0e0f\n").expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).expect("for its owner alone");
    give(&key);
    let config = fs::read_to_string(stage.config()).expect("the configuration");
    let with_key = config.replace("[balancer]", &format!("[balancer]\ncluster_key_file = \"{}\"", key.display()));
    fs::write(stage.config(), with_key).expect("a configuration");

    let mut weir = start(&stage, &as_user(&CAPABILITIES, &program, &stage.run_arguments()));
    weir.wait_for(" ready");
    let status = fs::read_to_string(format!("/proc/{}/status", weir.pid())).expect("it runs");
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("such a line").trim().to_owned();
    assert_eq!(line("Uid:"), [USER.to_string().as_str(); 4].join("\t"));
    let three = format!("{:016x}", 1u64 << 39 | 1 << 38 | 1 << 12);
    assert_eq!([line("CapEff:"), line("CapPrm:"), line("CapBnd:")], [three.as_str(); 3]);
    assert!(sh("ip -json link show dev weir0").contains("\"xdp\""), "the program is attached");

    weir.signal(Signal::SIGHUP);
    weir.wait_for("reloaded: ");
    for command in ["status", "doctor"] {
        let further = match command {
            "status" => ["--socket".to_owned(), word(&stage.socket())],
            _ => ["--config".to_owned(), word(&stage.config())],
        };
        let arguments = [&[command.to_owned()], &further[..]].concat();
        let (code, said) = stage.start_beside("setpriv", &as_user(&CAPABILITIES, &program, &arguments)).ended();
        assert_eq!(code, Some(0), "{command}: {said}");
    }
    let (code, log) = weir.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    assert!(!stage.socket().exists());
}

#[test]
fn a_backend_needs_no_root() {
    let stage = Stage::new();
    let program = program(&stage);
    let arguments = ["decap", "--interface", "weir0", "--from", "10.77.0.2"].map(str::to_owned);
    let mut weir = stage.start("setpriv", &as_user(&CAPABILITIES, &program, &arguments), &[]);
    weir.wait_for(" ready");
    assert!(sh("ip -json link show dev weir0").contains("\"xdp\""), "the program is attached");
    assert_eq!(weir.end().0, Some(0));
}

#[test]
fn a_missing_capability_is_named() {
    let stage = Stage::new();
    let program = program(&stage);
    for lacking in CAPABILITIES {
        let others: Vec<&str> = CAPABILITIES.into_iter().filter(|&name| name != lacking).collect();
        let weir = start(&stage, &as_user(&others, &program, &stage.run_arguments()));
        let (code, log) = weir.ended();
        assert_eq!(code, Some(1), "{log}");
        let name = format!("CAP_{}", lacking.to_uppercase());
        assert!(log.contains(&format!("it lacks {name}; run it as root")), "{log}");
        assert!(log.contains(&format!("AmbientCapabilities={name}\n")), "{log}");
        assert_eq!(log.lines().count(), 1, "{log}");
    }
}

#[test]
fn a_key_that_the_user_may_not_read_says_so() {
    let stage = Stage::new();
    let program = program(&stage);
    let key = stage.folder.path().join("key");
    fs::write(&key, "000102030405060708090a0b0c0d0e0f\n").expect("a key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o400)).expect("for root alone");
    let config = fs::read_to_string(stage.config()).expect("the configuration");
    let with_key = config.replace("[balancer]", &format!("[balancer]\ncluster_key_file = \"{}\"", key.display()));
    fs::write(stage.config(), with_key).expect("a configuration");
    let (code, log) = stage.start("setpriv", &as_user(&CAPABILITIES, &program, &stage.run_arguments()), &[]).ended();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains(&format!("give it to the user that runs weir: `chown {USER} {}`", key.display())), "{log}");
}

#[test]
fn a_file_system_that_only_root_may_enter_says_what_to_do() {
    let stage = Stage::new();
    let program = program(&stage);
    let (code, log) = stage.start("setpriv", &as_user(&CAPABILITIES, &program, &stage.run_arguments()), &[]).ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("this user may not use /sys/fs/bpf/weir: as root, `chmod a+x /sys/fs/bpf; install "), "{log}");
}
