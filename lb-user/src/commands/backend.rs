//! `weir backend`: what single backends do, and the orders to drain and to serve again.

use super::{Output, complain, finish, put, put_json};
use crate::admin::{
    self, Client,
    status::{BackendStatus, HeldStatus, takes_nobody},
};
use crate::{config::Config, service::unreached, setup::Setup};
use anyhow::Result;
use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

/// What `weir backend` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// How to print it.
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// The admin socket.
    #[arg(long, global = true, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List the backends, what each does, and what the tables hold of it.
    List,
    /// Show one backend: its health, its flows and tokens, and how long its drain lasts.
    Show(Name),
    /// Take no new connection, and keep those that it has for the pool's drain timeout.
    Drain(Name),
    /// Take the order to drain back.
    Enable(Name),
    /// Print what to run on a backend: its VIPs, MPTCP, and where clients join it. Asks no balancer.
    Setup(SetupArgs),
}

#[derive(Debug, clap::Args)]
struct SetupArgs {
    #[command(flatten)]
    backend: Name,
    /// The configuration of the balancers.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Name {
    /// The backend, or POOL/NAME where several pools have one of this name.
    name: String,
}

/// Shows or orders, by the balancer behind a socket.
pub fn backend(args: &Args) -> ExitCode {
    match &args.command {
        Command::List => finish(list_all(args)),
        Command::Show(name) => finish(tell(args, name, None)),
        Command::Drain(name) => finish(tell(args, name, Some("/drain"))),
        Command::Enable(name) => finish(tell(args, name, Some("/enable"))),
        Command::Setup(setup) => print_setup(setup, args.output),
    }
}

fn print_setup(SetupArgs { backend: Name { name }, config }: &SetupArgs, output: Output) -> ExitCode {
    let config = match Config::load(config) {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors);
            return ExitCode::from(super::BAD_CONFIG);
        }
    };
    finish(async {
        let script = Setup::of(&config, name)?.to_string();
        match output {
            Output::Human => put(&script),
            Output::Json => put_json(&serde_json::json!({ "backend": name, "script": script })),
        }
    })
}

async fn list_all(args: &Args) -> Result<()> {
    let all: Vec<BackendStatus> = Client::new(&args.socket).get("/v1/backends").await?;
    match args.output {
        Output::Human => put(&list(&all)),
        Output::Json => put_json(&all),
    }
}

/// Tells of a backend, after an order to it if there is one.
async fn tell(args: &Args, Name { name }: &Name, order: Option<&str>) -> Result<()> {
    let (client, path) = (Client::new(&args.socket), format!("/v1/backends/{}", name.replace('/', ":")));
    let one: BackendStatus = match order {
        None => client.get(&path).await?,
        Some(order) => client.post(&(path + order)).await?,
    };
    match args.output {
        Output::Human => put(&story(&one)),
        Output::Json => put_json(&one),
    }
}

fn list(backends: &[BackendStatus]) -> String {
    let mut text = format!(
        "{:<24} {:<16} {:<40} {:<9} {:<10} {:>9} {:>9} {:>10}  LAST ERROR\n",
        "BACKEND", "POOL", "ADDRESS", "STATE", "HEALTH", "FLOWS", "TOKENS", "DRAINED IN"
    );
    for backend in backends {
        let BackendStatus { name, pool, duty, held, health, .. } = backend;
        let address = backend.address.to_string();
        let verdict = health.as_ref().map_or("-", |health| &health.verdict);
        let error = backend.trouble().unwrap_or("-");
        let left = backend.drain_ends_in_s.map_or_else(|| "-".to_owned(), |left| format!("{left} s"));
        let (flows, tokens) = (flows(held), held.tokens);
        let _ = writeln!(
            text,
            "{name:<24} {pool:<16} {address:<40} {duty:<9} {verdict:<10} {flows:>9} {tokens:>9} {left:>10}  {error}"
        );
    }
    text
}

fn flows(held: &HeldStatus) -> u64 {
    held.joined_flows + held.moved_flows + held.pinned_flows
}

/// A backend in sentences.
fn story(backend: &BackendStatus) -> String {
    let BackendStatus { name, pool, address, duty, held, slots, slots_previous, .. } = backend;
    let mut text = format!("{name} {address} of pool {pool}: {duty}");
    text += match (backend.drain_ordered, backend.drain_ends_in_s) {
        (true, _) => ", by command",
        (false, Some(_)) => ", by the configuration",
        (false, None) => "",
    };
    match backend.drain_ends_in_s {
        Some(0) => text += "; its connections are over\n",
        Some(left) => _ = writeln!(text, "; it keeps its connections for {left} s more"),
        None => text += "\n",
    }
    let HeldStatus { tokens, joined_flows, moved_flows, pinned_flows } = held;
    let _ = writeln!(text, "  slots: {slots} for new connections, {slots_previous} with older ones");
    let _ = writeln!(
        text,
        "  in the tables at the last sweep: {tokens} tokens, {joined_flows} joined, {moved_flows} moved, {pinned_flows} pinned flows"
    );
    if let Some(why) = &backend.unreached {
        let _ = writeln!(text, "  not reached: {}", unreached(why));
    }
    if let Some(health) = &backend.health {
        let _ = writeln!(
            text,
            "  health: {} by {} checks of {}, {} passed and {} failed, the last in {} ms{}",
            health.verdict,
            health.check,
            health.target,
            health.passed,
            health.failed,
            health.last_took_ms,
            health.trouble().map_or_else(String::new, |trouble| format!(": {trouble}")),
        );
    }
    if backend.pool_takes_nobody {
        let _ = writeln!(text, "warning: {}", takes_nobody(pool));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::HealthStatus;

    fn backend() -> BackendStatus {
        BackendStatus {
            name: "web1".to_owned(),
            pool: "web".to_owned(),
            address: [10, 0, 1, 1].into(),
            weight: 100,
            state: "up".to_owned(),
            leaving: false,
            duty: "draining".to_owned(),
            drain_ordered: true,
            health: Some(HealthStatus {
                check: "tcp".to_owned(),
                target: "192.0.2.1:443".to_owned(),
                verdict: "down".to_owned(),
                passed: 7,
                failed: 3,
                last_took_ms: 2,
                last_error: Some("connection refused".to_owned()),
                mints_tokens: None,
            }),
            held: HeldStatus { tokens: 5, joined_flows: 1, moved_flows: 2, pinned_flows: 3 },
            share_percent: 0,
            slots: 0,
            slots_previous: 21_845,
            drain_ends_in_s: Some(1742),
            next_hop: None,
            unreached: None,
            pool_takes_nobody: false,
            packets: 9,
        }
    }

    #[test]
    fn a_drain_tells_flows_tokens_and_the_time_left() {
        assert_eq!(
            story(&backend()),
            "web1 10.0.1.1 of pool web: draining, by command; it keeps its connections for 1742 s more\n  \
             slots: 0 for new connections, 21845 with older ones\n  \
             in the tables at the last sweep: 5 tokens, 1 joined, 2 moved, 3 pinned flows\n  \
             health: down by tcp checks of 192.0.2.1:443, 7 passed and 3 failed, the last in 2 ms: connection refused\n"
        );
        let line =
            list(&[backend()]).lines().nth(1).unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(line, "web1 web 10.0.1.1 draining down 6 5 1742 s connection refused");
    }
}
