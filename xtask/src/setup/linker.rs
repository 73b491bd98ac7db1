//! bpf-linker, built against the LLVM of the rustc whose bitcode it links.
//!
//! On Debian it is installed; elsewhere it is only looked for, because the LLVM to build it
//! against comes from the system.

use std::{collections::BTreeSet, path::Path, process::Command, time::Instant};

use anyhow::{Result, anyhow, bail, ensure};
use semver::{Version, VersionReq};

use crate::{
    child, progress,
    setup::{apt::Apt, toolchain::Toolchain},
    workspace,
};

/// What is installed.
const RELEASE: Version = Version::new(0, 13, 0);
/// What serves.
const ACCEPTED: &str = "0.13";

/// Sees to bpf-linker on PATH.
///
/// # Errors
///
/// It is missing and cannot be installed: what to type.
pub(crate) fn set_up(toolchain: Toolchain, llvm_major: u64, apt: &mut Apt) -> Result<()> {
    match installed() {
        Some(version) if serves(&version) => {
            progress::say("Found", format_args!("bpf-linker {version}"));
            return Ok(());
        }
        Some(version) => progress::say("Outdated", format_args!("bpf-linker {version}")),
        None => progress::say("Missing", "bpf-linker"),
    }
    let advice = advice(llvm_major);
    match toolchain {
        Toolchain::Debian => {
            install(llvm_major, apt).map_err(|error| anyhow!("{error:#}\n{advice}"))?;
        }
        Toolchain::Nightly => bail!("there is no bpf-linker {ACCEPTED} on PATH\n{advice}"),
    }
    ensure!(
        installed().is_some_and(|version| serves(&version)),
        "bpf-linker is installed, but not the one on PATH: put cargo's bin directory \
         (usually ~/.cargo/bin) first on PATH"
    );
    Ok(())
}

/// The version of the bpf-linker on PATH, if it runs at all.
fn installed() -> Option<Version> {
    let printed = child::output(Command::new("bpf-linker").arg("--version")).ok()?;
    parse(&printed)
}

/// Reads `bpf-linker 0.13.0`.
fn parse(printed: &str) -> Option<Version> {
    Version::parse(printed.trim().strip_prefix("bpf-linker ")?).ok()
}

fn serves(version: &Version) -> bool {
    VersionReq::parse(ACCEPTED).is_ok_and(|accepted| accepted.matches(version))
}

fn install(llvm_major: u64, apt: &mut Apt) -> Result<()> {
    let prefix = format!("/usr/lib/llvm-{llvm_major}");
    if !Path::new(&prefix).join("lib/libLLVM.so").exists() {
        apt.install(&BTreeSet::from([format!("llvm-{llvm_major}-dev").as_str()]))?;
    }
    let log = workspace::setup_log("bpf-linker");
    let started = Instant::now();
    progress::say("Compiling", format_args!("bpf-linker {RELEASE}, about a minute (log: {})", log.display()));
    let mut cargo = workspace::cargo();
    cargo
        .args(["install", "bpf-linker", "--locked", "--force"])
        .args(["--version", &RELEASE.to_string()])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{llvm_major}"))
        .env("LLVM_PREFIX", prefix)
        .env("RUST_BACKTRACE", "0");
    child::run_logged(&mut cargo, &log)?;
    progress::say_timed("Installed", format_args!("bpf-linker {RELEASE}"), started);
    Ok(())
}

fn advice(llvm_major: u64) -> String {
    format!(
        "to install it by hand, with the development files of LLVM {llvm_major}, type\n  \
         LLVM_PREFIX=/where/llvm-{llvm_major}/is cargo install bpf-linker --locked \
         --version {RELEASE} --no-default-features --features llvm-{llvm_major}\n\
         or see https://github.com/aya-rs/bpf-linker#installation for ready-made ones"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_as_bpf_linker_prints_it() {
        assert_eq!(parse("bpf-linker 0.13.0\n"), Some(Version::new(0, 13, 0)));
        assert_eq!(parse("ld 2.40\n"), None);
    }

    #[test]
    fn patch_releases_serve_and_others_do_not() {
        assert!(serves(&RELEASE));
        assert!(serves(&Version::new(0, 13, 9)));
        assert!(!serves(&Version::new(0, 12, 0)));
        assert!(!serves(&Version::new(0, 14, 0)));
    }

    #[test]
    fn advice_is_a_command_for_that_llvm() {
        assert!(advice(23).contains("--features llvm-23"));
    }
}
