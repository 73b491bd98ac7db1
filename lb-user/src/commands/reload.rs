//! `weir reload`: has the running balancer read its configuration again, and says what that has changed, or would change.

use super::{BAD_CONFIG, Output, finish, say};
use crate::admin::{self, Client, ClientError, reload::Reload};
use anyhow::Result;
use std::{cell::Cell, path::PathBuf, process::ExitCode};

/// What `weir reload` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Change nothing, and say what would be changed.
    #[arg(long)]
    dry_run: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// The admin socket.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

/// Asks the balancer behind a socket. Exits with 2 where it refuses the configuration, which has changed nothing then.
pub fn reload(args: &Args) -> ExitCode {
    let is_refused = Cell::new(false);
    let code = finish(async {
        let reloaded = ask(args).await;
        is_refused.set(matches!(reloaded, Err(ClientError::Refused(_))));
        say(&reloaded?, args.output)
    });
    if is_refused.get() { ExitCode::from(BAD_CONFIG) } else { code }
}

async fn ask(args: &Args) -> Result<Reload, ClientError> {
    let path = if args.dry_run { "/v1/reload?dry_run=true" } else { "/v1/reload" };
    Client::new(&args.socket).post(path).await
}
