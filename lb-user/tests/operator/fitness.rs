//! `/healthz` and the log say when no packet is steered, and why: whoever announces the VIPs goes by it.

use crate::stage::{CONFIG, DEADLINE, Running, Stage, WEIR, sh, text};
use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// The status and the text of `/healthz`.
pub(crate) fn health() -> (String, String) {
    ask("/healthz")
}

/// Likewise of another page.
pub(crate) fn ask(page: &str) -> (String, String) {
    let mut stream = TcpStream::connect("127.0.0.1:9107").expect("it listens");
    let request = format!("GET {page} HTTP/1.1\r\nhost: weir\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
    (status, body.to_owned())
}

pub(crate) fn becomes(status: &str, words: &str) {
    let begun = Instant::now();
    while health() != (status.to_owned(), words.to_owned()) {
        assert!(begun.elapsed() < DEADLINE, "{:?} instead of {words:?}", health());
        thread::sleep(Duration::from_millis(50));
    }
}

fn order(stage: &Stage, order: &str) {
    let socket = stage.socket();
    let done = Command::new(WEIR).args(["backend", order, "b1", "--socket"]).arg(socket).output().expect("weir starts");
    assert!(done.status.success(), "{}", text(&done.stderr));
}

#[test]
fn health_tells_that_and_why_no_packet_is_steered() {
    let stage = Stage::new();
    fs::write(stage.config(), format!("{CONFIG}[metrics]\nlisten = \"127.0.0.1:9107\"\n")).expect("written");
    let mut weir: Running = stage.run();
    becomes("200", "ok\n");

    // Its connections go on, so packets are steered: but new ones are not.
    order(&stage, "drain");
    weir.wait_for("takes new connections any more");
    assert_eq!(health().0, "200");
    order(&stage, "enable");

    sh("ip neigh flush dev weir0");
    stage.in_peer("ip link set peer0 down");
    becomes("503", "no backend can be reached\n");
    weir.wait_for("no packet is steered: no backend can be reached");
    stage.in_peer("ip link set peer0 up");
    becomes("200", "ok\n");
    weir.wait_for("packets are steered again");

    sh("ip link del weir0");
    becomes("503", "there is no XDP program on weir0\n");
}
