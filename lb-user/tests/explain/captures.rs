//! Every packet of every capture.

use crate::{
    captured::{bytes, capture, hexes, number, token_of, tool},
    weir::{Line, NAMES, Place},
};
use etherparse::{NetSlice, SlicedPacket};
use std::{collections::BTreeMap, path::Path};

/// Two, so that what goes by chance does not go right in both.
const KEYS: [&str; 2] = ["00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221101"];

/// A packet as tshark reads it.
#[derive(Clone, Debug)]
struct Seen {
    to_server: bool,
    is_syn: bool,
    /// Of the subflow.
    stream: String,
    /// The MPTCP connection, once tshark knows it.
    connection: String,
    /// The token of a join.
    token: Option<String>,
    /// The server's key, as a client echoes it.
    key: Option<u64>,
    hex: String,
}

const FIELDS: [&str; 9] = [
    "tcp.dstport",
    "tcp.flags.syn",
    "tcp.flags.ack",
    "tcp.stream",
    "mptcp.stream",
    "tcp.options.mptcp.recvtok",
    "tcp.options.mptcp.recvkey",
    "tcp.options.mptcp.subtype",
    "frame.number",
];

fn seen_by_tshark(capture: &Path) -> Vec<Seen> {
    let path = capture.display().to_string();
    let mut arguments = vec!["-r", &path, "-T", "fields", "-E", "separator=;"];
    arguments.extend(FIELDS.iter().flat_map(|field| ["-e", field]));
    let printed = tool("tshark", &arguments);
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split(';').collect()).collect();
    // A subflow's connection is known from its keys or its join on; what comes before is its too.
    let known = rows.iter().filter(|row| !row[4].is_empty());
    let connections: BTreeMap<&str, &str> = known.rev().map(|row| (row[3], row[4])).collect();
    let is = |flag: &str| matches!(flag, "1" | "True");
    let hexes = hexes(&path);
    assert_eq!(hexes.len(), rows.len());
    let seen = |(row, hex): (&Vec<&str>, String)| Seen {
        to_server: matches!(row[0], "8000" | "8001"),
        is_syn: is(row[1]) && !is(row[2]),
        stream: row[3].to_owned(),
        connection: connections.get(row[3]).map(|&connection| connection.to_owned()).unwrap_or_default(),
        token: (!row[5].is_empty()).then(|| format!("{:08x}", number(row[5]))),
        // MP_FASTCLOSE has one too.
        key: (!row[6].is_empty() && row[7].split(',').any(|subtype| subtype == "0")).then(|| number(row[6])),
        hex,
    };
    rows.iter().zip(hexes).map(seen).collect()
}

/// The tunnel goes to the backend that is named, and the client's packet in it is untouched.
fn judge_out(line: &Line, seen: &Seen) {
    let out = bytes(line.out.as_ref().expect("a frame was sent"));
    let packet = SlicedPacket::from_ethernet(&out).expect("a packet");
    let Some(NetSlice::Ipv4(tunnel)) = packet.net else { panic!("{line:?}") };
    let number = line.backend.as_ref().and_then(|name| name.strip_prefix('b')).expect("a backend of the farm");
    assert_eq!(tunnel.header().destination_addr().to_string(), format!("10.0.1.{number}"));
    assert_eq!(out[..6], [2, 0, 0, 0, 0, number.parse().expect("a digit")], "the placeholder for its MAC address");
    assert_eq!(out[14 + 20..], bytes(&seen.hex)[14..], "the packet in the tunnel changed");
}

/// What tshark says must be said of a client's packet. `homes` are the connections' backends.
fn judge(line: &Line, seen: &Seen, homes: &mut BTreeMap<String, String>) {
    let is_v6 = bytes(&seen.hex)[12..14] == [0x86, 0xdd];
    assert_eq!(line.vip.as_deref(), Some(if is_v6 { "web-v6" } else { "web-v4" }));
    assert_eq!((line.pool.as_deref(), line.action.as_deref()), (Some("web"), Some("tx")), "{line:?}");
    let backend = line.backend.clone().expect("a backend");
    assert_ne!(seen.connection, "", "tshark knows every connection: {seen:?}");
    let home = homes.entry(seen.connection.clone()).or_insert_with(|| backend.clone());
    assert_eq!(*home, backend, "a packet went to another backend than its connection's: {line:?} {seen:?}");
    let token = match (&seen.token, seen.key) {
        (Some(token), _) if seen.is_syn => Some(token.clone()),
        (_, Some(key)) => Some(token_of(key)),
        _ => None,
    };
    assert_eq!(line.token, token, "{seen:?}");
    let reason = line.reason.as_deref().expect("a reason");
    assert_eq!(reason == "join_token", seen.is_syn && seen.token.is_some(), "{line:?}");
    assert_eq!(matches!(reason, "learned" | "learn_repeated"), seen.key.is_some(), "{line:?}");
    judge_out(line, seen);
}

#[test]
fn every_client_packet_goes_to_its_connections_backend_by_tsharks_word() {
    let mut joined_elsewhere = 0;
    for key in KEYS {
        let place = Place::new(key);
        for name in NAMES {
            let seen = seen_by_tshark(&capture(name));
            let lines = place.explain(&capture(name), "host");
            // A load of the program takes its time, so under one key.
            if key == KEYS[0] {
                assert_eq!(lines, place.explain(&capture(name), "kernel"), "{name}: the engines differ");
            }
            assert_eq!(lines.len(), seen.len(), "{name}: a line for each frame");
            let mut homes = BTreeMap::new();
            for (number, (line, seen)) in (1..).zip(lines.iter().zip(&seen)) {
                assert_eq!(line.frame, number);
                assert_eq!(line.error, None);
                if seen.to_server {
                    judge(line, seen, &mut homes);
                } else {
                    let expected = (Some("pass"), Some("not_vip"), &None, &None);
                    assert_eq!((line.action.as_deref(), line.reason.as_deref(), &line.vip, &line.out), expected);
                }
            }
            assert!(!homes.is_empty(), "{name} has a connection");
            joined_elsewhere += lines.iter().filter(|line| line.reason.as_deref() == Some("joined")).count();
            let streams = seen.iter().filter(|seen| seen.is_syn && seen.token.is_some()).map(|seen| &seen.stream);
            assert!(streams.count() > 0, "{name} has a join");
        }
    }
    assert!(joined_elsewhere > 0, "some join would have gone elsewhere by the ring");
}

#[test]
fn a_capture_in_the_other_format_is_the_same() {
    let place = Place::new(KEYS[0]);
    for name in ["lab_v1_join_2paths", "lab_v4conn_v6join_addaddr6"] {
        let converted = place.path("capture.pcapng");
        let (from, to) = (capture(name).display().to_string(), converted.display().to_string());
        tool("editcap", &["-F", "pcapng", &from, &to]);
        assert_eq!(place.explain(&converted, "host"), place.explain(&capture(name), "host"), "{name}");
    }
}

#[test]
fn packets_on_the_command_line_are_as_those_of_a_capture() {
    let place = Place::new(KEYS[0]);
    let seen = seen_by_tshark(&capture("lab_v1_join_2paths"));
    let mut arguments = vec!["--engine", "host", "--output", "json"];
    arguments.extend(seen.iter().flat_map(|seen| ["--packet", &seen.hex]));
    let output = place.weir(&arguments);
    assert_eq!(crate::weir::lines(&output), place.explain(&capture("lab_v1_join_2paths"), "host"));
}

#[test]
fn the_story_names_vip_slot_token_and_backend_and_no_key() {
    let place = Place::new(KEYS[0]);
    let path = capture("lab_v1_join_2paths").display().to_string();
    let output = place.weir(&["--pcap", &path, "--engine", "host"]);
    let story = String::from_utf8(output.stdout).expect("text");
    let join =
        seen_by_tshark(&capture("lab_v1_join_2paths")).into_iter().find(|seen| seen.is_syn && seen.token.is_some());
    let token = join.and_then(|join| join.token).expect("a join");
    for words in [
        "for VIP web-v4, served by pool web",
        "of the pool's ring is b",
        &format!("learned: token {token} names this connection, on b"),
        &format!("token {token} names a connection on b"),
        "join_token: A joining SYN whose token is known.",
        "=> sent to b",
        "next hop 02:00:00:00:HH:LL stands for",
        "a server's packet to its client",
    ] {
        assert!(story.contains(words), "{words}:\n{story}");
    }
    for seen in seen_by_tshark(&capture("lab_v1_join_2paths")) {
        assert!(seen.key.is_none_or(|key| !story.contains(&format!("{key:016x}"))), "a key is told");
    }
}

#[test]
fn the_readme_shows_what_is_really_said() {
    let place = Place::new(KEYS[0]);
    let config = std::fs::read_to_string(place.path("weir.toml")).expect("text");
    let without_key: Vec<_> = config.lines().filter(|line| !line.starts_with("cluster_key_file")).collect();
    std::fs::write(place.path("weir.toml"), without_key.join("\n")).expect("a file");
    let path = capture("lab_fastclose_2subflows").display().to_string();
    let output = place.weir(&["--pcap", &path, "--engine", "host"]);
    let said = String::from_utf8(output.stdout).expect("text");
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("text");
    let (_, rest) = readme.split_once("\n```text\n").expect("the README shows what is said");
    let (shown, _) = rest.split_once("\n```").expect("the block ends");
    for frame in shown.split("\n\n") {
        assert!(said.contains(frame), "the README shows\n{frame}\nbut what is said is\n{said}");
    }
}
