//! What every command says: its help, its success, and wrong uses of it. The files in `tests/transcripts` are what was
//! said; `WEIR_TRANSCRIPTS=write` writes them anew, to be read before they are committed.

use crate::stage::{Stage, WEIR, text};
use std::{
    env,
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

const GOOD: &str = r#"[balancer]
interface = "eth0"
[[pool]]
name = "web"
[[pool.backend]]
name = "web1"
address = "10.0.1.1"
[[vip]]
name = "site"
address = "192.0.2.1"
protocol = "tcp"
port = 443
pool = "web"
"#;

const AGENT: &str = r#"[agent]
backend = "web1"
interface = "eth0"
balancers = ["10.0.9.0/24"]
[[vip]]
address = "192.0.2.1"
port = 443
pool = "web"
"#;

/// Every transcript of a folder, in a fixed order.
fn transcripts(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts").join(folder);
    let entries = fs::read_dir(folder).expect("transcripts").flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files
}

/// Says everything again that a transcript has asked, in a directory.
fn replay(transcript: &str, directory: &Path) -> String {
    let questions = transcript.lines().filter_map(|line| line.strip_prefix("$ weir"));
    questions.map(|words| format!("$ weir{words}\n{}", answer(words, directory))).collect::<Vec<_>>().join("\n")
}

/// What a command says, with its exit code where that is not 0. What stands on standard error is marked.
fn answer(words: &str, directory: &Path) -> String {
    let output = Command::new(WEIR)
        .args(words.split_whitespace())
        .current_dir(directory)
        .env_clear()
        .output()
        .expect("weir starts");
    let mut said = text(&output.stdout).to_owned();
    said.extend(text(&output.stderr).lines().map(|line| format!("2> {line}").trim_end().to_owned() + "\n"));
    if let Some(code) = output.status.code().filter(|&code| code != 0) {
        let _ = writeln!(said, "exit {code}");
    }
    let said = said.replace(&format!("{}/", directory.display()), "/folder/");
    said.lines().map(|line| steady(line).trim_end().to_owned() + "\n").collect()
}

/// A line without what is another each time: times, versions, numbers of programs, fingerprints.
fn steady(line: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let line =
        line.replace(&format!("weir {version}"), "weir VERSION").replace(&format!("\"{version}\""), "\"VERSION\"");
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let time = word.trim_end_matches(',');
        let is_time = time.starts_with("20") && time.ends_with('Z') && time.contains('T');
        let before = words.last().map(String::as_str).unwrap_or_default();
        words.push(match word {
            _ if is_time => word.replace(time, "TIME"),
            _ if matches!(before, "up" | "counted") && word.starts_with(|c: char| c.is_ascii_digit()) => "N".to_owned(),
            _ if before == "seen:" => "N".to_owned(),
            _ if before == "Linux" => "RELEASE".to_owned(),
            _ if before == "(program" => "N)".to_owned(),
            _ if before == "fingerprint" => "0123456789abcdef".to_owned(),
            _ => word.to_owned(),
        });
    }
    let line = ["uptime_s", "counted_s_ago", "packets_seen"]
        .iter()
        .fold(words.join(" "), |line, name| json_number(&line, name));
    ["minted_from", "fingerprint"].iter().fold(line, |line, name| json_texts(&line, name))
}

/// A line of JSON with the texts of this name made steady.
fn json_texts(line: &str, name: &str) -> String {
    let key = format!("\"{name}\":\"");
    let mut parts = line.split(&key);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| line + &key + "SOME" + part.find('"').map_or("", |end| &part[end..]))
}

/// A line of JSON with a number of this name made steady.
fn json_number(line: &str, name: &str) -> String {
    let key = format!("\"{name}\":");
    match line.split_once(&key) {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}{key}0{rest}")
        }
        None => line.to_owned(),
    }
}

/// Holds every transcript of a folder against what is said now.
fn hold(folder: &str, directory: &Path) {
    let mut stale = Vec::new();
    for path in transcripts(folder) {
        let before = fs::read_to_string(&path).expect("a transcript");
        let now = replay(&before, directory);
        if env::var_os("WEIR_TRANSCRIPTS").is_some_and(|what| what == "write") {
            fs::write(&path, &now).expect("written");
        } else if before != now {
            stale.push(format!("{}:\n{now}", path.display()));
        }
    }
    assert!(stale.is_empty(), "this is said now:\n{}", stale.join("\n"));
}

#[test]
fn help_and_mistakes_read_as_they_did() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).expect("written");
    file("good.toml", GOOD);
    file("bad.toml", &GOOD.replace("protocol = \"tcp\"", "protocol = \"sctp\"").replace("443", "443000"));
    file(
        "odd.toml",
        &format!("{GOOD}[[pool]]\nname = \"spare\"\n[[pool.backend]]\nname = \"b1\"\naddress = \"10.0.1.1\"\n"),
    );
    file("agent.toml", AGENT);
    file(
        "bad-agent.toml",
        &AGENT.replace("10.0.9.0/24", "10.0.9.1/24").replace("port = 443", "port = 443\nprotocol = \"tcp\""),
    );
    file("odd-agent.toml", &AGENT.replace("10.0.9.0/24", "10.0.9.1/24").replace("web1", "web 1").replace("443", "0"));
    let endpoint = "address = \"10.0.1.1\"\njoin_port = 4501\njoin_address = \"2001:db8::1001\"";
    let ways = GOOD.replace("address = \"10.0.1.1\"", endpoint);
    file("endpoints.toml", &ways.replacen("[[pool]]", "[[pool]]\njoin = [\"endpoint\"]", 1));
    file("readable.secret", "");
    file("text.secret", "hunter2\n");
    fs::set_permissions(folder.path().join("readable.secret"), Permissions::from_mode(0o640)).expect("rights");
    fs::set_permissions(folder.path().join("text.secret"), Permissions::from_mode(0o600)).expect("rights");
    fs::create_dir(folder.path().join("folder")).expect("a folder");
    hold("", folder.path());
}

#[test]
fn a_running_balancer_answers_as_it_did() {
    let stage = Stage::new();
    crate::stage::sh("ethtool -K weir0 rxvlan off");
    let weir = stage.run();
    hold("running", stage.folder.path());
    assert_eq!(weir.end().0, Some(0));
}

/// Every command has a transcript of its help and five mistakes at least.
#[test]
fn every_command_has_a_transcript() {
    let output = Command::new(WEIR).arg("--help").output().expect("weir starts");
    let help = text(&output.stdout);
    let (_, rest) = help.split_once("Commands:\n").expect("it lists them");
    let names = rest.lines().take_while(|line| !line.is_empty()).filter_map(|line| line.split_whitespace().next());
    let files = transcripts("");
    for name in names.filter(|name| *name != "help") {
        let Some(path) = files.iter().find(|path| path.file_stem().is_some_and(|stem| stem == name)) else {
            panic!("no transcript of `weir {name}`");
        };
        let transcript = fs::read_to_string(path).expect("a transcript");
        assert!(transcript.starts_with(&format!("$ weir {name} --help\n")), "{name}");
        let mistakes = transcript.lines().filter(|line| line.starts_with("exit ")).count();
        assert!(mistakes >= 5, "{name}: {mistakes} mistakes");
    }
}
