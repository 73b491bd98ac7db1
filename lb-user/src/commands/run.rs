//! `weir run`: brings a balancer up and keeps its tables true until it is told to end.

mod ways;

use super::{finish_logged, in_one_line};
use crate::{
    admin::{
        self, AdminSocket, Fault,
        reload::{Reload, Request, Requests},
        routes,
    },
    bpf::{Holder, LoadError},
    bus::Bus,
    config::{Config, ConfigErrors},
    fitness::Fitness,
    health::Checker,
    logging::{self, LogArgs},
    metrics::{Attachment, Listener},
    pulse::Heart,
    resolve::Resolver,
    seldom::Seldom,
    service::{Ending, News, Service, ServiceError, unreached},
    supervisor::Supervisor,
};
use anyhow::{Context as _, Result, bail};
use hyper::StatusCode;
use nix::net::if_::if_nametoindex;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::{JoinSet, spawn_blocking},
    time::{Interval, MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

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
    #[command(flatten)]
    log: LogArgs,
}

/// Runs a balancer until SIGTERM or SIGINT; SIGHUP has it read its configuration again. Where it could not be brought up,
/// nothing stays attached.
pub fn run(args: &Args) -> ExitCode {
    logging::start(args.log);
    match Config::load(&args.config) {
        Ok(config) => {
            for warning in &config.warnings {
                warn!("{warning}");
            }
            finish_logged(balance(config, &args.config, &args.socket))
        }
        Err(errors) => {
            for line in errors.to_string().lines() {
                error!("{line}");
            }
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
    let interfaces = interfaces.join(", ");

    let service = Arc::new(spawn_blocking(move || Service::load(config)).await??);
    if service.is_resumed() {
        info!("takes over the tables of the controller before it");
    }
    let mut tasks = JoinSet::new();
    let bus = match bring_up(&service, &resolver, &mut tasks).await {
        Ok(bus) => bus,
        Err(error) => {
            service.abandon();
            return Err(error);
        }
    };

    let (fitness, readiness) = Fitness::starting();
    let heart = Heart::new();
    if let Some(listener) = listener {
        let (source, pulse) = (Arc::clone(&service), heart.pulse());
        tasks.spawn(async move {
            let Err(error) = listener.serve(source, readiness, pulse).await;
            error!("no more metrics: {error}");
        });
    }
    let (reloads, mut requests) = Requests::channel();
    let context = routes::Context { service: Arc::clone(&service), reloads, fitness: fitness.clone() };
    tasks.spawn(admin.serve(context));
    let follower = Arc::clone(&service);
    tasks.spawn(async move {
        if let Err(error) = follow_health(follower).await {
            error!("health checks are no longer followed: {}", in_one_line(&error));
        }
    });
    if let Some(bus) = &bus {
        bus.catch_up().await;
    }
    let mut supervisor = Supervisor::find();
    let signs = Signs { supervisor: &mut supervisor, fitness, heart };
    let steered = steer(&service, &resolver, config_path, &mut requests, signs).await;
    supervisor.stopping();
    if let Some(bus) = bus {
        bus.end().await;
    }
    // Waited for: whoever serves the admin socket removes it.
    tasks.shutdown().await;
    steered?;
    look_at_attachments(&service, &resolver).await;
    match (service.end()?, service.unattached()) {
        (Ending::Detached, _) => info!("ending; no longer on {interfaces}"),
        (Ending::Lost(lost), _) => warn!("ending; {lost}"),
        (Ending::Stays, Some(interface)) => {
            warn!("ending; {interface} has no XDP program, and the next weir puts one there");
        }
        (Ending::Stays, None) => info!("ending; {interfaces} goes on steering, until `weir detach`"),
    }
    Ok(())
}

/// Joins the cluster, if there is one, finds the ways to the backends, and begins to steer.
async fn bring_up(service: &Arc<Service>, resolver: &Resolver, tasks: &mut JoinSet<()>) -> Result<Option<Bus>> {
    let bus = match service.bus() {
        Some(settings) => Some(service.join(&settings, tasks).await?),
        None => None,
    };
    ways::follow(service, ways::find(resolver, service.backends()).await)?;
    attach(service, resolver).await?;
    look_at_attachments(service, resolver).await;
    Ok(bus)
}

/// Notes whether and how the program is attached, as the kernel tells, and warns where it is not.
async fn look_at_attachments(service: &Service, resolver: &Resolver) {
    let mut attachments = Vec::new();
    for interface in service.interfaces() {
        let xdp = resolver.xdp_program(&interface).await.ok().flatten();
        attachments.push(Attachment { interface, mode: xdp.map_or("none", |xdp| xdp.mode) });
    }
    for attachment in service.note_attachments(attachments) {
        let Attachment { interface, mode } = &attachment;
        match *mode {
            "none" => error!(interface, "there is no XDP program on the interface any more: restart weir"),
            mode => info!(interface, mode, "the XDP program is attached"),
        }
    }
}

/// The kernel tells nobody when a link ends because its pin is removed, so this is looked at again and again.
async fn look_at_data_path(service: &Service, resolver: &Resolver) {
    if let Some(lost) = service.look_at_pins() {
        let directory = lost.directory.display();
        error!(
            "{lost}; to mend it, stop weir, `weir detach --pins {directory}`, and start it again: its tokens and entries \
             begin anew"
        );
    }
    look_at_attachments(service, resolver).await;
}

/// Puts the program on its interfaces. If another is there, says which.
async fn attach(service: &Arc<Service>, resolver: &Resolver) -> Result<()> {
    let attaching = Arc::clone(service);
    match spawn_blocking(move || attaching.attach()).await? {
        Err(ServiceError::Load(LoadError::Busy { interface })) => {
            let Some(xdp) = resolver.xdp_program(&interface).await? else {
                return Err(LoadError::Busy { interface }.into());
            };
            let holder = spawn_blocking(move || Holder::of(xdp.program)).await?;
            bail!("{interface} already has an XDP program, {holder}; detach that first, or use another interface")
        }
        attached => Ok(attached?),
    }
}

/// What the loop gives to whoever wants to know how it is.
struct Signs<'s> {
    supervisor: &'s mut Supervisor,
    fitness: Fitness,
    heart: Heart,
}

/// Keeps the tables true until a signal ends it.
async fn steer(
    service: &Arc<Service>,
    resolver: &Resolver,
    config_path: &Path,
    requests: &mut mpsc::Receiver<Request>,
    signs: Signs<'_>,
) -> Result<()> {
    let Signs { supervisor, fitness, heart } = signs;
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("no handler for SIGHUP")?;
    let mut changes = resolver.watch();
    let mut checker = Checker::new(Arc::clone(service));
    check_backends(service, resolver, &mut checker).await?;
    let (mut retry, mut advance, mut look) = (every(RETRY), every(ADVANCE), ways::look(resolver));
    let mut sweeps = JoinSet::new();
    sweeps.spawn(sweep(Arc::clone(service)));
    supervisor.status(service.headline());
    supervisor.ready();
    fitness.begin(service);
    info!("ready");
    loop {
        tokio::select! {
            () = supervisor.life_is_due() => supervisor.alive(),
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = hangup.recv() => {
                look.forget();
                let _ = reload(service, resolver, config_path, supervisor).await;
                look.begin(service.backends());
                check_backends(service, resolver, &mut checker).await?;
            }
            Some(Request { dry_run, answer }) = requests.recv() => {
                let reloaded = if dry_run {
                    plan(service, resolver, config_path).await
                } else {
                    look.forget();
                    reload(service, resolver, config_path, supervisor).await
                };
                // Who has asked may have gone.
                let _ = answer.send(reloaded.map_err(|error| fault(&error)));
                look.begin(service.backends());
                check_backends(service, resolver, &mut checker).await?;
            }
            change = changes.next() => {
                change?;
                look.begin(service.backends());
                look_at_attachments(service, resolver).await;
                check_backends(service, resolver, &mut checker).await?;
            }
            _ = retry.tick() => {
                if service.lacks_a_way() {
                    look.begin(service.backends());
                }
            }
            found = look.found() => ways::follow(service, [found])?,
            _ = advance.tick() => {
                service.advance()?;
                look_at_data_path(service, resolver).await;
                supervisor.status(service.headline());
                fitness.note(service);
                heart.beat();
            }
            Some(ended) = sweeps.join_next() => ended??,
        }
    }
}

/// Sweeps again and again, while whoever keeps the tables true goes on; ends only where it cannot.
async fn sweep(service: Arc<Service>) -> Result<()> {
    let (mut due, told) = (every(SWEEP), Seldom::default());
    loop {
        due.tick().await;
        let service = Arc::clone(&service);
        match spawn_blocking(move || service.sweep()).await? {
            Err(error) if error.lacks_descriptors() => {
                if told.may_tell(Instant::now()) {
                    warn!(
                        "the tables are not swept for now, and what is over stays in them: {error}; raise LimitNOFILE= of the \
                         unit, or `ulimit -n`"
                    );
                }
            }
            swept => swept?,
        }
    }
}

/// Checks the backends that are to be checked, by the interfaces that this machine has for it now.
async fn check_backends(service: &Service, resolver: &Resolver, checker: &mut Checker<Service>) -> Result<()> {
    let plans = service.plans();
    let vips: BTreeSet<IpAddr> = plans.iter().flat_map(|plan| &plan.health.targets).map(SocketAddr::ip).collect();
    for vip in vips {
        let trouble = match resolver.way_to_vip(vip).await {
            // The second time it is there, if it was only just being made anew.
            Ok(interface) => match service.attach_probe(&interface).or_else(|_| service.attach_probe(&interface)) {
                Ok(()) => None,
                // One that has just gone is looked for anew with the next change.
                Err(error) if if_nametoindex(interface.as_str()).is_err() => Some(error.to_string()),
                Err(error) => return Err(error.into()),
            },
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
            match news {
                News::FailOpen(_) | News::Unmade { .. } => warn!("{news}"),
                News::Health { .. } | News::FailOpenEnded(_) => info!("{news}"),
            }
        }
    }
}

/// Reads the configuration again and puts it in force, if all of it holds; tells the operator what came of it.
async fn reload(
    service: &Arc<Service>,
    resolver: &Resolver,
    config_path: &Path,
    supervisor: &mut Supervisor,
) -> Result<Reload> {
    supervisor.reloading();
    let reloaded = put_in_force(service, resolver, config_path).await;
    service.note_reload(reloaded.is_ok());
    match &reloaded {
        Ok(reload) => {
            for warning in &reload.warnings {
                warn!("{warning}");
            }
            info!("reloaded: {}", reload.line());
        }
        Err(error) if is_refused(error) => error!("not reloaded, nothing has changed: {}", in_one_line(error)),
        Err(error) => error!("not reloaded, or not wholly: {}; reload again", in_one_line(error)),
    }
    supervisor.status(service.headline());
    supervisor.ready();
    reloaded
}

/// Says what a reload would change.
async fn plan(service: &Arc<Service>, resolver: &Resolver, config_path: &Path) -> Result<Reload> {
    let staged = service.stage(Config::load(config_path)?)?;
    let troubles =
        ways::find(resolver, staged.to_resolve().to_vec()).await.into_iter().filter_map(|(_, hop)| hop.err());
    let losses = troubles.map(|error| unreached(&error.to_string())).collect();
    let service = Arc::clone(service);
    let planned = spawn_blocking(move || service.plan(&staged)).await??;
    Ok(Reload { losses, ..planned })
}

/// Whether a configuration has not even been tried.
fn is_refused(error: &anyhow::Error) -> bool {
    let by_service = error.downcast_ref::<ServiceError>();
    error.is::<ConfigErrors>() || by_service.is_some_and(ServiceError::is_refusal)
}

fn fault(error: &anyhow::Error) -> Fault {
    let status = if is_refused(error) { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::INTERNAL_SERVER_ERROR };
    Fault::new(status, in_one_line(error))
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

async fn put_in_force(service: &Arc<Service>, resolver: &Resolver, config_path: &Path) -> Result<Reload> {
    let config = Config::load(config_path)?;
    let staged = service.stage(config)?;
    let mut hops = Vec::new();
    for (row, hop) in ways::find(resolver, staged.to_resolve().to_vec()).await {
        let hop = hop.map_err(|error| error.to_string());
        if let Err(error) = &hop {
            warn!(backend = row.name.name, "{}", unreached(error));
        }
        hops.push((row.id, hop));
    }
    let service = Arc::clone(service);
    Ok(spawn_blocking(move || service.commit(staged, hops)).await??)
}
