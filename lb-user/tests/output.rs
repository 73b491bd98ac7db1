//! What a command prints may be read no further, or find no room: neither is a crash.

use std::{
    fs::File,
    os::fd::OwnedFd,
    process::{Command, Output, Stdio},
};

fn setup(stdout: impl Into<Stdio>) -> Output {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/weir.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command.args(["backend", "setup", "app1", "--config", config]).stdout(stdout).stderr(Stdio::piped());
    command.spawn().expect("weir starts").wait_with_output().expect("it ends")
}

#[test]
fn a_reader_that_has_gone_has_seen_enough() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = setup(OwnedFd::from(writer));
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_full_disk_is_an_error_in_words() {
    let output = setup(File::options().write(true).open("/dev/full").expect("it is there"));
    let said = "weir: cannot write to standard output: No space left on device (os error 28)\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(1), said));
}
