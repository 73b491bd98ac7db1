//! What a command prints may be read no further, or find no room: neither is a crash.

use std::{
    fs::File,
    os::fd::OwnedFd,
    process::{Command, Output, Stdio},
};

/// Commands that print something on any machine, and change nothing.
const COMMANDS: [&[&str]; 4] = [
    &["backend", "setup", "app1", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/weir.toml")],
    &["detach", "--pins", "/no/such/directory"],
    &["agent", "--check", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/agent.toml")],
    &["completions", "bash"],
];

fn printed(command: &[&str], stdout: impl Into<Stdio>) -> Output {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(command).stdout(stdout).stderr(Stdio::piped());
    weir.spawn().expect("weir starts").wait_with_output().expect("it ends")
}

fn full() -> File {
    File::options().write(true).open("/dev/full").expect("it is there")
}

#[test]
fn a_reader_that_has_gone_has_seen_enough() {
    for command in COMMANDS {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = printed(command, OwnedFd::from(writer));
        let ended = (output.status.code(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(ended, (Some(0), "".into()), "{command:?}");
    }
}

#[test]
fn a_full_disk_is_an_error_in_words() {
    for command in COMMANDS {
        let output = printed(command, full());
        let said = "weir: cannot write to standard output: No space left on device (os error 28)\n";
        let ended = (output.status.code(), String::from_utf8_lossy(&output.stderr));
        assert_eq!(ended, (Some(1), said.into()), "{command:?}");
    }
}

#[test]
fn where_nobody_can_hear_what_is_wrong_the_exit_status_tells() {
    for (command, code) in [
        (&["status", "--socket", "/no/such/socket"][..], 1),
        (&["agent", "--check", "--config", "/no/such/file"], 2),
        (&["backend", "setup", "app1", "--config", "/no/such/file"], 2),
        (&["doctor", "--config", "/no/such/file"], 2),
        (&["explain", "--config", "/no/such/file", "--packet", "00"], 2),
    ] {
        let status = Command::new(env!("CARGO_BIN_EXE_weir")).args(command).stderr(full()).status();
        assert_eq!(status.expect("weir starts").code(), Some(code), "{command:?}");
    }
}
