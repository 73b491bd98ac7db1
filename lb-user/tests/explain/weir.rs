//! The command, and what it prints.

use crate::captured::{SERVICE, key_file};
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

/// A folder with a configuration in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// With a key that parts the flows of the captures among the backends.
    pub(crate) fn new(key: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let key_file = key_file(folder.path(), key).display().to_string();
        let balancer = format!("[balancer]\ninterface = \"eth0\"\ncluster_key_file = {key_file:?}\n");
        fs::write(folder.path().join("weir.toml"), balancer + SERVICE).expect("a file");
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
