//! `weir announce`: the bridge from a balancer's health to the BGP daemon beside it.

use super::finish_logged_on_one_thread;
use crate::{
    announce::{Answer, ExaBgp, Patience, Routes, Speaker, SpeakerError, Verdict, ask},
    config::Prefix,
    logging::{self, LogArgs},
    supervisor::Supervisor,
};
use anyhow::{Context as _, Result};
use clap::{ArgGroup, value_parser};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    ops::RangeInclusive,
    process::ExitCode,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

/// How often the balancer is asked.
const PERIOD: Duration = Duration::from_secs(1);
/// The kernel's own tables: `default`, `main` and `local`.
const TABLES_IN_USE: RangeInclusive<u32> = 253..=255;

/// What `weir announce` is told.
#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("speaker").required(true).args(["exabgp", "table"]))]
pub struct Args {
    /// For ExaBGP, as a process of its configuration: write its commands to standard output.
    #[arg(long)]
    exabgp: bool,
    /// For BIRD: keep the VIPs as routes in this table of the kernel's, which no packet is looked up in.
    #[arg(long, value_name = "NUMBER", value_parser = unused_table)]
    table: Option<u32>,
    /// What ExaBGP is to say of each route beside its next hop, in its words, such as `med 100 community [65000:1]`.
    #[arg(long, value_name = "WORDS", default_value = "", conflicts_with = "table")]
    attributes: String,
    /// Where the balancer is asked: `listen` in its [metrics].
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9107")]
    metrics: SocketAddr,
    /// Announce after so many good answers in a row, a second apart.
    #[arg(long, value_name = "ANSWERS", default_value_t = 3, value_parser = value_parser!(u32).range(1..=3600))]
    rise: u32,
    /// Withdraw after so many seconds without an answer; a restart of the balancer is to take less. A balancer that says that
    /// it is not well is withdrawn at once.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = value_parser!(u32).range(1..=3600))]
    silence: u32,
    #[command(flatten)]
    log: LogArgs,
}

fn unused_table(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number) if number > 0 && !TABLES_IN_USE.contains(&number) => Ok(number),
        Ok(_) => Err("packets are looked up in tables 253 to 255, and 0 is none; take another, such as 87".to_owned()),
        Err(_) => Err("a table is a number; take one that `ip rule` does not show, such as 87".to_owned()),
    }
}

/// Announces until SIGTERM or SIGINT, or until ExaBGP is gone; then withdraws.
pub fn announce(args: &Args) -> ExitCode {
    logging::start(args.log);
    finish_logged_on_one_thread(bridge(args))
}

async fn bridge(args: &Args) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("no handler for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("no handler for SIGINT")?;
    let patience = Patience { rise: args.rise, silence: Duration::from_secs(args.silence.into()) };
    let mut announcer = Announcer { speaker: speaker(args).await?, verdict: Verdict::new(patience), told: None };
    let mut supervisor = Supervisor::find();
    supervisor.ready();
    let mut due = interval(PERIOD);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = supervisor.life_is_due() => supervisor.alive(),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = announcer.speaker.gone() => {
                info!("ending, for ExaBGP is gone");
                return Ok(());
            }
            _ = due.tick() => {
                let answer = ask(args.metrics).await;
                announcer.follow(answer).await?;
                supervisor.status(announcer.headline());
            }
        }
    }
    supervisor.stopping();
    announcer.withdraw().await?;
    info!("ending, nothing is announced");
    Ok(())
}

async fn speaker(args: &Args) -> Result<Speaker, SpeakerError> {
    match args.table {
        Some(table) => Ok(Speaker::Kernel(Routes::find(table).await?)),
        None => Ok(Speaker::ExaBgp(ExaBgp::begin(&args.attributes)?)),
    }
}

/// Has the verdict followed, and the operator told. What a former process has left goes with the first answer.
struct Announcer {
    speaker: Speaker,
    verdict: Verdict,
    /// The headline that the log has last.
    told: Option<String>,
}

impl Announcer {
    async fn follow(&mut self, answer: Answer) -> Result<(), SpeakerError> {
        self.verdict.hear(answer, Instant::now());
        self.speaker.announce(self.verdict.announced()).await?;
        let headline = self.headline();
        if self.told.as_ref() != Some(&headline) {
            if self.verdict.why().is_empty() {
                info!("{headline}");
            } else {
                warn!("{headline}");
            }
            self.told = Some(headline);
        }
        Ok(())
    }

    async fn withdraw(&mut self) -> Result<(), SpeakerError> {
        self.speaker.announce(&BTreeSet::new()).await
    }

    fn headline(&self) -> String {
        let (announced, why) = (self.verdict.announced(), self.verdict.why());
        if announced.is_empty() {
            return format!("nothing is announced: {why}");
        }
        let prefixes: Vec<_> = announced.iter().map(Prefix::to_string).collect();
        let prefixes = prefixes.join(", ");
        if why.is_empty() { format!("announced: {prefixes}") } else { format!("still announced: {prefixes}; {why}") }
    }
}
