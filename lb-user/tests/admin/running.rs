//! A running balancer that has met a connection with a joined subflow.

use crate::{
    captured::{bytes, capture, hexes, number, token_of, tool},
    http::{answer, ask, ask_by_schema, judge, send},
    stage::{Stage, play},
};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
};

const NAMES: [&str; 3] = ["lab_v1_join_2paths", "lab_rmaddr", "lab_csum_backup"];

/// What tshark says of the frames of a capture: a field of each.
fn tshark(capture: &str, field: &str) -> Vec<String> {
    tool("tshark", &["-r", capture, "-T", "fields", "-e", field]).lines().map(str::to_owned).collect()
}

/// A capture in which a subflow joins that the ring would send elsewhere, up to the ACK of its join.
struct Joined {
    path: String,
    /// The place of the join's SYN, and of its ACK.
    join: usize,
    ack: usize,
}

fn joined(stage: &Stage) -> Joined {
    for name in NAMES {
        let path = capture(name).display().to_string();
        let lines = stage.explain_by_config(&path);
        let at = |reason: &str| lines.iter().position(|line| line["reason"] == reason);
        if let (Some(join), Some(ack)) = (at("join_token"), at("joined")) {
            return Joined { path, join, ack };
        }
    }
    panic!("no join of these captures goes elsewhere by the ring");
}

/// The token of the connection: the digest of the server's key, by tshark's word.
fn token(path: &str) -> String {
    let key = tshark(path, "tcp.options.mptcp.recvkey").into_iter().find(|key| !key.is_empty()).expect("a key");
    token_of(number(&key))
}

/// What a status says of packets, which an explanation must not move.
fn packets(status: &Value) -> Vec<Value> {
    let rows = ["vips", "backends"].iter().flat_map(|list| status[list].as_array().expect("a list"));
    rows.map(|row| serde_json::json!([row["reasons"], row["packets"], row["forwarded"]])).collect()
}

#[test]
fn flows_and_tokens_are_told_and_joins_explained_without_a_trace() {
    let mut stage = Stage::new("");
    let Joined { path, join, ack } = joined(&stage);
    let (ports, hexes, token) = (tshark(&path, "tcp.dstport"), hexes(&path), token(&path));
    let frames: Vec<_> =
        ports.iter().zip(&hexes).take(ack + 1).filter(|(port, _)| *port == "8000").map(|(_, hex)| bytes(hex)).collect();
    stage.start();
    play(&frames);
    let count = u64::try_from(frames.len()).expect("few");
    let forwarded = |stage: &Stage| stage.json(&["status"])[0]["vips"][0]["forwarded"].as_u64();
    stage.wait("forwards them all", |stage| forwarded(stage) == Some(count));

    let tokens = &stage.json(&["tokens", "--sample", "10"])[0]["samples"];
    assert_eq!(tokens.as_array().map(Vec::len), Some(1), "{tokens}");
    assert_eq!(
        (&tokens[0]["token"], &tokens[0]["pool"], &tokens[0]["ambiguous"]),
        (&token.into(), &"web".into(), &false.into())
    );
    let home = tokens[0]["holders"][0]["backend"].clone();
    let flows = &stage.json(&["flows", "--sample", "10"])[0]["samples"];
    assert_eq!(flows.as_array().map(Vec::len), Some(1), "{flows}");
    assert_eq!((&flows[0]["table"], &flows[0]["backend"]), (&"joined_flows".into(), &home));
    stage.wait("counts them", |stage| {
        let (tokens, flows) = (&stage.json(&["tokens"])[0], &stage.json(&["flows"])[0]);
        tokens["entries"] == 1 && tokens["backends"][0]["backend"] == home && flows["backends"][0]["joined"] == 1
    });

    let before = stage.json(&["status"]).remove(0);
    for engine in ["kernel", "host"] {
        // Another port of the client's, of which the balancer knows nothing: the token alone tells.
        let again = stage.json(&["explain", "--packet", &other_port(&hexes[join]), "--engine", engine]).remove(0);
        assert_eq!(
            (&again["reason"], &again["backend"], &again["action"]),
            (&"join_token".into(), &home, &"tx".into())
        );
        let later = stage.json(&["explain", "--packet", &hexes[ack], "--engine", engine]).remove(0);
        assert_eq!((&later["reason"], &later["backend"]), (&"flow".into(), &home), "its entry is known");
    }
    let lines = stage.json(&["explain", "--pcap", &capture("lab_tfo").display().to_string()]);
    assert!(lines.iter().any(|line| line["reason"] == "learned"));
    let after = stage.json(&["status"]).remove(0);
    assert_eq!(packets(&before), packets(&after), "an explanation moved a counter");
    assert_eq!(stage.json(&["tokens", "--sample", "10"])[0]["samples"].as_array().map(Vec::len), Some(1));

    answers_are_as_the_schema_says(&stage, &hexes[join]);
}

fn other_port(hex: &str) -> String {
    let mut frame = bytes(hex);
    frame[34] ^= 0x01;
    frame.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

fn answers_are_as_the_schema_says(stage: &Stage, frame: &str) {
    let socket = stage.socket();
    for (path, query) in [("/v1/status", ""), ("/v1/flows", "?sample=1000"), ("/v1/tokens", "?sample=5")] {
        ask_by_schema(&socket, "GET", path, query, "");
    }
    let body = format!(r#"{{"frames": [{{"hex": "{frame}"}}, {{"error": "cut"}}, {{"hex": "0g"}}]}}"#);
    let explained = ask_by_schema(&socket, "POST", "/v1/explain", "", &body);
    assert_eq!(explained["frames"][1]["line"]["error"], "cut");

    for (method, path, body, status, words) in [
        ("GET", "/v2/status", "", 404, "there is /v1/status"),
        ("GET", "/v1/status?fast", "", 400, "no parameter `fast`"),
        ("GET", "/v1/flows?sample=1001", "", 400, "more than 1000"),
        ("GET", "/v1/flows?sample=-1", "", 400, "`-1` is no value for `sample`"),
        ("POST", "/v1/explain", "{}", 400, "these are no frames"),
        ("DELETE", "/v1/flows", "", 405, "answers to GET only"),
    ] {
        let answer = ask(&socket, method, path, body);
        assert_eq!(answer.status, status, "{method} {path}");
        assert!(answer.body["error"].as_str().is_some_and(|error| error.contains(words)), "{}", answer.body);
        assert_eq!(answer.allow.as_deref(), (status == 405).then_some("GET"));
        judge("GET", "/v1/flows", "default", &answer.body);
    }
}

#[test]
fn who_only_connects_takes_no_file_from_the_health_checks_and_keeps_nobody_out() {
    let mut stage = Stage::new("");
    stage.start();
    let before = stage.open_files();
    let idle: Vec<_> = (0..500).map(|_| UnixStream::connect(stage.socket()).expect("it listens")).collect();
    assert_eq!(ask(&stage.socket(), "GET", "/v1/status", "").status, 200, "what comes last is answered");
    let taken = stage.open_files() - before;
    assert!(taken < 100, "{} connections have taken {taken} files", idle.len());
}

/// More of them than there may be connections, and whoever asked stays connected; fewer at a time, so that none has to make
/// room before it is heard.
#[test]
fn one_traces_and_any_number_of_others_keep_no_command_out() {
    const TRACE: &str = "/v1/trace?seconds=600";
    let mut stage = Stage::new("");
    stage.start();
    let first = BufReader::new(send(&stage.socket(), "POST", TRACE, ""));
    let mut told = first.lines().map(|line| line.expect("a line"));
    assert!(told.any(|line| line.contains(r#""kind":"begin""#)), "it does not begin");

    let mut connected = Vec::new();
    for _ in 0..4 {
        let others: Vec<_> = (0..32).map(|_| send(&stage.socket(), "POST", TRACE, "")).collect();
        for other in &others {
            let refused = answer(other, TRACE);
            assert_eq!(refused.status, 409, "{}", refused.body);
            assert!(refused.body["error"].as_str().is_some_and(|error| error.contains("wait for its end")));
        }
        connected.extend(others);
    }
    for command in [&["status"][..], &["backend", "drain", "b1"], &["reload"]] {
        let said = stage.weir(command);
        assert!(said.status.success(), "{command:?} beside {} traces: {said:?}", connected.len());
    }
    assert_eq!(ask(&stage.socket(), "POST", TRACE, "").status, 409, "the first goes on");
}

#[test]
fn the_socket_is_its_owners_and_the_groups_that_is_named() {
    let mode = |stage: &Stage| {
        let of = fs::metadata(stage.socket()).expect("a socket");
        (of.permissions().mode() & 0o777, of.gid())
    };
    let mut alone = Stage::new("");
    alone.start();
    assert_eq!(mode(&alone).0, 0o600);
    drop(alone);
    let group = nix::unistd::Group::from_name("daemon").expect("groups").expect("every system has it");
    let mut shared = Stage::new("group = \"daemon\"");
    shared.start();
    assert_eq!(mode(&shared), (0o660, group.gid.as_raw()));
    drop(shared);
    let said = Stage::new("group = \"nobody-is-here\"").fail_to_start();
    assert!(said.contains("there is no group `nobody-is-here`") && said.contains("groupadd"), "{said}");
}
