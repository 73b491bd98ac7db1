//! `cargo xtask deny`: the crates against `deny.toml`, by cargo-deny, which is compiled once.
//!
//! It is a chore of its own: compiling cargo-deny takes minutes, which no test should wait for.

use std::{process::Command, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    child,
    progress::{say, say_timed},
    workspace,
};

/// What is installed.
const RELEASE: &str = "0.20.2";

/// Judges the crates.
///
/// # Errors
///
/// cargo-deny cannot be installed, or finds fault.
pub(crate) fn deny(advisories: bool) -> Result<()> {
    if child::output(Command::new("cargo-deny").arg("--version")).is_err() {
        install().context("cannot install cargo-deny")?;
    }
    let mut cargo = workspace::cargo();
    cargo.args(["deny", "--locked", "check", "--deny", "warnings", "licenses", "bans", "sources"]);
    child::run(cargo.args(advisories.then_some("advisories")))
}

fn install() -> Result<()> {
    let log = workspace::setup_log("cargo-deny");
    let started = Instant::now();
    say("Compiling", format_args!("cargo-deny {RELEASE}, some minutes (log: {})", log.display()));
    let mut cargo = workspace::cargo();
    cargo.args(["install", "cargo-deny", "--locked", "--no-default-features", "--version", RELEASE]);
    child::run_logged(&mut cargo, &log)?;
    say_timed("Installed", format_args!("cargo-deny {RELEASE}"), started);
    Ok(())
}
