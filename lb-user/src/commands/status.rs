//! `weir status`: what a running balancer does.

use super::{Output, finish, say};
use crate::admin::{self, Client, status::Status};
use anyhow::Result;
use std::{path::PathBuf, process::ExitCode};

/// What `weir status` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// The admin socket.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

/// Prints the status of the balancer behind a socket.
pub fn status(args: &Args) -> ExitCode {
    finish(print(args))
}

async fn print(args: &Args) -> Result<()> {
    let status: Status = Client::new(&args.socket).get("/v1/status").await?;
    say(&status, args.output)
}
