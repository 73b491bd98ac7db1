//! What loses packets is said to who has brought it about: by `weir reload`, by an order to drain, and whenever somebody asks.

use crate::stage::{CONFIG, Stage, WEIR, text};
use std::{fs, process::Command};

/// A backend that no route leads to.
const FAR: &str = "[[pool.backend]]\nname = \"far\"\naddress = \"10.99.0.1\"\n";
const WHY: &str = "no route to backend \"far\" 10.99.0.1: Network is unreachable (os error 101); `ip route get 10.99.0.1` \
                   shows the same, add a route";

/// What a command of the running balancer prints, on whichever of the two, and its exit status.
fn weir(stage: &Stage, words: &str) -> (String, Option<i32>) {
    let mut command = Command::new(WEIR);
    let output = command.args(words.split(' ')).arg("--socket").arg(stage.socket()).output().expect("weir starts");
    (text(&output.stdout).to_owned() + text(&output.stderr), output.status.code())
}

fn says(stage: &Stage, words: &str, expected: &[&str]) {
    let (said, code) = weir(stage, words);
    assert_eq!(code, Some(0), "{said}");
    for line in expected {
        assert!(said.lines().any(|said| said.trim() == *line), "`weir {words}` does not say: {line}\nbut:\n{said}");
    }
}

/// The configuration with something in front of its VIP.
fn with(pool_end: &str) -> String {
    CONFIG.replace("[[vip]]", &format!("{pool_end}[[vip]]"))
}

#[test]
fn a_backend_that_is_not_reached_is_told_wherever_it_is_looked_at() {
    let stage = Stage::new();
    let running = stage.run();
    let warning = format!("warning: {WHY}; its packets are dropped until then");

    fs::write(stage.config(), with(FAR)).expect("written");
    says(&stage, "reload --dry-run", &[&warning, "+ backend web/far"]);
    assert!(!weir(&stage, "backend list").0.contains("far"), "a dry run has changed something");
    says(&stage, "reload", &[&warning, "+ backend web/far"]);
    says(&stage, "reload", &[&warning, "0 of 65537 slots changed"]);
    says(&stage, "backend show far", &[&format!("not reached: {WHY}; its packets are dropped until then")]);
    let (list, _) = weir(&stage, "backend list");
    assert!(list.lines().any(|line| line.starts_with("far ") && line.ends_with(WHY)), "{list}");

    let log = running.log();
    assert_eq!(log.matches("no route to backend").count(), 1, "{log}");
    fs::write(stage.config(), CONFIG).expect("written");
    assert!(!weir(&stage, "reload").0.contains("warning"), "nothing is lost any more");
}

#[test]
fn a_pool_that_takes_nobody_is_told_to_who_drains_its_last_backend() {
    let stage = Stage::new();
    let _running = stage.run();
    let warning = "warning: no backend of pool web takes new connections: each is dropped";
    says(&stage, "backend drain b1", &[warning]);
    says(&stage, "status", &[warning]);
    says(&stage, "backend show b1", &[warning]);
    for words in ["backend enable b1", "status", "backend show b1"] {
        assert!(!weir(&stage, words).0.contains("warning"), "{words}");
    }

    fs::write(stage.config(), CONFIG.replace("10.77.0.2\"\n", "10.77.0.2\"\nstate = \"drain\"\n")).expect("written");
    says(&stage, "reload", &[warning]);
}

#[test]
fn a_refused_reload_is_told_until_one_is_not() {
    let stage = Stage::new();
    let _running = stage.run();
    let refused =
        "the last reload was refused, and an older configuration is in force: `weir reload --dry-run` says why";

    fs::write(stage.config(), CONFIG.replace("tokens = 4096", "tokens = 8192")).expect("written");
    let (said, code) = weir(&stage, "reload");
    assert_eq!(code, Some(2));
    assert!(said.contains("[limits] cannot change while weir runs, nor by a restart alone"), "{said}");
    assert!(said.contains("`weir detach`"), "{said}");
    says(&stage, "status", &[refused]);

    fs::write(stage.config(), CONFIG).expect("written");
    says(&stage, "reload", &["0 of 65537 slots changed"]);
    assert!(!weir(&stage, "status").0.contains("refused"));
}
