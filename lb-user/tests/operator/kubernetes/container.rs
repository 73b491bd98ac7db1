//! A container of a pod, in the network of a stage: its image is built from `deploy/container/Dockerfile`, and crun runs it by
//! what the manifest says. The program is not the static one of a release, so the machine's libraries are mounted beside it.

use super::{image, seccomp};
use crate::{
    fitness::get_from,
    stage::{Running, Stage, text, until, word},
};
use k8s_openapi::{
    api::core::v1::{self as core, PodSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where the program finds what it is linked with.
const LIBRARIES: [&str; 3] = ["/lib", "/lib64", "/usr/lib"];
const NAME: &str = "weir";

pub(super) struct Container<'m> {
    running: Running,
    spec: &'m core::Container,
    /// Where crun keeps what it knows of it.
    known: PathBuf,
}

impl<'m> Container<'m> {
    /// Starts the only container of a pod, where this is the runtime's profile of system calls. These are the files of its
    /// configuration.
    pub(super) fn start(stage: &Stage, profile: &str, pod: &'m PodSpec, config: &[(&str, &str)]) -> Self {
        let [spec] = &pod.containers[..] else { panic!("one container") };
        assert_eq!(pod.host_network, Some(true), "the stage's network is the host's");
        let (parcel, known) = (stage.folder.path().join("bundle"), stage.folder.path().join("crun"));
        let files = parcel.join("config");
        fs::create_dir_all(&files).expect("a folder");
        for (name, content) in config {
            fs::write(files.join(name), content).expect("written");
        }
        let entrypoint = image::unpack(stage, &parcel.join("rootfs"));
        let capabilities = capabilities(spec);
        let process = process(spec, &capabilities, entrypoint);
        let root = json!({"path": "rootfs", "readonly": is_read_only(spec)});
        let namespaces = [json!({"type": "mount"}), json!({"type": "ipc"}), json!({"type": "uts"})];
        let said = json!({
            "ociVersion": "1.0.2", "process": process, "root": root, "mounts": mounts(pod, spec, &files),
            "linux": {
                "namespaces": namespaces, "seccomp": seccomp::of_container(profile, security(spec), &capabilities),
            },
        });
        fs::write(parcel.join("config.json"), said.to_string()).expect("written");
        // What crun has started ends with the first process of its process namespace: crun, when that is killed. It uses no
        // cgroup, but looks for those of version 2 alone.
        let run = "mount -t cgroup2 none /sys/fs/cgroup && exec crun --cgroup-manager=disabled --root \"$@\"";
        let [memory, bundle] = [&known, &parcel].map(|path| word(path));
        let apart = ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", run, "sh", &memory];
        let arguments = apart.into_iter().chain(["run", "--bundle", &bundle, NAME]).map(str::to_owned);
        let running = stage.start("unshare", &arguments.collect::<Vec<_>>(), &[]);
        Self { running, spec, known }
    }

    pub(super) fn wait_for(&mut self, words: &str) {
        self.running.wait_for(words);
    }

    /// Waits until all that Kubernetes would ask is answered as it wants.
    pub(super) fn becomes_well(&self) {
        let core::Container { startup_probe, liveness_probe, readiness_probe, .. } = self.spec;
        for probe in [startup_probe, liveness_probe, readiness_probe] {
            until("it is well", || told(probe.as_ref()).as_deref() == Some("200"));
        }
    }

    /// What it is told that asks whether packets are to come here, and whether it hangs.
    pub(super) fn readiness_and_life(&self) -> [Option<String>; 2] {
        [&self.spec.readiness_probe, &self.spec.liveness_probe].map(|probe| told(probe.as_ref()))
    }

    /// Does what is to be done before it ends, in the container.
    pub(super) fn prepare_to_stop(&self) {
        let before = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        let command = before.and_then(|handler| handler.exec.as_ref()?.command.clone()).expect("a command");
        let output = self.crun(&["exec".to_owned(), NAME.to_owned()].into_iter().chain(command).collect::<Vec<_>>());
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Waits for its own end; its exit code and all that it said.
    pub(super) fn ended(self) -> (Option<i32>, String) {
        self.running.ended()
    }

    /// Has it end as Kubernetes would; its exit code and all that it said.
    pub(super) fn end(self) -> (Option<i32>, String) {
        let output = self.crun(&["kill", NAME, "TERM"].map(str::to_owned));
        // When it has ended, so has all in its process namespace: also who told it to, if still there.
        let is_taken_along = output.status.signal() == Some(Signal::SIGKILL as i32);
        assert!(output.status.success() || is_taken_along, "{}: {}", output.status, text(&output.stderr));
        self.running.ended()
    }

    /// Runs crun where it runs.
    fn crun(&self, arguments: &[String]) -> Output {
        let outside = self.running.pid();
        let children = fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).expect("it runs");
        let mut crun = Command::new("nsenter");
        crun.args(["--target", children.trim(), "--pid", "--mount", "crun", "--root"]).arg(&self.known).args(arguments);
        crun.output().expect("nsenter starts")
    }
}

/// The status that a probe is answered with.
fn told(probe: Option<&core::Probe>) -> Option<String> {
    let asked = probe.and_then(|probe| probe.http_get.as_ref()).expect("a probe by HTTP");
    assert_eq!(asked.host.as_deref(), Some("127.0.0.1"));
    let IntOrString::Int(port) = asked.port else { panic!("a port without a name") };
    let page = asked.path.as_deref().expect("a page");
    get_from(port.try_into().expect("a port"), page).map(|(status, _)| status)
}

fn security(spec: &core::Container) -> &core::SecurityContext {
    spec.security_context.as_ref().expect("a security context")
}

fn is_read_only(spec: &core::Container) -> bool {
    security(spec).read_only_root_filesystem == Some(true)
}

fn capabilities(spec: &core::Container) -> Vec<String> {
    let capabilities = security(spec).capabilities.as_ref().expect("capabilities");
    assert_eq!(capabilities.drop.as_deref(), Some(&["ALL".to_owned()][..]));
    capabilities.add.iter().flatten().map(|name| format!("CAP_{name}")).collect()
}

fn process(spec: &core::Container, named: &[String], entrypoint: Vec<String>) -> Value {
    let security = security(spec);
    let arguments: Vec<_> = entrypoint.into_iter().chain(spec.args.iter().flatten().cloned()).collect();
    json!({
        "args": arguments, "cwd": "/", "user": {"uid": security.run_as_user.expect("a user"), "gid": 0},
        "noNewPrivileges": security.allow_privilege_escalation == Some(false),
        "capabilities": {"bounding": named, "effective": named, "permitted": named},
    })
}

/// What any container has, then the volumes.
fn mounts(pod: &PodSpec, spec: &core::Container, files: &Path) -> Vec<Value> {
    let bind = |from: &str, to: &str, access: &str| json!({"destination": to, "source": from, "type": "bind", "options": ["bind", access]});
    let fresh = |kind: &str, to: &str| json!({"destination": to, "source": kind, "type": kind});
    let mut mounts = vec![fresh("proc", "/proc"), bind("/sys", "/sys", "ro"), fresh("tmpfs", "/dev")];
    mounts.extend(LIBRARIES.iter().filter(|place| Path::new(place).exists()).map(|place| bind(place, place, "ro")));
    for mount in spec.volume_mounts.iter().flatten() {
        let volume = pod.volumes.iter().flatten().find(|volume| volume.name == mount.name).expect("such a volume");
        let access = if mount.read_only == Some(true) { "ro" } else { "rw" };
        if let Some(host) = &volume.host_path {
            mounts.push(bind(&host.path, &mount.mount_path, access));
        } else if volume.config_map.is_some() {
            mounts.push(bind(&word(files), &mount.mount_path, access));
        } else if volume.empty_dir.is_some() {
            mounts.push(fresh("tmpfs", &mount.mount_path));
        } else {
            let secret = volume.secret.as_ref().expect("no other kind of volume");
            assert_eq!(secret.optional, Some(true), "there is none here");
        }
    }
    mounts
}
