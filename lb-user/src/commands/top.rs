//! `weir top`: what a running balancer does, once a second.

use super::{Output, finish, put, put_json};
use crate::{
    admin::{self, Client, ClientError, status::Status},
    top::{Size, Terminal, View, render},
};
use anyhow::{Context as _, Result};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

/// What to show, and how.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=3600))]
    interval: u64,
    /// Print one view and end.
    #[arg(long)]
    once: bool,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human, requires_if("json", "once"))]
    output: Output,
    /// The admin socket.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET)]
    socket: PathBuf,
}

/// Width of what goes to no terminal.
const COLUMNS: usize = 80;

/// A status, and when it was so.
struct Look {
    status: Status,
    at: Instant,
}

impl Look {
    async fn take(socket: &Path) -> Result<Self, ClientError> {
        let status = Client::new(socket).get("/v1/status").await?;
        Ok(Self { status, at: Instant::now() })
    }

    fn since(&self, before: &Self) -> View {
        View::between(&before.status, &self.status, self.at - before.at)
    }
}

/// Shows the balancer behind a socket until `q` or a signal, or once.
pub fn top(args: &Args) -> ExitCode {
    finish(show(args))
}

async fn show(args: &Args) -> Result<()> {
    let period = Duration::from_secs(args.interval);
    let first = Look::take(&args.socket).await?;
    if !args.once {
        return watch(&args.socket, period, first).await;
    }
    sleep(period).await;
    let view = Look::take(&args.socket).await?.since(&first);
    match args.output {
        Output::Human => {
            let lines = render(&view, Size { columns: COLUMNS, rows: None }, None);
            put(&lines.iter().fold(String::new(), |text, line| text + line + "\n"))
        }
        Output::Json => put_json(&view),
    }
}

async fn watch(socket: &Path, period: Duration, first: Look) -> Result<()> {
    let handler = |kind: SignalKind| -> Result<Signal> { signal(kind).context("no handler for signals") };
    let (mut interrupt, mut terminate) = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let mut resized = handler(SignalKind::window_change())?;
    let mut terminal = Terminal::take()?;
    let mut looks = interval(period);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = first.since(&first);
    let mut last = first;
    let mut trouble = None;
    loop {
        terminal.show(&render(&view, terminal.size(), trouble.as_deref()))?;
        tokio::select! {
            _ = looks.tick() => match Look::take(socket).await {
                Ok(look) => {
                    view = look.since(&last);
                    (last, trouble) = (look, None);
                }
                // It may be about to start again.
                Err(error) => trouble = Some(error.to_string()),
            },
            _ = resized.recv() => {}
            key = terminal.key() => if matches!(key, b'q' | b'Q') { return Ok(()) },
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
    }
}
