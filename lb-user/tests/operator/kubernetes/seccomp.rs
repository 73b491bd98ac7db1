//! The system calls that a container may use, by the profile that CRI-O and podman have, and Debian's buildah with them. A
//! runtime makes of a profile what the container's capabilities and the machine let it; so does this.

use crate::stage::text;
use k8s_openapi::api::core::v1 as core;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

const PROFILE: &str = "/usr/share/containers/seccomp.json";
/// What profiles call this machine's kind, and libseccomp.
const MACHINE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Value,
    default_errno_ret: Value,
    arch_map: Vec<Kind>,
    syscalls: Vec<Rule>,
}

/// A kind of machine, and those whose programs it runs, too.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    architecture: String,
    sub_architectures: Vec<Value>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    includes: Condition,
    #[serde(default)]
    excludes: Condition,
    /// What of it is the container's rule as it is.
    #[serde(flatten)]
    said: serde_json::Map<String, Value>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    #[serde(default)]
    arches: Vec<String>,
    #[serde(default)]
    caps: Vec<String>,
}

impl Rule {
    fn holds_for(&self, capabilities: &[String]) -> bool {
        let Condition { arches, caps } = &self.includes;
        let is_machine = |arch: &String| arch == MACHINE.0;
        (arches.is_empty() || arches.iter().any(is_machine))
            && caps.iter().all(|name| capabilities.contains(name))
            && !self.excludes.arches.iter().any(is_machine)
            && !self.excludes.caps.iter().any(|name| capabilities.contains(name))
    }

    fn rule(&self) -> Value {
        let fields = ["names", "action", "errnoRet", "args"].into_iter();
        fields
            .filter_map(|name| Some((name.to_owned(), self.said.get(name).filter(|value| !value.is_null())?.clone())))
            .collect()
    }
}

/// The profile as it is on this machine.
pub(super) fn of_machine() -> String {
    fs::read_to_string(PROFILE).expect("buildah's: `cargo xtask setup` installs it")
}

/// The same for whom `docs/kubernetes.md` has told what to change.
pub(super) fn with_bpf() -> String {
    let change = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes/seccomp.jq");
    let output = Command::new("jq").arg("--from-file").arg(change).arg(PROFILE).output();
    let output = output.expect("jq is installed: `cargo xtask setup` does it");
    assert!(output.status.success(), "{}", text(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What a container is given for `RuntimeDefault`, where this is the runtime's profile.
pub(super) fn of_container(profile: &str, security: &core::SecurityContext, capabilities: &[String]) -> Value {
    let asked = security.seccomp_profile.as_ref().map(|profile| profile.type_.as_str());
    assert_eq!(asked, Some("RuntimeDefault"), "there is no other profile here");
    let profile: Profile = serde_json::from_str(profile).expect("a profile");
    let kind = profile.arch_map.iter().find(|kind| kind.architecture == MACHINE.1).expect("this machine's");
    let architectures: Vec<_> = [json!(MACHINE.1)].into_iter().chain(kind.sub_architectures.iter().cloned()).collect();
    let rules: Vec<_> = profile.syscalls.iter().filter(|rule| rule.holds_for(capabilities)).map(Rule::rule).collect();
    json!({
        "defaultAction": profile.default_action, "defaultErrnoRet": profile.default_errno_ret,
        "architectures": architectures, "syscalls": rules,
    })
}
