//! Balancers as processes, in one network namespace with a NATS server that has a store: what one has in transition, the
//! next to start has too. Nothing of it outlives the test.

use crate::stage::PATIENCE;
use async_nats::jetstream;
use etherparse::PacketBuilder;
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const WEIR: &str = env!("CARGO_BIN_EXE_weir");
const KEY: &str = "00112233445566778899aabbccddeeff";
const ALL: &[(&str, u16)] = &[("b1", 100), ("b2", 100), ("b3", 100)];
/// b3 leaves, and b1 gets a larger share.
const LATER: &[(&str, u16)] = &[("b1", 300), ("b2", 100)];

/// A process that ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        let apart = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(apart).expect("these tests need root: run them by `cargo xtask test`");
        let folder = tempfile::tempdir().expect("a folder");
        let bpffs = folder.path().join("bpf");
        fs::create_dir(&bpffs).expect("a folder");
        sh("mount --make-rprivate /");
        sh(&format!("mount -t bpf bpf {}", bpffs.display()));
        sh("ip link set lo up");
        for number in 1..=4 {
            sh(&format!("ip link add weir{number} type veth peer name peer{number}"));
            sh(&format!("ip link set weir{number} up && ip link set peer{number} up"));
        }
        sh("ip addr add 10.0.1.254/24 dev weir1");
        for number in 1..=3 {
            sh(&format!("ip neigh add 10.0.1.{number} lladdr 02:00:00:00:01:0{number} dev weir1 nud permanent"));
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn serve(&self, options: &[&str]) -> Running {
        let mut command = ending_with_test("nats-server");
        command.args(["-a", "127.0.0.1", "-p", "4222", "-sd"]).arg(self.path("nats")).args(options);
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Running(server.expect("nats-server; `cargo xtask setup` installs it"));
        until("a server", || TcpStream::connect("127.0.0.1:4222").is_ok());
        server
    }

    fn configure(&self, number: u8, key: &str, backends: &[(&str, u16)]) {
        let key_file = self.path(&format!("key{number}"));
        fs::write(&key_file, key).expect("a key");
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("its owner's");
        let backends = backends.iter().map(|(name, weight)| {
            format!("{{ name = \"{name}\", address = \"10.0.1.{}\", weight = {weight} }}", &name[1..])
        });
        let text = format!(
            "[balancer]\ninterface = \"weir{number}\"\ncluster_key_file = \"{}\"\npins = \"{}\"\n\
             [bus]\nservers = [\"nats://127.0.0.1:4222\"]\ncluster = \"test\"\nname = \"lb{number}\"\n\
             [limits]\ntokens = 1024\njoined_flows = 1024\nmoved_flows = 1024\npinned_flows = 1024\n\
             [[pool]]\nname = \"web.eu\"\nbackend = [{}]\n\
             [[vip]]\naddress = \"192.0.2.1\"\nprotocol = \"tcp\"\nport = 443\npool = \"web.eu\"\n",
            key_file.display(),
            self.path(&format!("bpf/weir{number}")).display(),
            backends.collect::<Vec<_>>().join(", ")
        );
        fs::write(self.path(&format!("weir{number}.toml")), text).expect("a configuration");
    }

    /// Starts a balancer, and waits until it says that it is ready.
    fn start(&self, number: u8) -> Balancer<'_> {
        let log = self.path(&format!("log{number}"));
        let file = fs::File::create(&log).expect("a log");
        let mut command = ending_with_test(WEIR);
        command.arg("run").arg("--config").arg(self.path(&format!("weir{number}.toml")));
        command.arg("--socket").arg(self.path(&format!("weir{number}.sock")));
        let process = command.stdout(file.try_clone().expect("one more")).stderr(file).spawn().expect("weir starts");
        let balancer = Balancer { stage: self, number, process: Running(process) };
        until("readiness", || balancer.log().contains(" ready"));
        balancer
    }
}

struct Balancer<'s> {
    stage: &'s Stage,
    number: u8,
    process: Running,
}

impl Balancer<'_> {
    fn log(&self) -> String {
        fs::read_to_string(self.stage.path(&format!("log{}", self.number))).unwrap_or_default()
    }

    fn weir(&self, arguments: &[&str]) -> String {
        let socket = self.stage.path(&format!("weir{}.sock", self.number));
        let output = Command::new(WEIR).args(arguments).arg("--socket").arg(socket).output().expect("weir starts");
        assert!(output.status.success(), "{output:?}\n{}", self.log());
        String::from_utf8(output.stdout).expect("text")
    }

    fn status(&self) -> Value {
        serde_json::from_str(&self.weir(&["status", "--output", "json"])).expect("JSON")
    }

    fn in_transition(&self) -> u64 {
        self.status()["pools"][0]["slots_in_transition"].as_u64().expect("a number")
    }

    /// The slots of each backend, and those that were its.
    fn slots(&self) -> Vec<(String, u64, u64)> {
        let status = self.status();
        let backends = status["backends"].as_array().expect("a list").iter();
        let number = |backend: &Value, field: &str| backend[field].as_u64().expect("a number");
        let mut slots: Vec<_> = backends
            .map(|backend| {
                let name = backend["name"].as_str().expect("a name").to_owned();
                (name, number(backend, "slots"), number(backend, "slots_previous"))
            })
            .collect();
        slots.sort();
        slots
    }

    /// Where the kernel's program sends ACKs of connections that it has not seen before.
    fn backends_of_old_flows(&self) -> Vec<String> {
        let packets: Vec<_> = (0..200).map(ack).collect();
        let arguments = packets.iter().flat_map(|packet| ["--packet", packet.as_str()]);
        let arguments: Vec<_> =
            ["explain", "--engine", "kernel", "--output", "json"].into_iter().chain(arguments).collect();
        let told = self.weir(&arguments);
        let backends: Vec<_> = told
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["backend"].as_str().map(str::to_owned))
            .map(|backend| backend.unwrap_or_else(|| panic!("nobody's:\n{told}")))
            .collect();
        assert_eq!(backends.len(), 200);
        backends
    }
}

/// An ACK in the middle of a connection, in hexadecimal digits.
fn ack(flow: u16) -> String {
    let packet = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1])
        .ipv4([198, 51, 100, 7], [192, 0, 2, 1], 64)
        .tcp(20_000 + flow, 443, 77, 1000)
        .ack(99);
    let mut bytes = Vec::new();
    packet.write(&mut bytes, b"data").expect("a packet");
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn ending_with_test(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]).stdin(Stdio::null());
    command
}

fn sh(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().expect("sh starts");
    assert!(output.status.success(), "{line}: {output:?}");
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether something is written of the pool; asked by a client of its own.
fn is_written() -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = async_nats::connect(Ipv4Addr::LOCALHOST.to_string()).await.expect("it listens");
        let Ok(store) = jetstream::new(client).get_key_value("weir_test_generations").await else { return false };
        store.get("web=eu").await.expect("it tells").is_some()
    })
}

#[test]
fn who_starts_in_the_middle_of_a_change_has_the_same_previous_owners() {
    let stage = Stage::new();
    let _server = stage.serve(&["--jetstream"]);
    stage.configure(1, KEY, ALL);
    let one = stage.start(1);
    assert_eq!(one.in_transition(), 0);
    let before = one.backends_of_old_flows();
    stage.configure(1, KEY, LATER);
    one.weir(&["reload"]);
    until("a generation", is_written);
    assert!(one.in_transition() > 0);
    assert_eq!(one.backends_of_old_flows(), before, "a change moves no old flow");

    stage.configure(2, KEY, LATER);
    let two = stage.start(2);
    assert!(two.log().contains("takes over the slots in transition of another balancer"), "{}", two.log());
    assert_eq!(two.slots(), one.slots());
    assert_eq!(two.in_transition(), one.in_transition());
    assert_eq!(two.backends_of_old_flows(), before);
    assert!(before.contains(&"b3".to_owned()), "one that only the first has in its former configuration");

    // The last balancer may be gone.
    kill(Pid::from_raw(one.process.0.id().cast_signed()), Signal::SIGKILL).expect("it runs");
    drop((one, two));
    stage.configure(3, KEY, LATER);
    let three = stage.start(3);
    assert_eq!(three.backends_of_old_flows(), before);
}

#[test]
fn what_is_of_another_configuration_or_key_is_left_out_and_the_log_says_so() {
    let stage = Stage::new();
    let _server = stage.serve(&["--jetstream"]);
    stage.configure(1, KEY, ALL);
    let one = stage.start(1);
    stage.configure(1, KEY, LATER);
    one.weir(&["reload"]);
    until("a generation", is_written);

    stage.configure(2, KEY, ALL);
    let other = stage.start(2);
    assert_eq!(other.in_transition(), 0);
    assert!(other.log().contains("has other backends, weights or states for this pool"), "{}", other.log());
    stage.configure(3, &KEY.replace("00", "11"), LATER);
    let foreign = stage.start(3);
    assert_eq!(foreign.in_transition(), 0);
    assert!(foreign.log().contains("has another cluster key"), "{}", foreign.log());

    stage.configure(4, &format!("{}\n{KEY}", KEY.replace("00", "11")), LATER);
    let between = stage.start(4);
    assert_eq!(between.in_transition(), one.in_transition(), "{}", between.log());
    assert!(between.log().contains("the cluster key is changed"), "{}", between.log());
}

#[test]
fn without_a_store_there_is_a_warning_and_all_else_goes_on() {
    let stage = Stage::new();
    let _server = stage.serve(&[]);
    stage.configure(1, KEY, ALL);
    let one = stage.start(1);
    assert!(one.log().contains("slots in transition cannot be taken over from others: "), "{}", one.log());
    let before = one.backends_of_old_flows();
    stage.configure(1, KEY, LATER);
    one.weir(&["reload"]);
    until("a warning", || one.log().contains("other balancers cannot take over slots in transition: "));
    assert!(one.log().contains("start the NATS servers with JetStream"), "{}", one.log());
    let bus = &one.status()["bus"];
    assert_eq!((&bus["connected"], &bus["caught_up"]), (&Value::Bool(true), &Value::Bool(true)));

    // What the store is for: who has only its configuration sends old flows elsewhere.
    stage.configure(2, KEY, LATER);
    let two = stage.start(2);
    assert_eq!(two.in_transition(), 0);
    assert_ne!(two.backends_of_old_flows(), before);
}

#[test]
fn a_member_of_another_version_does_not_fill_the_log() {
    let stage = Stage::new();
    let _server = stage.serve(&[]);
    stage.configure(1, KEY, ALL);
    let balancer = stage.start(1);
    let mut server = TcpStream::connect("127.0.0.1:4222").expect("it listens");
    let message = "PUB weir.test.tokens 1\r\n\x09\r\n".repeat(200);
    // Who asks is answered after all that came before.
    let asked = format!("CONNECT {{}}\r\nSUB answer 1\r\n{message}PUB weir.test.tokens answer 1\r\n\x09\r\n");
    server.write_all(asked.as_bytes()).expect("it is sent");
    let answered = BufReader::new(server).lines().map_while(Result::ok).any(|line| line.starts_with("MSG answer"));
    assert!(answered, "the balancer takes messages in");
    let log = balancer.log();
    assert_eq!(log.matches("a message on the bus is left out: it is of version 9").count(), 1, "{log}");
}
