//! `weir run`: brings a balancer up and keeps its tables true until it is told to end.

use super::finish;
use crate::{
    admin::{self, AdminSocket, routes},
    config::{Config, Forward},
    health::Checker,
    layout::BackendRow,
    metrics::{Listener, Readiness},
    resolve::{NextHop, Reach, ResolveError, Resolver, Target},
    service::{Reloaded, Service},
};
use anyhow::{Context as _, Result};
use futures_util::future::join_all;
use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Interval, MissedTickBehavior, interval, sleep},
};

/// How often ended tokens and flows are looked for.
const SWEEP: Duration = Duration::from_secs(10);
/// How often a backend without a way is tried again, beside every change that the kernel reports.
const RETRY: Duration = Duration::from_secs(5);

/// Changes of health within this time are followed together: each costs the rings of its pool.
const HEALTH_BATCH: Duration = Duration::from_millis(50);

/// How often the transitions of the rings are moved on.
const ADVANCE: Duration = Duration::from_secs(1);

/// What `weir run` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// The admin socket.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

/// Runs a balancer until SIGTERM or SIGINT; SIGHUP has it read its configuration again. Where it could not be brought up,
/// nothing stays attached.
pub fn run(args: &Args) -> ExitCode {
    match Config::load(&args.config) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("{warning}");
            }
            finish(balance(config, &args.config, &args.socket))
        }
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::from(super::BAD_CONFIG)
        }
    }
}

async fn balance(config: Config, config_path: &Path, socket: &Path) -> Result<()> {
    let resolver = Resolver::connect()?;
    for interface in &config.balancer.interfaces {
        resolver.interface(interface.as_str()).await?;
    }
    let listener = match config.metrics {
        Some(metrics) => Some(Listener::bind(metrics.listen).await?),
        None => None,
    };
    let admin = AdminSocket::bind(socket, config.admin.group.as_ref()).await?;
    let interfaces: Vec<_> = config.balancer.interfaces.iter().map(ToString::to_string).collect();

    let service = Arc::new(spawn_blocking(move || Service::load(config)).await??);
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
    tasks.spawn(admin.serve(routes::Context { service: Arc::clone(&service) }));
    let follower = Arc::clone(&service);
    tasks.spawn(async move {
        if let Err(error) = follow_health(follower).await {
            eprintln!("weir: health checks are no longer followed: {error:#}");
        }
    });
    ready.send_replace(Readiness::Ready);
    steer(&service, &resolver, config_path).await?;
    eprintln!("weir: ending; no longer on {}", interfaces.join(", "));
    Ok(())
}

/// Keeps the tables true until a signal ends it.
async fn steer(service: &Arc<Service>, resolver: &Resolver, config_path: &Path) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("no handler for SIGHUP")?;
    let mut changes = resolver.watch();
    let mut checker = Checker::new(Arc::clone(service));
    check_backends(service, resolver, &mut checker).await?;
    let (mut sweep, mut retry, mut advance) = (every(SWEEP), every(RETRY), every(ADVANCE));
    eprintln!("weir: ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                let reloaded = reload(service, resolver, config_path).await;
                service.note_reload(reloaded.is_ok());
                tell_of_reload(reloaded);
                check_backends(service, resolver, &mut checker).await?;
            }
            change = changes.next() => {
                change?;
                resolve(service, resolver).await?;
                check_backends(service, resolver, &mut checker).await?;
            }
            _ = retry.tick() => {
                if service.lacks_a_way() {
                    resolve(service, resolver).await?;
                }
            }
            _ = advance.tick() => service.advance()?,
            _ = sweep.tick() => {
                let service = Arc::clone(service);
                spawn_blocking(move || service.sweep()).await??;
            }
        }
    }
}

/// Checks the backends that are to be checked, by the interfaces that this machine has for it now.
async fn check_backends(service: &Service, resolver: &Resolver, checker: &mut Checker<Service>) -> Result<()> {
    let plans = service.plans();
    let vips: BTreeSet<IpAddr> = plans.iter().map(|plan| plan.health.target.ip()).collect();
    for vip in vips {
        let trouble = match resolver.way_to_vip(vip).await {
            Ok(interface) => {
                service.attach_probe(&interface)?;
                None
            }
            Err(error) => Some(error.to_string()),
        };
        service.set_probe_trouble(vip, trouble);
    }
    checker.follow(plans);
    Ok(())
}

/// Has the tables follow the health of the backends, and tells the operator.
async fn follow_health(service: Arc<Service>) -> Result<()> {
    loop {
        service.health_changed().await;
        sleep(HEALTH_BATCH).await;
        let follower = Arc::clone(&service);
        for news in spawn_blocking(move || follower.follow_health()).await?? {
            eprintln!("weir: {news}");
        }
    }
}

fn tell_of_reload(reloaded: Result<Reloaded>) {
    match reloaded {
        Ok(reloaded) => {
            for vip in &reloaded.vips_moved {
                eprintln!(
                    "weir: warning: VIP {vip} is served by another pool now, which does not have its open connections"
                );
            }
            eprintln!("weir: reloaded: {reloaded}");
        }
        Err(error) => eprintln!("weir: not reloaded, nothing has changed: {error:#}"),
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Reads the configuration again and puts it in force, if all of it holds.
async fn reload(service: &Arc<Service>, resolver: &Resolver, config_path: &Path) -> Result<Reloaded> {
    let config = Config::load(config_path)?;
    for warning in &config.warnings {
        eprintln!("weir: warning: {warning}");
    }
    let staged = service.stage(config)?;
    let mut hops = Vec::new();
    for (row, hop) in ways(resolver, staged.to_resolve()).await {
        if let Err(error) = &hop {
            eprintln!("weir: {error}; its packets are dropped until then");
        }
        hops.push((row.id, hop.ok()));
    }
    let service = Arc::clone(service);
    Ok(spawn_blocking(move || service.commit(staged, hops)).await??)
}

/// Looks for the ways to backends, all at once.
async fn ways(resolver: &Resolver, backends: &[BackendRow]) -> Vec<(BackendRow, Result<NextHop, ResolveError>)> {
    let look = async |row: &BackendRow| {
        let reach = match row.forward {
            Forward::Ipip | Forward::Gue => Reach::Routed,
            Forward::L2 => Reach::OnLink,
        };
        let target = Target { backend: row.name.name.clone(), address: row.name.address, reach };
        (row.clone(), resolver.next_hop(&target).await)
    };
    join_all(backends.iter().map(look)).await
}

/// Looks for the way to every backend anew, and tells the operator what is new.
async fn resolve(service: &Service, resolver: &Resolver) -> Result<()> {
    for (row, hop) in ways(resolver, &service.backends()).await {
        match hop {
            Ok(hop) => {
                let interface = hop.interface_name.clone();
                if service.set_hop(row.id, Some(hop))? {
                    eprintln!("weir: backend {} {} is reached by {interface}", row.name.name, row.name.address);
                }
            }
            Err(error) => {
                service.set_hop(row.id, None)?;
                if service.is_new_trouble(row.id, &error.to_string()) {
                    eprintln!("weir: {error}; its packets are dropped until then");
                }
            }
        }
    }
    Ok(())
}
