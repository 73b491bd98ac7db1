//! How the commands that stay write their log: for people, as JSON, or as fields of systemd's journal.
//!
//! A line never holds a client's address, key or token, nor a secret. The other commands do not log: they print.

use clap::{Args, ValueEnum};
use std::{
    env,
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
};
use tracing::{level_filters::LevelFilter, warn};
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// What the fields of a journal entry begin with.
const JOURNAL_PREFIX: &str = "WEIR";

/// How a command logs.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct LogArgs {
    /// How a log line is written, on standard error [default: journal where systemd keeps it there, else human]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// The least important lines that are written.
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    log_level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people; with colours on a terminal.
    Human,
    /// One JSON object a line.
    Json,
    /// Fields of systemd's journal.
    Journal,
}

/// The importance of a log line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum LogLevel {
    /// What has failed.
    Error,
    /// What an operator should look at.
    Warn,
    /// What has changed.
    #[default]
    Info,
    /// What is done and why.
    Debug,
    /// Every step.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

/// Has every log line of this process written as asked, from now on. Only the first call counts.
pub fn start(args: LogArgs) {
    let format =
        args.log_format.unwrap_or_else(|| if stderr_is_the_journal() { LogFormat::Journal } else { LogFormat::Human });
    let (layer, trouble) = match layer(format) {
        Ok(layer) => (layer, None),
        Err(error) => (human(), Some(error)),
    };
    let level = LevelFilter::from(args.log_level);
    // The libraries' own lines are news only where something is wrong.
    let targets =
        Targets::new().with_default(level.min(LevelFilter::WARN)).with_target(env!("CARGO_CRATE_NAME"), level);
    let _ = tracing_subscriber::registry().with(layer.with_filter(targets)).try_init();
    if let Some(error) = trouble {
        warn!("systemd's journal cannot be written to: {error}; logging to standard error");
    }
}

fn layer(format: LogFormat) -> io::Result<Box<dyn Layer<Registry> + Send + Sync>> {
    Ok(match format {
        LogFormat::Human => human(),
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).log_internal_errors(false).with_writer(io::stderr).boxed()
        }
        LogFormat::Journal => {
            let journal = tracing_journald::layer()?.with_field_prefix(Some(JOURNAL_PREFIX.to_owned()));
            journal.with_syslog_identifier("weir".to_owned()).boxed()
        }
    })
}

fn human() -> Box<dyn Layer<Registry> + Send + Sync> {
    let colours = io::stderr().is_terminal();
    fmt::layer().with_target(false).with_ansi(colours).log_internal_errors(false).with_writer(io::stderr).boxed()
}

/// Whether systemd has connected standard error to its journal: it names the device and inode of that socket.
fn stderr_is_the_journal() -> bool {
    let Ok(named) = env::var("JOURNAL_STREAM") else { return false };
    nix::sys::stat::fstat(io::stderr().as_fd()).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}
