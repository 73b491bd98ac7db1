//! `weir decap`: takes the tunnels of the balancers off, on a backend.

use crate::{bpf::Decapsulator, config::Prefix};
use anyhow::{Context as _, Result};
use aya::programs::XdpMode;
use tokio::signal::unix::{SignalKind, signal};

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
    eprintln!("weir: ready, taking tunnels off on {interface}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    for (outcome, frames) in decapsulator.counts()? {
        eprintln!("weir: {frames} frames {}", outcome.as_str());
    }
    Ok(())
}
