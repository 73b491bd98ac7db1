//! `weir agent`: on a backend, takes the balancers' tunnels off, clamps the MSS, and follows the MPTCP connections that
//! live here. The first two are the kernel's from then on and outlive the process; `weir agent --detach` ends them.

use super::{complain, finish, finish_logged_on_one_thread, keys, put};
use crate::{
    agent::{
        Counts, Known, Memory, Place, Reporter, Teller,
        mint::{self, Feed, Minter, Needs},
    },
    bpf::{self, AgentCounters, AgentPrograms, Holder, LoadError, MintTables, Pins, Removed},
    bus::Bus,
    config::{self, AgentConfig, AgentVip, InterfaceName, Name, Prefix, XdpMode},
    logging::{self, LogArgs},
    metrics::{
        Listener,
        agent::{AgentPage, MintPage},
    },
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
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

/// Where the configuration is unless the operator says otherwise.
const CONFIG: &str = "/etc/weir/agent.toml";

/// What `weir agent` is told.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
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
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Measure how many keys for minting a CPU of this machine finds in a second.
    Keys(keys::Args),
}

/// Serves a backend until SIGTERM or SIGINT. Where the programs could not be attached, those before them stay.
pub fn agent(args: &Args) -> ExitCode {
    if let Some(Command::Keys(args)) = &args.command {
        return keys::keys(args);
    }
    if args.detach {
        return finish(async { detach(&args.config) });
    }
    if args.check {
        return check(&args.config);
    }
    logging::start(args.log);
    match AgentConfig::load(&args.config) {
        Ok(config) => finish_logged_on_one_thread(serve(Arc::new(config))),
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
        Ok(config) => finish(async { put(&format!("{} is good: {}\n", file.display(), config.summary())) }),
        Err(errors) => {
            complain(&errors);
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
    if mint::restore(&pins)? {
        info!("net.ipv4.tcp_syncookies is what it was before an agent was killed");
    }
    let (counters, mint) = bring_up(&config, &pins).await?;

    let mut reporter = match Reporter::subscribe(Arc::clone(&config)).await {
        Ok(reporter) => Some(reporter),
        Err(error) => {
            warn!("no connection is reported: {error}");
            None
        }
    };
    let (known, counts): (Arc<Known>, Arc<Counts>) =
        reporter.as_ref().map_or_else(Default::default, |reporter| (reporter.known(), reporter.counts()));
    let (mut minter, mut mint_page) = (None, None);
    if let (Some(reporter), Some((mut tables, mtu)), Some(token)) = (&mut reporter, mint, &config.token) {
        let counters = tables.take_counters();
        let (teller, heard) = Feed::new();
        reporter.tell_minter(teller);
        let started = Minter::start(Arc::clone(&config), token, Needs { tables, pins, heard, mtu })?;
        mint_page = counters.map(|counters| MintPage { counters, counts: started.counts(), pool: token.pool.clone() });
        minter = Some(started);
    }
    if let Some(reporter) = &mut reporter {
        // Who asks for it is told all of it.
        reporter.resync(&mut ()).await?;
    }
    let bus = match &config.bus {
        Some(settings) => Some(join_cluster(settings, &config.backend, Arc::clone(&known)).await?),
        None => None,
    };
    let place = Place::new(Resolver::connect()?, config.interfaces.clone());
    let (readiness, attachments) = (place.readiness(), place.attachments());
    tokio::spawn(place.follow());
    if let Some(listener) = listener {
        let publisher = bus.as_ref().map(|bus| bus.publisher.clone());
        let page =
            AgentPage { pools: pools(&config), counters, known, counts, publisher, mint: mint_page, attachments };
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
    let ended = wait(signals, reporter, &mut teller, minter.as_mut(), &mut supervisor).await;
    supervisor.stopping();
    if let Some(bus) = bus {
        bus.end().await;
    }
    ended?;
    if let Some(token) = &config.token {
        info!(
            "connections of {} are plain TCP without an agent: keys that the kernel chooses would name any backend, so they \
             are kept at home",
            token.pool
        );
    }
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

/// What an operator must know before keys that the kernel chooses go out again.
const KERNELS_KEYS: &str = "connections speak MPTCP with keys of the kernel's choice from now on, which name any backend: take \
                            this one out of the balancers' pool, or \"token\" out of its ways";

/// Puts the programs on the interfaces, in the place of those of an agent before.
async fn bring_up(config: &AgentConfig, pins: &Pins) -> Result<(AgentCounters, Option<(MintTables, u16)>)> {
    let resolver = Resolver::connect()?;
    let mut mtu = u16::MAX;
    for interface in &config.interfaces {
        mtu = mtu.min(resolver.interface(interface.as_str()).await?.mtu);
    }
    let mut programs = AgentPrograms::load(config.token.as_ref().map(|token| token.keys))?;
    for &balancer in &config.balancers {
        programs.accept(balancer, config.gue_port).with_context(|| format!("no room for balancer {balancer}"))?;
    }
    if config.token.is_none() && pins.keep_keys() {
        warn!("there is no [token] any more: {KERNELS_KEYS}");
    }
    let rules = rules(config, mtu);
    for (&vip, &rule) in &rules {
        programs.clamp(vip, rule).with_context(|| format!("no room for VIP {vip}"))?;
    }
    if let Some(mint) = programs.mint() {
        for (vip, rule) in plain_rules(config) {
            mint.vips
                .write(vip.len_v6(), vip.address().into(), rule)
                .with_context(|| format!("no room for VIP {vip}"))?;
        }
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
    let (counters, mut mint) = programs.into_parts();
    if let Some(tables) = &mut mint {
        tables.inherit(pins)?;
    }
    Ok((counters, mint.map(|tables| (tables, mtu))))
}

/// What the clamp is to know of each address or prefix; nothing where it is off.
fn rules(config: &AgentConfig, mtu: u16) -> BTreeMap<Prefix, Rule> {
    let rule = |(vip, ports): (Prefix, Vec<_>)| Some((vip, Rule::new(config.mss(vip.address(), mtu)?, &ports)?));
    ports(config.vips.iter()).into_iter().filter_map(rule).collect()
}

/// The same of the VIPs that are minted for: what is not minted leaves them as plain TCP.
fn plain_rules(config: &AgentConfig) -> BTreeMap<Prefix, Rule> {
    let rule = |(vip, ports): (Prefix, Vec<_>)| Some((vip, Rule::new(u16::MAX, &ports)?));
    ports(config.minted_vips()).into_iter().filter_map(rule).collect()
}

fn ports<'v>(vips: impl Iterator<Item = &'v AgentVip>) -> BTreeMap<Prefix, Vec<[u16; 2]>> {
    let mut ports: BTreeMap<Prefix, Vec<[u16; 2]>> = BTreeMap::new();
    for vip in vips {
        ports.entry(vip.prefix).or_default().push([vip.ports.first(), vip.ports.last()]);
    }
    ports
}

/// Follows the connections until a signal ends it.
async fn wait(
    mut signals: Signals,
    mut reporter: Option<Reporter>,
    teller: &mut Option<Teller>,
    minter: Option<&mut Minter>,
    supervisor: &mut Supervisor,
) -> Result<()> {
    let reload = minter.as_ref().map(|minter| minter.reload());
    let minting = async {
        match minter {
            Some(minter) => minter.run().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(minting);
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
            Err(error) = &mut minting => return Err(error.into()),
            _ = signals.reload.recv() => {
                if let Some(secret) = &reload {
                    secret.notify_one();
                } else {
                    info!("there is no secret to be read again; a restart reads the configuration");
                }
            }
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    reload: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("no handler for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("no handler for SIGINT")?,
            reload: signal(SignalKind::hangup()).context("no handler for SIGHUP")?,
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
        // A file that is named and misspelt must not take down another agent.
        Err(error) if error.kind() == ErrorKind::NotFound && config == Path::new(CONFIG) => AgentConfig::PINS.into(),
        _ => AgentConfig::load(config)?.pins,
    };
    let Removed { interfaces, pins, foreign, minted } = bpf::detach(&root)?;
    if minted {
        complain(format_args!("weir: {KERNELS_KEYS}"));
    }
    for path in &foreign {
        complain(format_args!("weir: {} is not Weir's, and stays", path.display()));
    }
    match (pins, root.display()) {
        (0, root) => put(&format!("nothing of an agent's is under {root}\n")),
        (pins, root) => put(&format!("no longer on {}; {pins} pins under {root} are removed\n", interfaces.join(", "))),
    }
}
