//! Weir's chores: `cargo xtask setup | build | demo | churn | drill | load | lab | bench | fuzz | verifier | docs | deny | dist | test`.
//!
//! It installs what a fresh machine lacks, builds, and hands over to the `weir-lab` binary.
//! It must build with a plain stable toolchain, before anything else is there, and must write
//! its own words to stderr only: stdout belongs to the program that it runs.

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{setup::Scope, test::Extent, workspace::Profile};

mod child;
mod deny;
mod dist;
#[cfg(test)]
mod documents;
#[cfg(test)]
mod links;
#[cfg(test)]
mod pages;
mod progress;
mod setup;
mod test;
mod workspace;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match child::outlive_ctrl_c().and_then(|()| run(command)) {
        _ if child::interrupted() => {
            progress::say("Stopped", "by Ctrl-C");
            ExitCode::from(130)
        }
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Weir's chores
#[derive(Parser)]
#[command(bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Install what this machine lacks: BPF toolchain, lab and test tools, bpffs
    Setup,
    /// Set up the BPF toolchain, then build `weir` and `weir-lab`
    Build {
        /// Optimised, as `demo` and `bench` use it
        #[arg(long)]
        release: bool,
    },
    /// Set up, build, then steer real MPTCP connections and show where each subflow went
    #[command(disable_help_flag = true)]
    Demo(ForLab),
    /// Set up, build, then hold connections open while a pool changes under them
    #[command(disable_help_flag = true)]
    Churn(ForLab),
    /// Set up, build, then restart, reload, upgrade, drain or kill a backend under traffic
    #[command(disable_help_flag = true)]
    Drill(ForLab),
    /// Set up, build, then load Weir with very many connections of real programs, and write a report
    #[command(disable_help_flag = true)]
    Load(ForLab),
    /// Set up, build, then work with the lab itself: `up`, `down`, ...
    #[command(disable_help_flag = true)]
    Lab(ForLab),
    /// Set up, build, then measure nanoseconds per packet
    #[command(disable_help_flag = true)]
    Bench(ForLab),
    /// Set up, build, then see that host and kernel decide alike over random sequences of frames
    #[command(disable_help_flag = true)]
    Fuzz(ForLab),
    /// Set up, build, then hold each BPF program against its verifier budget
    #[command(disable_help_flag = true)]
    Verifier(ForLab),
    /// Set up, build, then write the pages of `docs/reference` anew, and man pages into `target/man`
    Docs,
    /// Hold the crates against `deny.toml`: licences, sources and versions
    Deny(deny::Args),
    /// Set up, build, then pack: a Debian package, a tarball with a static `weir`, their bill of materials, checksums
    Dist(dist::Args),
    /// Set up, then formatting, lints, documentation and every test
    Test {
        /// Only the tests, no lints
        #[arg(long)]
        fast: bool,
    },
}

/// Arguments that go to `weir-lab` as they are; `--help` shows its own.
#[derive(clap::Args)]
struct ForLab {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

fn run(chore: Chore) -> Result<ExitCode> {
    match chore {
        Chore::Setup => setup::set_up(Scope::Tests)?,
        Chore::Build { release: false } => {
            setup::set_up(Scope::Build)?;
            workspace::build(Profile::Dev)?;
        }
        Chore::Build { release: true } => {
            setup::set_up(Scope::Build)?;
            workspace::build(Profile::Release)?;
        }
        Chore::Demo(ForLab { args }) => return become_lab(Some("demo"), &args),
        Chore::Churn(ForLab { args }) => return become_lab(Some("churn"), &args),
        Chore::Drill(ForLab { args }) => return become_lab(Some("drill"), &args),
        Chore::Load(ForLab { args }) => return become_lab(Some("load"), &args),
        Chore::Lab(ForLab { args }) => return become_lab(None, &args),
        Chore::Bench(ForLab { args }) => return become_lab(Some("bench"), &args),
        Chore::Fuzz(ForLab { args }) => return become_lab(Some("fuzz"), &args),
        Chore::Verifier(ForLab { args }) => return become_lab(Some("verifier"), &args),
        Chore::Docs => write_docs()?,
        Chore::Deny(args) => deny::deny(&args)?,
        Chore::Dist(args) => dist::dist(&args)?,
        Chore::Test { fast: false } => return test::test(Extent::Everything),
        Chore::Test { fast: true } => return test::test(Extent::Fast),
    }
    Ok(ExitCode::SUCCESS)
}

/// Has `weir` write what it knows best of itself.
fn write_docs() -> Result<()> {
    setup::set_up(Scope::Build)?;
    workspace::build(Profile::Dev)?;
    let places = [("reference", workspace::root().join("docs/reference")), ("man", workspace::target().join("man"))];
    for (what, place) in places {
        let mut weir = workspace::binary(Profile::Dev, "weir");
        child::run(weir.arg("generate").arg(what).arg(&place))?;
        progress::say("Wrote", place.display());
    }
    Ok(())
}

/// Ends as `weir-lab`: signals, stdin, stdout and the exit code are its own from there on.
fn become_lab(scenario: Option<&str>, args: &[OsString]) -> Result<ExitCode> {
    setup::set_up(Scope::Lab)?;
    workspace::build(Profile::Release)?;
    let error = child::replace_self(workspace::binary(Profile::Release, "weir-lab").args(scenario).args(args));
    Err(error)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_after_demo_go_to_the_lab() {
        let cli = Cli::try_parse_from(["xtask", "demo", "--json", "--connections", "8", "--help"]);
        let Ok(Chore::Demo(ForLab { args })) = cli.map(|cli| cli.command) else {
            panic!("demo takes any arguments");
        };
        assert_eq!(args, ["--json", "--connections", "8", "--help"]);
    }

    #[test]
    fn every_chore_that_the_documents_name_is_one() {
        let named = documents::arguments_of("cargo xtask");
        assert!(named.len() > 10, "{named:?}");
        for arguments in named.iter().filter(|arguments| !arguments.is_empty()) {
            let parsed = Cli::try_parse_from([&["xtask".to_owned()], &arguments[..]].concat());
            assert!(parsed.is_ok(), "a document names `cargo xtask {}`", arguments.join(" "));
        }
    }

    #[test]
    fn every_file_that_the_documents_name_exists() {
        const TOP: [&str; 7] = ["benches/", "deploy/", "docs/", "lb-common/", "lb-ebpf/", "lb-user/", "xtask/"];
        for document in documents::pages() {
            let text = documents::document(&document);
            let paths = documents::code(&text).into_iter().filter(|code| TOP.iter().any(|top| code.starts_with(top)));
            let missing: Vec<_> = paths.filter(|path| !documents::root().join(path).exists()).collect();
            assert_eq!(missing, Vec::<&str>::new(), "{document}");
        }
    }
}
