//! A machine to install packages on: this machine's file system under an overlay, in namespaces of its own, with a systemd of
//! its own. What is done on it never reaches the file system below, and nothing of it outlives the test, killed or not.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Far above what any step takes.
const DEADLINE: Duration = Duration::from_mins(2);
/// The group of processes of a test's machine, with the test's process behind it.
const GROUP: &str = "weir-package-";

/// The machine; it ends when dropped.
pub(crate) struct Machine {
    systemd: Child,
    group: PathBuf,
}

impl Machine {
    /// Starts one that sees a folder as `/srv`.
    pub(crate) fn start(folder: &Path) -> Self {
        let group = group();
        // The first dies with this test, and systemd with it, and with systemd all that it runs.
        let line = "echo $$ > \"$1/cgroup.procs\" && exec unshare --kill-child --fork --propagation private \
                    --mount --pid --net --cgroup --uts --ipc sh \"$2\" \"$3\"";
        let mut systemd = Command::new("setpriv");
        systemd.args(["--pdeathsig", "KILL", "--", "sh", "-c", line, "sh"]).arg(&group);
        systemd.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package/boot.sh")).arg(folder);
        let log = fs::File::create(folder.join("boot.log")).expect("a file");
        let systemd = systemd.stdin(Stdio::null()).stdout(log.try_clone().expect("shared")).stderr(log).spawn();
        let mut machine =
            Self { systemd: systemd.expect("these tests need root: run them by `cargo xtask test`"), group };
        let begun = Instant::now();
        while !machine.is_up() {
            let log = fs::read_to_string(folder.join("boot.log")).unwrap_or_default();
            assert!(machine.systemd.try_wait().expect("asked").is_none(), "the machine did not start: {log}");
            assert!(begun.elapsed() < DEADLINE, "the machine does not start: {log}");
            thread::sleep(Duration::from_millis(50));
        }
        machine
    }

    fn is_up(&self) -> bool {
        // "degraded" is up, too: something of this machine has no place there.
        self.init().is_some() && ["running", "degraded"].contains(&self.ask("systemctl is-system-running").0.as_str())
    }

    /// The process that is the machine's first.
    fn init(&self) -> Option<String> {
        let pid = self.systemd.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next().map(str::to_owned)
    }

    fn output(&self, line: &str) -> Output {
        let init = self.init().expect("the machine runs");
        let mut inside = Command::new("nsenter");
        inside.args(["--target", &init, "--mount", "--pid", "--net", "--cgroup", "--uts", "--ipc"]);
        inside.args(["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"]);
        inside.args(["sh", "-c", line]).stdin(Stdio::null()).output().expect("nsenter starts")
    }

    /// What a line of shell prints, on both ways, and whether it succeeds.
    pub(crate) fn ask(&self, line: &str) -> (String, bool) {
        let output = self.output(&format!("exec 2>&1; {line}"));
        (String::from_utf8_lossy(&output.stdout).trim().to_owned(), output.status.success())
    }

    /// Repeats a line of shell until it succeeds.
    pub(crate) fn wait_for(&self, line: &str) {
        let begun = Instant::now();
        while !self.ask(line).1 {
            assert!(begun.elapsed() < DEADLINE, "it never succeeds: `{line}`");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a line of shell prints that has to succeed.
    pub(crate) fn run(&self, line: &str) -> String {
        let (said, is_good) = self.ask(line);
        assert!(is_good, "`{line}`: {said}\n{}", self.ask("journalctl --no-pager --lines 30").0);
        said
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.systemd.kill().expect("it can be ended");
        self.systemd.wait().expect("it ends");
        let begun = Instant::now();
        while self.group.exists() && begun.elapsed() < DEADLINE {
            remove(&self.group);
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A new group of processes; those of tests that were killed are removed.
fn group() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("readable");
    let root = mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let place = words.next()?;
        (words.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    let root = root.expect("a cgroup2 is mounted");
    for entry in fs::read_dir(&root).expect("readable") {
        let entry = entry.expect("readable");
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(GROUP).is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove(&entry.path());
        }
    }
    let group = root.join(format!("{GROUP}{}", process::id()));
    fs::create_dir(&group).expect("these tests need root: run them by `cargo xtask test`");
    group
}

/// Removes a group with those below it, as far as their processes have ended.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    // Not yet empty: it is tried again.
    let _ = fs::remove_dir(group);
}
