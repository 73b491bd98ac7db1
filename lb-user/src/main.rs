//! The `weir` command.

use clap::{CommandFactory as _, Parser, Subcommand};
use lb_user::commands::{
    agent, announce, backend, check, completions, decap, detach, doctor, drain_self, explain, flows, generate, reload,
    run, secret, status, tip::with_tip, tokens, top, trace,
};
use std::{env, process::ExitCode};

/// An MPTCP-aware layer-4 load balancer.
#[derive(Parser)]
#[command(name = "weir", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Steer packets, and keep the tables true in the foreground until SIGTERM.
    Run(run::Args),
    /// Read a configuration and say what is wrong with it.
    Check(check::Args),
    /// Show what the running balancer does.
    Status(status::Args),
    /// Show what the running balancer does at present, once a second.
    Top(top::Args),
    /// Show single backends, have one drain, or have it serve again.
    Backend(backend::Args),
    /// Hand over to the other balancers and withdraw this one, or announce it again.
    DrainSelf(drain_self::Args),
    /// Have a BGP daemon on this machine announce the VIPs, for as long as the running balancer is well.
    Announce(announce::Args),
    /// Have the running balancer read its configuration again, or say what that would change.
    Reload(reload::Args),
    /// Take the data path down: off the interfaces, and out of the kernel.
    Detach(detach::Args),
    /// Find what keeps packets from their backends, and say what to type. Exits with 1 where something is wrong.
    Doctor(doctor::Args),
    /// Say what becomes of packets, and why: those of a capture, or one.
    Explain(explain::Args),
    /// Show the flows that have an entry, by table and backend.
    Flows(flows::Args),
    /// Show the tokens of MPTCP connections that are known, by backend.
    Tokens(tokens::Args),
    /// Tell what is decided for packets, as it happens: a sample of them, for a while.
    Trace(trace::Args),
    /// On a backend: take the balancers' tunnels off, clamp the MSS, and follow the MPTCP connections that live there.
    Agent(agent::Args),
    /// On a backend: take the balancers' tunnels off, in the foreground, until SIGTERM.
    Decap(decap::Args),
    /// Make the secrets of stateless tokens, add epochs to them, and show what is in them.
    Secret(secret::Args),
    /// Print the script by which a shell completes this command line.
    Completions(completions::Args),
    /// Write the documents that are made from the code.
    #[command(hide = true)]
    Generate(generate::Args),
}

fn main() -> ExitCode {
    let words: Vec<String> = env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let cli = Cli::try_parse().unwrap_or_else(|error| with_tip(error, &Cli::command(), &words).exit());
    match cli.command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Status(args) => status::status(&args),
        Command::Top(args) => top::top(&args),
        Command::Backend(args) => backend::backend(&args),
        Command::DrainSelf(args) => drain_self::drain_self(&args),
        Command::Announce(args) => announce::announce(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::Detach(args) => detach::detach(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Flows(args) => flows::flows(&args),
        Command::Tokens(args) => tokens::tokens(&args),
        Command::Trace(args) => trace::trace(&args),
        Command::Agent(args) => agent::agent(&args),
        Command::Decap(args) => decap::decap(&args),
        Command::Secret(args) => secret::secret(&args),
        Command::Completions(args) => completions::completions(&args, Cli::command()),
        Command::Generate(args) => generate::generate(&args, Cli::command()),
    }
}
