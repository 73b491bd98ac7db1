//! `weir agent`: on a backend, takes the balancers' tunnels off, clamps the MSS, and follows the MPTCP connections that
//! live here. The first two are the kernel's from then on and outlive the process; `weir agent --detach` ends them.

use super::{finish, finish_logged};
use crate::{
    agent::{Counts, Known, Memory, Reporter, Teller},
    bpf::{self, AgentCounters, AgentPrograms, Holder, LoadError, Pins, Removed},
    bus::Bus,
    config::{self, AgentConfig, InterfaceName, Name, Prefix, XdpMode},
    logging::{self, LogArgs},
    metrics::{Listener, Readiness, agent::AgentPage},
    resolve::Resolver,
    supervisor::Supervisor,
};
use anyhow::{Context as _, Result, bail};
use lb_common::clamp::Rule;
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{error, info, warn};

/// Where the configuration is unless the operator says otherwise.
const CONFIG: &str = "/etc/weir/agent.toml";

/// What `weir agent` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent's configuration.
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    config: PathBuf,
    /// Read the configuration, say what is wrong with it, and do nothing else.
    #[arg(long, conflicts_with = "detach")]
    check: bool,
    /// Take away what an agent that no longer runs has left on the interfaces, and do nothing else.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    log: LogArgs,
}

/// Serves a backend until SIGTERM or SIGINT. Where the programs could not be attached, those before them stay.
pub fn agent(args: &Args) -> ExitCode {
    if args.detach {
        return finish(async { detach(&args.config) });
    }
    if args.check {
        return check(&args.config);
    }
    logging::start(args.log);
    match AgentConfig::load(&args.config) {
        Ok(config) => finish_logged(serve(Arc::new(config))),
        Err(errors) => {
            for line in errors.to_string().lines() {
                error!("{line}");
            }
            ExitCode::from(super::BAD_CONFIG)
        }
    }
}

fn check(file: &Path) -> ExitCode {
    match AgentConfig::load(file) {
        Ok(config) => {
            println!("{} is good: {}", file.display(), config.summary());
            ExitCode::SUCCESS
        }
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::from(super::BAD_CONFIG)
        }
    }
}

async fn serve(config: Arc<AgentConfig>) -> Result<()> {
    let signals = Signals::catch()?;
    let listener = match config.metrics {
        Some(metrics) => Some(Listener::bind(metrics.listen).await?),
        None => None,
    };
    let pins = Pins::open(&config.pins)?;
    let counters = bring_up(&config, &pins).await?;

    let mut reporter = match Reporter::subscribe(Arc::clone(&config)).await {
        Ok(reporter) => Some(reporter),
        Err(error) => {
            warn!("no connection is reported: {error}");
            None
        }
    };
    let (known, counts): (Arc<Known>, Arc<Counts>) =
        reporter.as_ref().map_or_else(Default::default, |reporter| (reporter.known(), reporter.counts()));
    if let Some(reporter) = &mut reporter {
        // Who asks for it is told all of it.
        reporter.resync(&mut ()).await?;
    }
    let bus = match &config.bus {
        Some(settings) => Some(join_cluster(settings, &config.backend, Arc::clone(&known)).await?),
        None => None,
    };
    if let Some(listener) = listener {
        let page = AgentPage { pools: pools(&config), counters, known, counts };
        let (_, readiness) = watch::channel(Readiness::Ready);
        tokio::spawn(async move {
            listener.serve_page(Arc::new(page), readiness).await;
        });
    }
    let interfaces = interfaces(&config);
    let mut supervisor = Supervisor::find();
    supervisor.status(format!("{}: taking tunnels off on {interfaces}", config.backend));
    supervisor.ready();
    info!(backend = config.backend.as_str(), "ready, taking tunnels off on {interfaces}");
    let mut teller =
        bus.as_ref().map(|bus| Teller { backend: config.backend.clone(), publisher: bus.publisher.clone() });
    let ended = wait(signals, reporter, &mut teller, &mut supervisor).await;
    supervisor.stopping();
    if let Some(bus) = bus {
        bus.end().await;
    }
    ended?;
    info!(
        "ending; {interfaces} goes on taking tunnels off, for connections live on without an agent, until `weir agent \
         --detach`"
    );
    Ok(())
}

/// Becomes a member of the balancers' cluster. Nobody is waited for: what is told meanwhile is told when the bus is there.
async fn join_cluster(settings: &config::Bus, backend: &Name, known: Arc<Known>) -> Result<Bus> {
    let memory = Memory { backend: backend.clone(), known };
    Ok(Bus::start(settings, Arc::new(memory)).await?)
}

/// Puts the programs on the interfaces, in the place of those of an agent before.
async fn bring_up(config: &AgentConfig, pins: &Pins) -> Result<AgentCounters> {
    let resolver = Resolver::connect()?;
    let mut mtu = u16::MAX;
    for interface in &config.interfaces {
        mtu = mtu.min(resolver.interface(interface.as_str()).await?.mtu);
    }
    let mut programs = AgentPrograms::load()?;
    for &balancer in &config.balancers {
        programs.accept(balancer, config.gue_port).with_context(|| format!("no room for balancer {balancer}"))?;
    }
    let rules = rules(config, mtu);
    for (&vip, &rule) in &rules {
        programs.clamp(vip, rule).with_context(|| format!("no room for VIP {vip}"))?;
    }
    let interfaces = config.interfaces.iter().map(InterfaceName::as_str);
    let mode = match config.xdp_mode {
        XdpMode::Native => aya::programs::XdpMode::Driver,
        XdpMode::Generic => aya::programs::XdpMode::Skb,
    };
    match programs.attach(interfaces, mode, !rules.is_empty(), pins) {
        Err(LoadError::Busy { interface }) => {
            let Some(xdp) = resolver.xdp_program(&interface).await? else {
                return Err(LoadError::Busy { interface }.into());
            };
            let holder = Holder::of(xdp.program);
            bail!("{interface} already has an XDP program, {holder}; detach that first, or use another interface")
        }
        attached => attached?,
    }
    Ok(programs.into_counters())
}

/// What the clamp is to know of each address or prefix; nothing where it is off.
fn rules(config: &AgentConfig, mtu: u16) -> BTreeMap<Prefix, Rule> {
    let mut ports: BTreeMap<Prefix, Vec<[u16; 2]>> = BTreeMap::new();
    for vip in &config.vips {
        ports.entry(vip.prefix).or_default().push([vip.ports.first(), vip.ports.last()]);
    }
    let rule = |(vip, ports): (Prefix, Vec<_>)| Some((vip, Rule::new(config.mss(vip.address(), mtu)?, &ports)?));
    ports.into_iter().filter_map(rule).collect()
}

/// Follows the connections until a signal ends it.
async fn wait(
    mut signals: Signals,
    mut reporter: Option<Reporter>,
    teller: &mut Option<Teller>,
    supervisor: &mut Supervisor,
) -> Result<()> {
    let following = async {
        match &mut reporter {
            Some(reporter) => reporter.follow(teller).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(following);
    loop {
        tokio::select! {
            () = supervisor.life_is_due() => supervisor.alive(),
            Err(error) = &mut following => return Err(error.into()),
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("no handler for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("no handler for SIGINT")?,
        })
    }
}

fn interfaces(config: &AgentConfig) -> String {
    let names: Vec<_> = config.interfaces.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn pools(config: &AgentConfig) -> Vec<Name> {
    let mut pools: Vec<_> = config.vips.iter().map(|vip| vip.pool.clone()).collect();
    pools.sort();
    pools.dedup();
    pools
}

/// Removes the programs of an agent that no longer runs, and nothing else.
fn detach(config: &Path) -> Result<()> {
    let root = match std::fs::metadata(config) {
        Err(error) if error.kind() == ErrorKind::NotFound => PathBuf::from(AgentConfig::PINS),
        _ => AgentConfig::load(config)?.pins,
    };
    let Removed { interfaces, pins, foreign } = bpf::detach(&root)?;
    for path in &foreign {
        eprintln!("weir: {} is not Weir's, and stays", path.display());
    }
    match (pins, root.display()) {
        (0, root) => println!("nothing of an agent's is under {root}"),
        (pins, root) => println!("no longer on {}; {pins} pins under {root} are removed", interfaces.join(", ")),
    }
    Ok(())
}
