//! `weir decap`: takes the tunnels of the balancers off, on a backend.

use super::finish_logged;
use crate::{
    bpf::Decapsulator,
    config::Prefix,
    logging::{self, LogArgs},
    supervisor::Supervisor,
};
use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use clap::ValueEnum;
use lb_common::encap::GUE_PORT;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// What `weir decap` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
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
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// In the driver.
    Native,
    /// In the network stack: slower, with every driver.
    Generic,
}

impl From<Mode> for XdpMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Native => Self::Driver,
            Mode::Generic => Self::Skb,
        }
    }
}

/// Decapsulates on an interface until SIGTERM or SIGINT, then tells what it did. Where the program could not be attached,
/// nothing stays behind.
pub fn decap(args: &Args) -> ExitCode {
    logging::start(args.log);
    finish_logged(run(args))
}

async fn run(Args { interface, balancers, gue_port, xdp_mode, .. }: &Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let mut decapsulator = Decapsulator::load()?;
    for &balancer in balancers {
        decapsulator.accept(balancer, *gue_port).with_context(|| format!("no room for balancer {balancer}"))?;
    }
    decapsulator.attach(interface, (*xdp_mode).into())?;
    let mut supervisor = Supervisor::find();
    supervisor.status(format!("taking tunnels off on {interface}"));
    supervisor.ready();
    info!(interface, "ready, taking tunnels off");
    loop {
        tokio::select! {
            () = supervisor.life_is_due() => supervisor.alive(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    supervisor.stopping();
    for (outcome, frames) in decapsulator.counts()? {
        info!(interface, frames, outcome = outcome.as_str(), "ending");
    }
    Ok(())
}
