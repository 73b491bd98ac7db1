//! `weir run`: brings a balancer up and keeps its tables true until it is told to end.

use crate::{
    admin::AdminSocket,
    config::Config,
    metrics::{Listener, Readiness},
    resolve::{Reach, Resolver, Target},
    service::Service,
};
use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use std::{path::Path, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{MissedTickBehavior, interval},
};

/// How often ended tokens and flows are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How often a backend without a way is tried again, beside every change that the kernel reports.
const RETRY: Duration = Duration::from_secs(5);

/// Runs a balancer until SIGTERM or SIGINT.
///
/// # Errors
/// It could not be brought up; nothing stays attached then.
pub async fn run(config: Config, socket: &Path) -> Result<()> {
    let resolver = Resolver::connect()?;
    resolver.interface(config.balancer.interface.as_str()).await?;
    let listener = match config.metrics {
        Some(metrics) => Some(Listener::bind(metrics.listen).await?),
        None => None,
    };
    let admin = AdminSocket::bind(socket).await?;
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;

    let service = Arc::new(spawn_blocking(move || Service::load(config)).await??);
    let mut changes = resolver.watch();
    resolve(&service, &resolver).await?;
    service.attach()?;

    let (ready, readiness) = watch::channel(Readiness::Starting);
    let mut tasks = JoinSet::new();
    if let Some(listener) = listener {
        let source = Arc::clone(&service);
        tasks.spawn(async move {
            let Err(error) = listener.serve(source, readiness).await;
            eprintln!("weir: metrics: {error}");
        });
    }
    tasks.spawn(admin.serve(Arc::clone(&service)));
    ready.send_replace(Readiness::Ready);
    eprintln!("weir: ready, steering on {}", service.config().balancer.interface);

    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut retry = interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            change = changes.next() => {
                change?;
                resolve(&service, &resolver).await?;
            }
            _ = retry.tick() => {
                if service.lacks_a_way() {
                    resolve(&service, &resolver).await?;
                }
            }
            _ = sweep.tick() => {
                let service = Arc::clone(&service);
                spawn_blocking(move || service.sweep()).await??;
            }
        }
    }
    eprintln!("weir: ending; {} is free", service.config().balancer.interface);
    Ok(())
}

/// Looks for the way to every backend, all at once, and tells the operator what is new.
async fn resolve(service: &Service, resolver: &Resolver) -> Result<()> {
    let look = |backend: &crate::layout::BackendRow| {
        let reach = match backend.forward {
            crate::config::Forward::Ipip => Reach::Routed,
            crate::config::Forward::L2 => Reach::OnLink,
        };
        Target { backend: backend.name.clone(), address: backend.address, reach }
    };
    let targets: Vec<_> = service.backends().iter().map(look).collect();
    let hops = join_all(targets.iter().map(|target| resolver.next_hop(target))).await;
    for (index, hop) in hops.into_iter().enumerate() {
        let Target { backend, address, .. } = &targets[index];
        match hop {
            Ok(hop) => {
                let interface = hop.interface_name.clone();
                if service.set_hop(index, Some(hop))? {
                    eprintln!("weir: backend {backend} {address} is reached by {interface}");
                }
            }
            Err(error) => {
                service.set_hop(index, None)?;
                if service.is_new_trouble(index, &error.to_string()) {
                    eprintln!("weir: {error}; its packets are dropped until then");
                }
            }
        }
    }
    Ok(())
}
