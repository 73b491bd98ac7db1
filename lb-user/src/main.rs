//! The `weir` command.

use anyhow::Result;
use aya::programs::XdpMode;
use clap::{Parser, Subcommand, ValueEnum};
use lb_common::encap::GUE_PORT;
use lb_user::{
    admin,
    commands::{self, doctor::DoctorArgs, status::Output, top::TopArgs},
    config::{Config, Prefix},
    logging::{self, LogArgs},
};
use std::{path::PathBuf, process::ExitCode};
use tracing::{error, warn};

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
    Run {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
        /// The admin socket.
        #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
        socket: PathBuf,
        #[command(flatten)]
        log: LogArgs,
    },
    /// Read a configuration and say what is wrong with it.
    Check {
        /// The configuration.
        #[arg(long, value_name = "FILE", default_value = "/etc/weir/weir.toml")]
        config: PathBuf,
    },
    /// Show what the running balancer does.
    Status {
        /// How to print it.
        #[arg(long, value_enum, default_value_t = Output::Human)]
        output: Output,
        /// The admin socket.
        #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
        socket: PathBuf,
    },
    /// Show what the running balancer does at present, once a second.
    Top(TopArgs),
    /// Find what keeps packets from their backends, and say what to type. Exits with 1 where something is wrong.
    Doctor(DoctorArgs),
    /// On a backend: take the balancers' tunnels off, in the foreground, until SIGTERM.
    Decap {
        /// The interface that tunnels come in by.
        #[arg(long, value_name = "NAME")]
        interface: String,
        /// The address of a balancer, or the prefix that it spreads its tunnels over; once for each.
        #[arg(long = "from", value_name = "ADDRESS", required = true)]
        balancers: Vec<Prefix>,
        /// The UDP port of GUE tunnels; 0 for none.
        #[arg(long, value_name = "PORT", default_value_t = GUE_PORT)]
        gue_port: u16,
        /// How the program is attached.
        #[arg(long, value_enum, default_value_t = Mode::Native)]
        xdp_mode: Mode,
        #[command(flatten)]
        log: LogArgs,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// In the driver.
    Native,
    /// In the network stack: slower, with every driver.
    Generic,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { config, socket, log } => {
            logging::start(log);
            match Config::load(&config) {
                Ok(parsed) => {
                    for warning in &parsed.warnings {
                        warn!("{warning}");
                    }
                    log_end(block_on(commands::run::run(parsed, &config, &socket)))
                }
                Err(errors) => {
                    for line in errors.to_string().lines() {
                        error!("{line}");
                    }
                    ExitCode::from(commands::BAD_CONFIG)
                }
            }
        }
        Command::Check { config } => commands::check::check(&config),
        Command::Status { output, socket } => report(block_on(commands::status::status(&socket, output))),
        Command::Top(args) => report(block_on(commands::top::top(&args))),
        Command::Doctor(args) => block_on(commands::doctor::doctor(&args)).unwrap_or_else(|error| report(Err(error))),
        Command::Decap { interface, balancers, gue_port, xdp_mode, log } => {
            logging::start(log);
            let mode = match xdp_mode {
                Mode::Native => XdpMode::Driver,
                Mode::Generic => XdpMode::Skb,
            };
            log_end(block_on(commands::decap::decap(&interface, &balancers, gue_port, mode)))
        }
    }
}

fn block_on<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Runtime::new()?.block_on(command)
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir: {}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The same for the commands that log.
fn log_end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{}", in_one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes, but for those that an error already tells in its own words.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}
