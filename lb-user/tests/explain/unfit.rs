//! Frames that cannot be explained, time, and wrong uses.

use crate::{
    captured::{capture, tool},
    weir::{Line, Place, lines},
};
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
};
use std::{fs::File, path::Path, time::Duration};

const KEY: &str = "00112233445566778899aabbccddeeff";
const NAME: &str = "lab_v1_join_2paths";

fn frame(source: [u8; 4], port: u16, data: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(source, [10, 61, 9, 9], 64)
        .tcp(port, 8000, 77, 512)
        .syn();
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![0; data]).expect("a packet");
    bytes
}

fn write(path: &Path, link: DataLink, frames: &[(u64, Vec<u8>)]) {
    let header = PcapHeader { datalink: link, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(File::create(path).expect("a file"), header).expect("a header");
    for (millis, frame) in frames {
        let len = u32::try_from(frame.len()).expect("short");
        writer.write_packet(&PcapPacket::new(Duration::from_millis(*millis), len, frame)).expect("a packet");
    }
}

/// The same packets, cut by the capture: what is decided stays, as long as the headers are there.
#[test]
fn frames_that_the_capture_has_cut_are_explained_or_say_why_not() {
    let place = Place::new(KEY);
    let cut = place.path("cut.pcap");
    let whole = place.explain(&capture(NAME), "host");
    let sizes: Vec<usize> = whole.iter().map(|line| line.out.as_ref().map_or(0, String::len)).collect();
    for len in [120, 70] {
        tool(
            "editcap",
            &["-F", "pcap", "-s", &len.to_string(), &capture(NAME).display().to_string(), &cut.display().to_string()],
        );
        for engine in ["kernel", "host"] {
            let mut refused = 0;
            for ((line, whole), size) in place.explain(&cut, engine).iter().zip(&whole).zip(&sizes) {
                if let Some(error) = &line.error {
                    refused += 1;
                    assert!(error.contains(&format!("the capture has {len} of ")), "{error}");
                    assert_eq!((&line.action, &line.reason, &line.out), (&None, &None, &None));
                    continue;
                }
                if refused > 0 {
                    // What the refused one would have left in the tables is missing from here on.
                    continue;
                }
                let without_out = |line: &Line| Line { out: None, ..line.clone() };
                assert_eq!(without_out(line), without_out(whole));
                assert_eq!(line.out.as_ref().map_or(0, String::len), (*size).min(2 * (len + 20)), "what is sent of it");
            }
            assert_eq!(refused > 0, len == 70, "only the shorter one cuts headers");
        }
    }
}

#[test]
fn other_link_types_are_explained_or_say_why_not() {
    let place = Place::new(KEY);
    let path = place.path("link.pcap");
    let whole = frame([10, 61, 1, 1], 1000, 0);
    let outcome = |link, bytes: Vec<u8>| {
        write(&path, link, &[(0, bytes)]);
        place.explain(&path, "host").remove(0)
    };
    let expected = outcome(DataLink::ETHERNET, whole.clone());
    assert_eq!(expected.reason.as_deref(), Some("ring_new"));
    assert_eq!(outcome(DataLink::LINUX_SLL, [&[0; 14][..], &whole[12..]].concat()), expected);
    assert_eq!(outcome(DataLink::RAW, whole[14..].to_vec()), expected);
    write(&path, DataLink::IEEE802_11, &[(0, whole)]);
    let refused = place.weir(&["--pcap", &path.display().to_string(), "--engine", "host", "--output", "json"]);
    let error = lines(&refused).remove(0).error;
    assert!(error.is_some_and(|error| error.contains("carries no Ethernet")), "it says why");
    assert_eq!(refused.status.code(), Some(1), "nothing at all was explained: {refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        said.starts_with(&format!("weir: {}: 0 of 1 frames could be explained; each says why", path.display())),
        "{said}"
    );
}

/// A client's network has a budget of entries in each tick of 1.07 s: by the capture's time, not by the clock on the wall.
#[test]
fn time_is_the_captures() {
    let place = Place::new(KEY);
    let config = std::fs::read_to_string(place.path("weir.toml")).expect("text");
    let limited = format!("{config}\n[limits]\nentries_per_network = 1\n");
    std::fs::write(place.path("weir.toml"), limited).expect("a file");
    let connections = tool(
        "tshark",
        &[
            "-r",
            &capture(NAME).display().to_string(),
            "-T",
            "jsonraw",
            "-j",
            "frame",
            "-Y",
            "tcp.dstport == 8000 && tcp.options.mptcp.subtype == 0",
        ],
    );
    let frames: Vec<serde_json::Value> = serde_json::from_str(&connections).expect("JSON");
    let hex = |i: usize| frames[i]["_source"]["layers"]["frame_raw"][0].as_str().expect("digits").to_owned();
    // The same handshake from three ports: the client's port is the first word behind the IPv4 header.
    let from_port = |i: usize, port: u16| {
        let hex = hex(i);
        let mut bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits")).collect();
        bytes[34..36].copy_from_slice(&port.to_be_bytes());
        bytes
    };
    let path = place.path("time.pcap");
    for (step_ms, over) in [(10, 2), (5000, 0)] {
        let handshake = |port: u16| [0, 1].map(|i| (u64::from(port) * step_ms, from_port(i, port)));
        let frames: Vec<_> = [1000, 1001, 1002].into_iter().flat_map(handshake).collect();
        write(&path, DataLink::ETHERNET, &frames);
        for engine in ["kernel", "host"] {
            let reasons: Vec<_> = place.explain(&path, engine).into_iter().filter_map(|line| line.reason).collect();
            let count = |reason| reasons.iter().filter(|word| *word == reason).count();
            assert_eq!((count("ring_new"), count("learn_over_budget")), (3, over), "{engine}: {reasons:?}");
        }
    }
}

#[test]
fn a_capture_that_was_cut_off_is_explained_up_to_there() {
    let place = Place::new(KEY);
    for (name, format) in [("cut.pcap", "pcap"), ("cut.pcapng", "pcapng")] {
        let path = place.path(name);
        tool("editcap", &["-F", format, &capture(NAME).display().to_string(), &path.display().to_string()]);
        let bytes = std::fs::read(&path).expect("a file");
        std::fs::write(&path, &bytes[..bytes.len() - 9]).expect("a file");
        let (whole, cut) = (place.explain(&capture(NAME), "host"), place.explain(&path, "host"));
        let (last, before) = cut.split_last().expect("frames");
        assert!(last.error.as_ref().is_some_and(|error| error.contains("damaged from here on")), "{last:?}");
        assert!(before.len() > 5);
        assert_eq!(before, &whole[..before.len()]);
    }
}

#[test]
fn a_capture_without_packets_is_an_error_in_words() {
    let place = Place::new(KEY);
    for format in ["pcap", "pcapng"] {
        let path = place.path("none.pcap").display().to_string();
        // Packets 1 to 10000 are left out.
        tool("editcap", &["-F", format, &capture(NAME).display().to_string(), &path, "1-10000"]);
        for output in ["human", "json"] {
            let said = place.weir(&["--pcap", &path, "--engine", "host", "--output", output]);
            assert_eq!(said.status.code(), Some(1));
            let errors = String::from_utf8_lossy(&said.stderr);
            assert!(errors.starts_with(&format!("weir: {path}: the capture holds no packet")), "{errors}");
            assert!(said.stdout.is_empty());
        }
    }
}

fn fails(arguments: &[&str], words: &str) {
    let output = Place::new(KEY).weir(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains(words), "{arguments:?}: {stderr}");
}

#[test]
fn wrong_uses_say_what_to_do() {
    let place = Place::new(KEY);
    let text = place.path("weir.toml").display().to_string();
    fails(&[], "<--flow <CLIENT:PORT,VIP:PORT>|--pcap <FILE>|--packet <HEX>>");
    fails(&["--pcap", "/nowhere/x.pcap"], "/nowhere/x.pcap: No such file");
    fails(&["--pcap", &text], "neither pcap nor pcapng");
    fails(&["--pcap", "/dev/null"], "/dev/null: the file is empty; `tcpdump -w FILE` writes what is read here");
    fails(&["--packet", "02zz"], "--packet 1: `z` is no hexadecimal digit");
    fails(&["--packet", "020"], "--packet 1: 3 hexadecimal digits are no whole bytes");
    let output = place.weir(&["--packet", "0200", "--engine", "host", "--output", "json"]);
    assert!(lines(&output)[0].error.as_ref().is_some_and(|error| error == "2 bytes are no Ethernet frame"));
    fails(
        &["--packet", "0200", "--packet", "0300", "--engine", "host"],
        "weir: --packet: 0 of 2 frames could be explained",
    );
}

/// What can be explained is worth a success; what cannot is told of beside it.
#[test]
fn some_frames_that_cannot_be_explained_do_not_spoil_the_others() {
    let place = Place::new(KEY);
    let path = place.path("some.pcap");
    write(&path, DataLink::ETHERNET, &[(0, vec![2, 0]), (1, frame([10, 61, 1, 1], 1000, 0))]);
    let output = place.weir(&["--pcap", &path.display().to_string(), "--engine", "host", "--output", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let errors: Vec<bool> = lines(&output).iter().map(|line| line.error.is_some()).collect();
    assert_eq!(errors, [true, false]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("weir: 1 frames could not be explained; each says why"), "{said}");
}
