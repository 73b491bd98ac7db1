//! A balancer in a network namespace of its own, on one end of a veth pair; at the other end a test plays the client.
//! Nothing stays: the namespace ends with the test's thread and the balancer with the test, and with them the mount that the
//! pins are in.

use crate::captured::{SERVICE, key_file};
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket},
    },
    unistd::Pid,
};
use std::{
    fs,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// Far above what any step takes.
pub(crate) const DEADLINE: Duration = Duration::from_mins(2);

pub(crate) struct Stage {
    folder: tempfile::TempDir,
    weir: Option<Child>,
}

impl Stage {
    /// A namespace with everything but a balancer.
    pub(crate) fn new(admin: &str) -> Self {
        let apart = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(apart).expect("these tests need root: run them by `cargo xtask test`");
        ip("link set lo up");
        ip("link add weir0 type veth peer name peer0");
        ip("addr add 10.0.1.254/24 dev weir0");
        ip("link set weir0 up");
        ip("link set peer0 up");
        for number in 1..=3 {
            ip(&format!("neigh add 10.0.1.{number} lladdr 02:00:00:00:01:0{number} dev weir0 nud permanent"));
        }
        let folder = tempfile::tempdir().expect("a folder");
        let pins = folder.path().join("bpf");
        fs::create_dir(&pins).expect("a folder");
        let pins = pins.display().to_string();
        run("mount", &["--make-rprivate", "/"]);
        run("mount", &["-t", "bpf", "bpf", &pins]);
        let key = key_file(folder.path(), "00112233445566778899aabbccddeeff").display().to_string();
        let balancer =
            format!("[balancer]\ninterface = \"weir0\"\ncluster_key_file = {key:?}\npins = \"{pins}/weir\"\n");
        let config = format!("{balancer}[admin]\n{admin}\n{SERVICE}");
        fs::write(folder.path().join("weir.toml"), config).expect("a file");
        Self { folder, weir: None }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("weir.sock")
    }

    fn weir_run(&self) -> Command {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.arg("run").arg("--config").arg(self.path("weir.toml")).arg("--socket").arg(self.socket());
        weir
    }

    /// Starts a balancer, and returns when its socket answers.
    pub(crate) fn start(&mut self) {
        let log = fs::File::create(self.path("weir.log")).expect("a file");
        self.weir = Some(self.weir_run().stderr(log).stdin(Stdio::null()).spawn().expect("weir starts"));
        self.wait("answers", |stage| {
            let weir = stage.weir.as_mut().expect("it was started");
            let ended = weir.try_wait().expect("a child");
            let log = fs::read_to_string(stage.path("weir.log")).unwrap_or_default();
            assert!(ended.is_none(), "weir ended: {log}");
            UnixStream::connect(stage.socket()).is_ok() && log.contains("ready")
        });
    }

    /// How many files the running balancer has open.
    pub(crate) fn open_files(&self) -> usize {
        let weir = self.weir.as_ref().expect("it was started");
        fs::read_dir(format!("/proc/{}/fd", weir.id())).expect("it runs").count()
    }

    /// What a balancer says that cannot start.
    pub(crate) fn fail_to_start(&self) -> String {
        let output = self.weir_run().output().expect("weir starts");
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    }

    /// Waits until something is so.
    pub(crate) fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Self) -> bool) {
        let since = Instant::now();
        while !is_so(self) {
            assert!(since.elapsed() < DEADLINE, "weir never {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A command of weir's to the running balancer.
    pub(crate) fn weir(&self, arguments: &[&str]) -> Output {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(arguments).arg("--socket").arg(self.socket()).output().expect("weir starts")
    }

    /// The JSON that one prints, a value for each line.
    pub(crate) fn json(&self, arguments: &[&str]) -> Vec<serde_json::Value> {
        let output = self.weir(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        let printed = String::from_utf8(output.stdout).expect("text");
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// What a configuration makes of frames, with no balancer.
    pub(crate) fn explain_by_config(&self, capture: &str) -> Vec<serde_json::Value> {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.args(["explain", "--engine", "host", "--output", "json", "--pcap", capture]);
        let output = weir.arg("--config").arg(self.path("weir.toml")).output().expect("weir starts");
        let printed = String::from_utf8(output.stdout).expect("text");
        printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut weir) = self.weir.take() {
            let _ = kill(Pid::from_raw(weir.id().cast_signed()), Signal::SIGTERM);
            let _ = weir.wait();
        }
        run("umount", &["--lazy", &self.path("bpf").display().to_string()]);
    }
}

/// Sends frames out by the other end of the pair, to the balancer.
pub(crate) fn play(frames: &[Vec<u8>]) {
    let open = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll);
    let socket = open.expect("root may open it");
    let peer = nix::ifaddrs::getifaddrs().expect("interfaces").find(|interface| {
        interface.interface_name == "peer0" && interface.address.as_ref().is_some_and(|a| a.as_link_addr().is_some())
    });
    let peer = peer.and_then(|interface| interface.address).expect("the other end");
    let peer: &LinkAddr = peer.as_link_addr().expect("an Ethernet address");
    for frame in frames {
        let sent = sendto(socket.as_raw_fd(), frame, peer, MsgFlags::empty());
        assert_eq!(sent.expect("it is sent"), frame.len());
    }
}

fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
}
