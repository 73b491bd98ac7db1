//! The commands of `weir`, one file each: what a command is told, and what it does.

pub mod agent;
pub mod announce;
pub mod backend;
pub mod check;
pub mod completions;
pub mod decap;
pub mod detach;
pub mod doctor;
pub mod drain_self;
pub mod explain;
pub mod flows;
pub mod generate;
mod keys;
pub mod reload;
pub mod run;
pub mod secret;
pub mod status;
pub mod tip;
pub mod tokens;
pub mod top;
pub mod trace;

use anyhow::{Context as _, Result};
use serde::Serialize;
use std::{
    fmt,
    io::{self, Write as _},
    process::ExitCode,
};
use tracing::error;

/// The exit status for a configuration that does not hold.
pub const BAD_CONFIG: u8 = 2;

/// Where the configuration is unless the operator says otherwise.
pub const CONFIG: &str = "/etc/weir/weir.toml";

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Human,
    /// JSON.
    Json,
}

/// Prints an answer as the operator wants it.
fn say<T: fmt::Display + Serialize>(answer: &T, output: Output) -> Result<()> {
    match output {
        Output::Human => put(&answer.to_string()),
        Output::Json => put_json(answer),
    }
}

/// Prints a line of JSON.
fn put_json(answer: &impl Serialize) -> Result<()> {
    put(&(serde_json::to_string(answer)? + "\n"))
}

/// Prints text. Where nobody reads on, the reader has seen enough.
fn put(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Says a line on standard error. Where nobody can hear it, the exit status tells all the same.
fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Runs a command to its end; an error becomes a line and an exit status.
fn finish(command: impl Future<Output = Result<()>>) -> ExitCode {
    finish_with(async { command.await.map(|()| ExitCode::SUCCESS) })
}

/// The same for a command that has exit statuses of its own.
fn finish_with(command: impl Future<Output = Result<ExitCode>>) -> ExitCode {
    block_on(command).unwrap_or_else(|error| {
        complain(format_args!("weir: {}", in_one_line(&error)));
        ExitCode::FAILURE
    })
}

/// The same for a command that logs.
fn finish_logged(command: impl Future<Output = Result<()>>) -> ExitCode {
    logged(block_on(command))
}

/// The same for one whose processors are others' to use: one thread does all of it, and wakes no other.
fn finish_logged_on_one_thread(command: impl Future<Output = Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    logged(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(command)))
}

fn logged(ended: Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// What a command has left behind on threads of its own, as a sweep through millions of entries, is not waited for.
fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    ended
}

/// An error and its causes, but for those that an error already tells in its own words.
pub fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}
