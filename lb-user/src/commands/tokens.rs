//! `weir tokens`: the tokens of MPTCP connections that are known, how many and at which backends.

use super::{Output, finish, say};
use crate::admin::{self, Client, entries::Tokens};
use anyhow::Result;
use std::{path::PathBuf, process::ExitCode};

/// What `weir tokens` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show so many of them too, 1000 at most.
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: u32,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// The admin socket.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

/// Prints the tokens of MPTCP connections that are known.
pub fn tokens(args: &Args) -> ExitCode {
    finish(print(args))
}

async fn print(args: &Args) -> Result<()> {
    let tokens: Tokens = Client::new(&args.socket).get(&format!("/v1/tokens?sample={}", args.sample)).await?;
    say(&tokens, args.output)
}
