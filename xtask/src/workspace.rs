//! Where things are in this checkout, and how cargo is called on it.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::Result;

use crate::{child, progress::say_timed};

/// Crates whose binaries the chores run: `weir` and `weir-lab`.
const PROGRAMS: [&str; 2] = ["lb-user", "weir-lab"];

/// How the host crates are compiled.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// Quick to compile; tests use it.
    Dev,
    /// What is measured and shown.
    Release,
}

impl Profile {
    fn directory(self) -> &'static str {
        match self {
            Self::Dev => "debug",
            Self::Release => "release",
        }
    }
}

/// The directory of the workspace's Cargo.toml.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// Cargo's target directory: this very program was built into `TARGET/debug`.
pub(crate) fn target() -> PathBuf {
    env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.parent()?.to_path_buf()))
        .unwrap_or_else(|| root().join("target"))
}

/// The log file of one of setup's long steps.
pub(crate) fn setup_log(name: &str) -> PathBuf {
    target().join("setup").join(name).with_extension("log")
}

/// The cargo that runs xtask.
pub(crate) fn cargo_path() -> PathBuf {
    env::var_os("CARGO")
        .map(PathBuf::from)
        .or_else(|| which::which("cargo").ok())
        .unwrap_or_else(|| PathBuf::from("cargo"))
}

/// That cargo, at the root of the workspace.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(cargo_path());
    cargo.current_dir(root());
    cargo
}

/// One of our own programs, as [`build`] leaves it.
pub(crate) fn binary(profile: Profile, name: &str) -> Command {
    Command::new(target().join(profile.directory()).join(name))
}

/// Builds `weir`, with the eBPF object in it, and `weir-lab`.
///
/// # Errors
///
/// Cargo fails; it has said why.
pub(crate) fn build(profile: Profile) -> Result<()> {
    let started = Instant::now();
    let mut cargo = cargo();
    cargo.arg("build");
    if let Profile::Release = profile {
        cargo.arg("--release");
    }
    for program in PROGRAMS {
        cargo.args(["--package", program]);
    }
    child::run(&mut cargo)?;
    say_timed("Built", "weir and weir-lab", started);
    Ok(())
}
