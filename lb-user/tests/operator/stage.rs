//! A place to run `weir` in: a new network namespace for this thread with `weir0` (10.77.0.1, `fd77::1`) in it, joined to
//! `peer0` (2) in the namespace of a child process. Nothing of it outlives the test, killed or not.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Far above what any step takes; only a broken Weir waits so long.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

/// The namespaces, and a folder for files.
pub(crate) struct Stage {
    peer: Child,
    pub(crate) folder: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root: run them by `cargo xtask test`");
        let mut peer = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts");
        let mut ready = [0; 6];
        peer.stdout.as_mut().expect("piped").read_exact(&mut ready).expect("the peer says it is ready");

        let stage = Self { folder: tempfile::tempdir().expect("a folder"), peer };
        let pid = stage.peer.id();
        sh("ip link set lo up");
        sh(&format!(
            "ip link add weir0 address 02:00:00:00:00:01 mtu 1600 type veth \
             peer name peer0 address 02:00:00:00:00:02 mtu 1600 netns {pid}"
        ));
        sh("ip addr add 10.77.0.1/24 dev weir0");
        sh("ip addr add fd77::1/64 dev weir0 nodad");
        sh("ip link set weir0 up");
        stage.in_peer("ip addr add 10.77.0.2/24 dev peer0");
        stage.in_peer("ip addr add fd77::2/64 dev peer0 nodad");
        stage.in_peer("ip link set peer0 up");
        fs::write(stage.config(), CONFIG).expect("a configuration");
        stage
    }

    /// A program in the peer's namespace.
    pub(crate) fn inside_peer(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.peer_pid().to_string(), program]);
        command
    }

    /// Runs a line of shell in the peer's namespace.
    pub(crate) fn in_peer(&self, line: &str) -> String {
        done(line, self.inside_peer("sh").args(["-c", line]))
    }

    pub(crate) fn peer_pid(&self) -> u32 {
        self.peer.id()
    }

    /// A copy of the program in the stage's folder, where any user may go that the folder lets in.
    pub(crate) fn copy_of_weir(&self) -> PathBuf {
        let copy = self.folder.path().join("weir");
        fs::copy(WEIR, &copy).expect("a copy");
        copy
    }

    /// The configuration file: one backend, the peer, behind one VIP.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("weir.toml")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("weir.sock")
    }

    /// The arguments of `weir run` on this stage.
    pub(crate) fn run_arguments(&self) -> Vec<String> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        ["run", "--config", &text(self.config()), "--socket", &text(self.socket())].map(str::to_owned).to_vec()
    }

    /// Starts a program that ends with this thread at the latest; what it says goes to a file.
    pub(crate) fn start(&self, program: &str, arguments: &[String], environment: &[(&str, String)]) -> Running {
        self.start_after("", "log", program, arguments, environment)
    }

    /// The same while another one runs.
    pub(crate) fn start_beside(&self, program: &str, arguments: &[String]) -> Running {
        self.start_after("", "second-log", program, arguments, &[])
    }

    /// The same after a line of shell, which ends in `&&`.
    pub(crate) fn start_after(
        &self,
        before: &str,
        log: &str,
        program: &str,
        arguments: &[String],
        environment: &[(&str, String)],
    ) -> Running {
        let log = self.folder.path().join(log);
        let file = fs::File::create(&log).expect("a log");
        // Each has a BPF file system of its own, as systemd mounts it, which ends with it.
        let own = format!("mount -t bpf -o mode=0700 bpf /sys/fs/bpf && {before} exec \"$@\"");
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "sh", "-c", &own, "sh", program])
            .args(arguments)
            .envs(environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("one more"))
            .stderr(file)
            .spawn()
            .expect("setpriv starts");
        Running { child, log }
    }

    /// Starts `weir run`, and waits until it says that it is ready.
    pub(crate) fn run(&self) -> Running {
        let mut running = self.start(WEIR, &self.run_arguments(), &[]);
        running.wait_for(" ready");
        running
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        drop(self.peer.stdin.take());
        let _ = self.peer.wait();
    }
}

pub(crate) const WEIR: &str = env!("CARGO_BIN_EXE_weir");

/// One pool and one VIP, and tables that are soon made.
pub(crate) const CONFIG: &str = r#"
[balancer]
interface = "weir0"
on_stop = "detach"
[limits]
tokens = 4096
joined_flows = 4096
moved_flows = 4096
pinned_flows = 4096
pending_handshakes = 4096
embryonic_flows = 4096
datagram_flows = 4096
[[pool]]
name = "web"
[[pool.backend]]
name = "b1"
address = "10.77.0.2"
[[vip]]
name = "site"
address = "192.0.2.1"
protocol = "tcp"
port = 443
pool = "web"
"#;

/// A process that stays until it is told to end.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// All that it has said.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has said this.
    pub(crate) fn wait_for(&mut self, words: &str) {
        until(words, || {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
            self.log().contains(words)
        });
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("it runs");
    }

    /// Ends it by SIGTERM; its exit code and all that it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        self.signal(Signal::SIGTERM);
        let status = self.child.wait().expect("it ends");
        (status.code(), self.log())
    }

    /// Waits for its own end.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().expect("it ends");
        (status.code(), self.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a condition.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "it never came: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a line of shell, which must succeed.
pub(crate) fn sh(line: &str) -> String {
    done(line, Command::new("sh").args(["-c", line]))
}

fn done(line: &str, command: &mut Command) -> String {
    let output = command.output().expect("sh starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a command has printed, as text.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The path as a word of a command line.
pub(crate) fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
