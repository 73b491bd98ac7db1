//! The command, and what it prints.

use serde::Deserialize;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A line of `--output json`: these fields and no others, but for `error`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Line {
    pub(crate) frame: usize,
    pub(crate) action: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) vip: Option<String>,
    pub(crate) pool: Option<String>,
    pub(crate) backend: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) out: Option<String>,
    #[serde(default)]
    pub(crate) error: Option<String>,
}

pub(crate) const NAMES: [&str; 8] = [
    "lab_cflag_addaddr_port_defaultlimits",
    "lab_csum_backup",
    "lab_fastclose_2subflows",
    "lab_rmaddr",
    "lab_syncookies2_kernelclient",
    "lab_tfo",
    "lab_v1_join_2paths",
    "lab_v4conn_v6join_addaddr6",
];

pub(crate) fn capture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data_path/captures/{name}.pcap"))
}

/// The server of the captures, behind three backends.
pub(crate) const CONFIG: &str = r#"
[balancer]
interface = "eth0"
cluster_key_file = "KEY"

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

/// A folder with a configuration in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With a key that parts the flows of the captures among the backends.
    pub(crate) fn new(key: &str) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = folder.path().join("cluster.key");
        fs::write(&key_file, key).expect("a file");
        fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).expect("its owner's");
        let config = CONFIG.replace("KEY", &key_file.display().to_string());
        fs::write(folder.path().join("weir.toml"), config).expect("a file");
        Self { folder }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    pub(crate) fn weir(&self, arguments: &[&str]) -> Output {
        let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
        weir.arg("explain").arg("--config").arg(self.path("weir.toml")).args(arguments);
        weir.output().expect("weir starts")
    }

    /// What is said of a capture.
    pub(crate) fn explain(&self, capture: &Path, engine: &str) -> Vec<Line> {
        let capture = capture.display().to_string();
        let output = self.weir(&["--pcap", &capture, "--engine", engine, "--output", "json"]);
        assert!(output.status.success(), "{output:?}");
        lines(&output)
    }
}

pub(crate) fn lines(output: &Output) -> Vec<Line> {
    let printed = std::str::from_utf8(&output.stdout).expect("text");
    printed.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Runs a tool of Wireshark's.
pub(crate) fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup` installs it"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}
