//! A balancer of a cluster: it has caught up before `/healthz` says that it is ready, and a lost bus does not make it unfit.

use crate::{
    fitness::{becomes, get, health},
    stage::{CONFIG, Stage, WEIR, text, until},
};
use std::{
    fs,
    net::TcpStream,
    process::{Child, Command, Stdio},
};

const CLUSTER: &str = "[metrics]\nlisten = \"127.0.0.1:9107\"\n[bus]\nservers = [\"nats://127.0.0.1:4222\"]\n\
                       cluster = \"edge1\"\nname = \"lb1\"\n";

struct Server(Child);

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "nats-server", "-a", "127.0.0.1", "-p", "4222"]).args(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self(child.expect("nats-server; `cargo xtask setup` installs it"));
        until("a server", || TcpStream::connect("127.0.0.1:4222").is_ok());
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has(row: &str) -> bool {
    get("/metrics").1.lines().any(|line| line == row)
}

#[test]
fn a_balancer_is_ready_when_it_has_caught_up_and_stays_fit_without_its_bus() {
    let stage = Stage::new();
    fs::write(stage.config(), format!("{CONFIG}{CLUSTER}")).expect("written");
    let server = Server::start(&[]);
    let mut weir = stage.start(WEIR, &stage.run_arguments(), &[]);
    until("an answer", || TcpStream::connect("127.0.0.1:9107").is_ok());
    until("readiness", || health().0 == "200");
    assert!(has("weir_bus_connected 1") && has("weir_bus_caught_up 1"), "{}", weir.log());
    let status = Command::new(WEIR).arg("status").arg("--socket").arg(stage.socket()).output().expect("weir starts");
    assert!(text(&status.stdout).contains("bus of cluster edge1, as lb1: connected, caught up\n"), "{status:?}");

    drop(server);
    until("the loss", || has("weir_bus_connected 0") && has("weir_bus_caught_up 0"));
    weir.wait_for("the bus is lost: goes on alone");
    assert_eq!(health(), ("200".to_owned(), "ok\n".to_owned()));
    weir.end();

    let mut alone = stage.start(WEIR, &stage.run_arguments(), &[]);
    alone.wait_for("the bus is not reached: goes on alone");
    becomes("200", "ok\n");
    assert!(has("weir_bus_connected 0"));
}

#[test]
fn who_is_not_let_in_says_so() {
    let stage = Stage::new();
    fs::write(stage.config(), format!("{CONFIG}{CLUSTER}")).expect("written");
    let _server = Server::start(&["--user", "somebody", "--pass", "else"]);
    let mut weir = stage.start(WEIR, &stage.run_arguments(), &[]);
    weir.wait_for("the bus at nats://127.0.0.1:4222: authorization violation; ");
    becomes("200", "ok\n");
    assert!(has("weir_bus_connected 0"));
}

#[test]
fn who_withdraws_says_so_wherever_one_looks() {
    let stage = Stage::new();
    fs::write(stage.config(), format!("{CONFIG}[metrics]\nlisten = \"127.0.0.1:9107\"\n")).expect("written");
    let mut weir = stage.run();
    let command = |words: &[&str]| {
        let output = Command::new(WEIR).args(words).arg("--socket").arg(stage.socket()).output().expect("weir starts");
        (output.status.success(), text(&output.stdout).to_owned())
    };
    assert!(!command(&["drain-self"]).0, "nobody has what it knows");
    becomes("200", "ok\n");
    assert!(command(&["drain-self", "--force"]).0);
    assert_eq!(health(), ("503".to_owned(), "withdrawn, until `weir drain-self --undo`\n".to_owned()));
    assert!(has("weir_withdrawn 1"));
    assert!(command(&["status"]).1.contains("withdrawn: /healthz answers 503 until `weir drain-self --undo`\n"));
    weir.wait_for("withdrawn: /healthz answers 503");
    assert!(command(&["drain-self", "--undo"]).0);
    assert_eq!(health(), ("200".to_owned(), "ok\n".to_owned()));
    assert!(has("weir_withdrawn 0"));
}
