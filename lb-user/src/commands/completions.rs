//! `weir completions`: what a shell needs to complete this command line.

use super::{finish, put};
use clap::Command;
use clap_complete::{Shell, generate};
use std::process::ExitCode;

/// What `weir completions` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for a shell.
pub fn completions(args: &Args, mut weir: Command) -> ExitCode {
    let name = weir.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut weir, name, &mut script);
    finish(async { put(str::from_utf8(&script)?) })
}
