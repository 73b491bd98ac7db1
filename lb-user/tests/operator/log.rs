//! The log of `weir run`: for people, as JSON, and as fields of a journal, which is a socket of the test's.

use crate::stage::{DEADLINE, Stage, WEIR, word};
use nix::sys::signal::Signal;
use std::{
    fs,
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
};

fn with(stage: &Stage, further: &[&str]) -> Vec<String> {
    stage.run_arguments().into_iter().chain(further.iter().map(ToString::to_string)).collect()
}

#[test]
fn a_line_is_for_people_unless_json_is_asked_for() {
    let stage = Stage::new();
    let weir = stage.run();
    weir.signal(Signal::SIGHUP);
    let mut weir = weir;
    weir.wait_for("reloaded: ");
    let (code, log) = weir.end();
    assert_eq!(code, Some(0), "{log}");
    for line in log.lines() {
        let (time, rest) = line.split_once(' ').expect("a time and the rest");
        assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
        assert!(rest.trim_start().starts_with("INFO "), "{line}");
    }
    assert!(log.contains("the backend is reached backend=\"b1\" address=10.77.0.2 interface=\"weir0\"\n"), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours in a file: {log}");

    let json = stage.start(WEIR, &with(&stage, &["--log-format", "json"]), &[]);
    let mut json = json;
    json.wait_for("\"ready\"");
    let (_, log) = json.end();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let reached = lines.iter().find(|line| line["message"] == "the backend is reached").expect("such a line");
    assert_eq!((&reached["level"], &reached["backend"]), (&"INFO".into(), &"b1".into()));
    assert_eq!((&reached["address"], &reached["interface"]), (&"10.77.0.2".into(), &"weir0".into()));
}

#[test]
fn only_as_much_is_written_as_asked_for() {
    let stage = Stage::new();
    fs::write(stage.config(), "nonsense").expect("a bad configuration");
    let weir = stage.start(WEIR, &with(&stage, &["--log-level", "error"]), &[]);
    let (code, log) = weir.ended();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.lines().all(|line| line.contains(" ERROR ")) && !log.is_empty(), "{log}");
}

/// The journal's protocol: fields as `NAME=value` lines, or a name, the value's length in eight bytes and the value.
fn fields(entry: &[u8]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut rest = entry;
    let mut fields = Vec::new();
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if let Some(equals) = line.iter().position(|&byte| byte == b'=') {
            fields.push((text(&line[..equals]), text(&line[equals + 1..])));
            continue;
        }
        let (len, tail) = rest.split_first_chunk().expect("a length");
        let len = usize::try_from(u64::from_le_bytes(*len)).expect("short");
        fields.push((text(line), text(&tail[..len])));
        rest = &tail[len + 1..];
    }
    fields
}

#[test]
fn under_systemd_a_line_is_an_entry_of_the_journal() {
    let stage = Stage::new();
    let path = stage.folder.path().join("journal");
    let journal = UnixDatagram::bind(&path).expect("a socket");
    journal.set_read_timeout(Some(DEADLINE)).expect("a deadline");

    // The journal's socket has a fixed place, so weir gets a /run of its own; and standard error is what JOURNAL_STREAM says.
    let stream = stage.folder.path().join("stderr");
    fs::write(&stream, "").expect("a file");
    let at = fs::metadata(&stream).expect("its place");
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal && touch /run/systemd/journal/socket && \
                  mount --bind \"$1\" /run/systemd/journal/socket && out=$2 && shift 2 && exec \"$@\" 2>>\"$out\"";
    let mut arguments: Vec<String> = ["--mount", "sh", "-c", script, "sh"].map(str::to_owned).to_vec();
    arguments.extend([word(&path), word(&stream), WEIR.to_owned()]);
    arguments.extend(stage.run_arguments());
    let weir = stage.start("unshare", &arguments, &[("JOURNAL_STREAM", format!("{}:{}", at.dev(), at.ino()))]);

    let mut reached = None;
    loop {
        let mut entry = vec![0; 65536];
        let len = journal.recv(&mut entry).unwrap_or_else(|error| panic!("{error}: {}", weir.log()));
        if len == 0 {
            // A look whether anybody is there.
            continue;
        }
        let fields = fields(&entry[..len]);
        let value = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        assert_eq!(value("SYSLOG_IDENTIFIER").as_deref(), Some("weir"), "{fields:?}");
        match value("MESSAGE").as_deref() {
            Some("ready") => break,
            Some("the backend is reached") => reached = Some((value("WEIR_BACKEND"), value("PRIORITY"))),
            _ => {}
        }
    }
    // "info" is 6 to syslog, "notice" 5, which is what a change of this importance is to the journal.
    assert_eq!(reached, Some((Some("b1".to_owned()), Some("5".to_owned()))));
    assert_eq!(fs::read_to_string(&stream).expect("standard error"), "");
    assert_eq!(weir.end().0, Some(0));
}
