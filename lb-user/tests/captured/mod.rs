//! The captures of stock kernels, the service that their server stands for in a configuration, and the tools that read
//! them. More than one crate of tests has this module.

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// The server of the captures, behind three backends.
pub(crate) const SERVICE: &str = r#"
[[pool]]
name = "web"
backend = [
    { name = "b1", address = "10.0.1.1" },
    { name = "b2", address = "10.0.1.2" },
    { name = "b3", address = "10.0.1.3" },
]

[[vip]]
name = "web-v4"
address = "10.61.9.9"
protocol = "tcp"
port = "8000-8001"
pool = "web"

[[vip]]
name = "web-v6"
address = "fd61:9::9"
protocol = "tcp"
port = "8000-8001"
pool = "web"
"#;

pub(crate) fn capture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data_path/captures/{name}.pcap"))
}

/// A file with a cluster key, in hexadecimal.
pub(crate) fn key_file(folder: &Path, key: &str) -> PathBuf {
    let path = folder.join("cluster.key");
    fs::write(&path, key).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("its owner's");
    path
}

/// Runs a tool of Wireshark's.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The bytes of each frame, as tshark dumps them.
pub(crate) fn hexes(capture: &str) -> Vec<String> {
    let json = tool("tshark", &["-r", capture, "-T", "jsonraw", "-j", "frame"]);
    let frames: Vec<Value> = serde_json::from_str(&json).expect("JSON");
    let raw = |frame: &Value| frame["_source"]["layers"]["frame_raw"][0].as_str().map(str::to_owned);
    frames.iter().map(|frame| raw(frame).unwrap_or_else(|| panic!("{frame}"))).collect()
}

/// The token of an MPTCP connection: the digest of its server's key, in hexadecimal.
pub(crate) fn token_of(key: u64) -> String {
    Sha256::digest(key.to_be_bytes()).iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

/// A number as tshark prints it: decimal, or `0x` and hexadecimal.
pub(crate) fn number(word: &str) -> u64 {
    let parsed = word.strip_prefix("0x").map_or_else(|| word.parse(), |hex| u64::from_str_radix(hex, 16));
    parsed.unwrap_or_else(|error| panic!("tshark printed {word:?}: {error}"))
}

/// A frame out of its digits.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("digits")).collect()
}
