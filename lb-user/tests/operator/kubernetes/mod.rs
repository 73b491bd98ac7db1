//! `deploy/kubernetes` and the container image: kustomize renders what Kubernetes has types for, and the containers run as the
//! manifests say, with the capabilities, system calls, mounts and commands that are written there and no others.

mod container;
mod image;
mod manifests;
mod seccomp;

use crate::stage::{CONFIG, Stage, WEIR, sh, text, until};
use container::Container;
use manifests::Manifests;
use std::{fs, process::Command};

const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:9107\"\n";

#[test]
fn what_kustomize_renders_has_nothing_that_kubernetes_does_not_know() {
    let Manifests { namespaces, config_maps, daemon_sets } = Manifests::render();
    assert_eq!([namespaces.len(), config_maps.len(), daemon_sets.len()], [1, 2, 2]);
    let namespace = namespaces[0].metadata.name.as_deref();
    assert!(daemon_sets.iter().all(|set| set.metadata.namespace.as_deref() == namespace));
}

#[test]
fn the_configurations_of_the_manifests_hold() {
    let stage = Stage::new();
    for map in Manifests::render().config_maps {
        for (file, config) in map.data.expect("files") {
            let path = stage.folder.path().join(&file);
            fs::write(&path, config).expect("written");
            let command: &[&str] = if file == "weir.toml" { &["check"] } else { &["agent", "--check"] };
            let output = Command::new(WEIR).args(command).arg("--config").arg(path).output().expect("weir starts");
            assert!(output.status.success(), "{file}: {}", text(&output.stderr));
        }
    }
}

#[test]
fn a_balancer_runs_as_its_daemon_set_says() {
    let stage = Stage::new();
    let config = CONFIG.replace("on_stop = \"detach\"", "") + METRICS;
    let manifests = Manifests::render();
    let mut container =
        Container::start(&stage, &seccomp::with_bpf(), manifests.pod("weir"), &[("weir.toml", &config)]);
    container.wait_for("\"ready\"");
    assert!(sh("ip -json link show dev weir0").contains("\"xdp\""), "the program is attached");
    container.becomes_well();

    // Before it ends it is no longer announced, which is no reason to start it anew.
    container.prepare_to_stop();
    until("it is withdrawn", || container.readiness_and_life() == [Some("503".to_owned()), Some("200".to_owned())]);
    let (code, log) = container.end();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("weir0 goes on steering"), "{log}");
}

#[test]
fn an_agent_runs_as_its_daemon_set_says() {
    let stage = Stage::new();
    let manifests = Manifests::render();
    let config = manifests.config("agent.toml").replace("eth0", "weir0");
    let mut container =
        Container::start(&stage, &seccomp::with_bpf(), manifests.pod("weir-agent"), &[("agent.toml", &config)]);
    container.wait_for("ready, taking tunnels off on weir0");
    container.becomes_well();
    let (code, log) = container.end();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn where_the_runtimes_profile_does_not_know_its_capability_a_pod_says_so() {
    let stage = Stage::new();
    let manifests = Manifests::render();
    let container = Container::start(&stage, &seccomp::of_machine(), manifests.pod("weir"), &[("weir.toml", CONFIG)]);
    let (code, log) = container.ended();
    assert_ne!(code, Some(0), "{log}");
    assert!(log.contains("a container's seccomp filter that forbids the bpf system call"), "{log}");
}
