//! `weir decap`: takes the tunnels of the balancers off, on a backend.

use crate::{bpf::Decapsulator, config::Prefix, supervisor::Supervisor};
use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

/// Decapsulates on an interface until SIGTERM or SIGINT, then tells what it did.
///
/// # Errors
/// The program could not be attached; nothing stays behind then.
pub async fn decap(interface: &str, balancers: &[Prefix], gue_port: u16, mode: XdpMode) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let mut decapsulator = Decapsulator::load()?;
    for &balancer in balancers {
        decapsulator.accept(balancer, gue_port).with_context(|| format!("no room for balancer {balancer}"))?;
    }
    decapsulator.attach(interface, mode)?;
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
