//! The `weir` command.

use clap::{Parser, Subcommand};
use lb_user::commands::{backend, check, decap, run, status};
use std::process::ExitCode;

/// An MPTCP-aware layer-4 load balancer.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Steer packets, in the foreground, until SIGTERM.
    Run(run::Args),
    /// Read a configuration and say what is wrong with it.
    Check(check::Args),
    /// Show what the running balancer does.
    Status(status::Args),
    /// Show single backends, have one drain, or have it serve again.
    Backend(backend::Args),
    /// On a backend: take the balancers' tunnels off, in the foreground, until SIGTERM.
    Decap(decap::Args),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Status(args) => status::status(&args),
        Command::Backend(args) => backend::backend(&args),
        Command::Decap(args) => decap::decap(&args),
    }
}
