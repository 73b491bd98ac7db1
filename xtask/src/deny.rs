//! `cargo xtask deny`: the crates against `deny.toml`, by cargo-deny, which is compiled once.
//!
//! It is a chore of its own: compiling cargo-deny takes minutes, which no test should wait for.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};

use crate::{
    child,
    progress::{say, say_timed},
    workspace,
};

/// What is installed.
const RELEASE: &str = "0.20.2";
/// Where cargo-deny has the list of known flaws from: a git repository.
const LIST: &str = "https://github.com/RustSec/advisory-db";

/// What `cargo xtask deny` is told.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also the known flaws of crates, a list that is fetched
    #[arg(long)]
    advisories: bool,
    /// A clone of that list, where this machine cannot fetch it
    #[arg(long, value_name = "DIRECTORY", requires = "advisories")]
    advisories_from: Option<PathBuf>,
}

/// Judges the crates.
///
/// # Errors
///
/// cargo-deny cannot be installed, the list of flaws cannot be had, or a crate is not as it should be.
pub(crate) fn deny(args: &Args) -> Result<()> {
    if child::output(Command::new("cargo-deny").arg("--version")).is_err() {
        install().context("cannot install cargo-deny")?;
    }
    child::run(cargo_deny().args(["check", "--deny", "warnings", "licenses", "bans", "sources"]))?;
    if args.advisories {
        let clone = args.advisories_from.as_deref().map(there).transpose()?;
        fetch(read_from(clone.as_deref(), &mut cargo_deny()).args(["fetch", "db"]))?;
        child::run(read_from(clone.as_deref(), &mut cargo_deny()).args(["check", "--deny", "warnings", "advisories"]))?;
    }
    Ok(())
}

fn cargo_deny() -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["deny", "--locked"]);
    cargo
}

fn there(clone: &Path) -> Result<PathBuf> {
    clone.canonicalize().with_context(|| format!("there is no clone of {LIST} at {}", clone.display()))
}

/// Has git read the list from a clone, if there is one.
fn read_from<'c>(clone: Option<&Path>, command: &'c mut Command) -> &'c mut Command {
    let Some(clone) = clone else { return command };
    let instead = format!("url.{}.insteadOf", clone.display());
    command.envs([("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", &instead), ("GIT_CONFIG_VALUE_0", LIST)])
}

fn fetch(command: &mut Command) -> Result<()> {
    child::run(command).with_context(|| {
        format!(
            "cannot fetch the list of known flaws, {LIST}, by git; the crates are good otherwise. Where this machine reaches no \
             such address, clone that repository on one that does, bring the clone here, and type \
             `cargo xtask deny --advisories --advisories-from DIRECTORY`"
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn git(folder: &tempfile::TempDir, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments).current_dir(folder.path());
        child::output(&mut git).expect("git does it")
    }

    #[test]
    fn a_list_that_cannot_be_fetched_says_what_else_to_do() {
        let error = fetch(&mut Command::new("false")).expect_err("it fails");
        let said = format!("{error:#}");
        for words in [LIST, "the crates are good otherwise", "--advisories-from DIRECTORY", "`false` failed"] {
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn git_reads_the_list_from_a_clone_that_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        git(&folder, &["init", "--quiet"]);
        git(&folder, &["commit", "--quiet", "--allow-empty", "--message", "a list"]);
        let newest = git(&folder, &["rev-parse", "HEAD"]);
        let mut ask = Command::new("git");
        ask.args(["ls-remote", LIST, "HEAD"]);
        let read = child::output(read_from(Some(folder.path()), &mut ask)).expect("it needs no network");
        assert_eq!(read.split_whitespace().next(), Some(newest.trim()));
    }
}
