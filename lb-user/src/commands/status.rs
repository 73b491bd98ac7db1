//! `weir status`: what a running balancer does.

use crate::admin::fetch_status;
use anyhow::Result;
use std::path::Path;

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Human,
    /// One JSON object.
    Json,
}

/// Prints the status of the balancer behind a socket.
///
/// # Errors
/// None answers there.
pub async fn status(socket: &Path, output: Output) -> Result<()> {
    let status = fetch_status(socket).await?;
    match output {
        Output::Human => print!("{status}"),
        Output::Json => println!("{}", serde_json::to_string(&status)?),
    }
    Ok(())
}
