//! The pages that are generated are those of this code: `cargo xtask docs` writes them anew.

use lb_user::metrics::FAMILIES;
use std::{collections::BTreeMap, fs, path::Path, process::Command};

/// The pages of a folder, by name.
fn pages(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let page = |path: &Path| fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flatten().map(|entry| (entry.file_name().to_string_lossy().into_owned(), page(&entry.path()))).collect()
}

#[test]
fn the_reference_is_current() {
    let folder = tempfile::tempdir().expect("a folder");
    weir(&["generate", "reference", &folder.path().to_string_lossy()]);
    let made = pages(folder.path());
    let kept = pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference"));
    assert!(made.keys().eq(kept.keys()), "docs/reference has other pages than {:?}", made.keys());
    for (name, page) in &made {
        assert!(kept[name] == *page, "docs/reference/{name} is stale: `cargo xtask docs`");
    }
    for family in FAMILIES {
        assert_eq!(made["metrics.md"].matches(&format!("| `{}` |", family.name)).count(), 1, "{}", family.name);
    }
}

/// What `weir` prints.
fn weir(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_weir")).args(arguments).output().expect("weir starts");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The commands that the help shows.
fn commands() -> Vec<String> {
    let help = weir(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").expect("it lists them");
    let lines = rest.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_a_man_page_that_man_can_read() {
    let folder = tempfile::tempdir().expect("a folder");
    weir(&["generate", "man", &folder.path().to_string_lossy()]);
    for command in commands() {
        let page = folder.path().join(format!("weir-{command}.1"));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".TH weir-") && text.contains(".SH SYNOPSIS"), "{text}");
    }
    assert!(folder.path().join("weir.1").exists());
    assert!(!folder.path().join("weir-generate.1").exists(), "it is for packagers");
}

#[test]
fn a_shell_completes_the_commands() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("weir.bash");
    fs::write(&script, weir(&["completions", "bash"])).expect("written");
    let ask = format!(
        "source {}; COMP_WORDS=(weir ''); COMP_CWORD=1; _weir weir '' weir; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["--norc", "-c", &ask]).output().expect("bash starts");
    let offered = String::from_utf8(output.stdout).expect("text");
    for command in commands() {
        assert!(offered.split_whitespace().any(|word| word == command), "{command} in {offered}");
    }
    for shell in ["zsh", "fish"] {
        assert!(weir(&["completions", shell]).contains("doctor"), "{shell}");
    }
}
