//! `weir completions`: what a shell needs to complete this command line.

use clap::Command;
use clap_complete::{Shell, generate};
use std::{io, process::ExitCode};

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
    // Where nobody reads it any more, there is nothing to say.
    let _ = io::Write::write_all(&mut io::stdout(), &script);
    ExitCode::SUCCESS
}
