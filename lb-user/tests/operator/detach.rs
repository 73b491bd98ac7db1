//! `weir detach` removes pins of Weir's and nothing else, wherever it is sent.

use crate::{
    scrape::own_bpffs,
    stage::{CONFIG, Stage, WEIR, sh, text},
};
use std::{fs, path::Path, process::Command};

/// What it says, and that it has failed.
fn refused(pins: &Path) -> String {
    let output = Command::new(WEIR).args(["detach", "--pins"]).arg(pins).output().expect("weir starts");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    text(&output.stderr).to_owned()
}

#[test]
fn what_is_no_directory_of_pins_is_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let files = ["v5/weir_tokens", "v5/link-native-eth0"].map(|name| folder.path().join(name));
    fs::create_dir(folder.path().join("v5")).expect("a directory");
    for file in &files {
        fs::write(file, "precious").expect("written");
    }
    let said = refused(folder.path());
    assert!(said.contains("is no directory of pins: it is not on a BPF file system"), "{said}");
    assert!(files.iter().all(|file| file.exists()));

    own_bpffs();
    let foreign = "/sys/fs/bpf/others/weir_like";
    sh(&format!(
        "mkdir /sys/fs/bpf/others; bpftool map create {foreign} type array key 4 value 4 entries 1 name others"
    ));
    let said = refused(Path::new("/sys/fs/bpf/others"));
    assert!(said.contains("is no directory of pins: what is in it is not Weir's"), "{said}");
    assert!(Path::new(foreign).exists());
}

#[test]
fn a_directory_of_pins_below_none_says_what_to_make() {
    let stage = Stage::new();
    let nested = CONFIG.replace("[balancer]", "[balancer]\npins = \"/sys/fs/bpf/a/b\"");
    fs::write(stage.config(), nested).expect("written");
    let (code, log) = stage.start(WEIR, &stage.run_arguments(), &[]).ended();
    assert_eq!(code, Some(1), "{log}");
    let words = "/sys/fs/bpf/a/b cannot be made, for there is no /sys/fs/bpf/a: `mkdir --parents /sys/fs/bpf/a`";
    assert!(log.contains(words), "{log}");
}
