//! `weir secret`: makes the secrets of stateless tokens, adds epochs to them, and shows what is in them.
//!
//! It prints numbers, times and fingerprints. A key goes into the file and nowhere else.

use super::{Output, finish, say};
use crate::config::{EpochSecret, TokenSecret, rfc3339};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::{
    fmt,
    path::{self, Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use time::UtcDateTime;

/// What `weir secret` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// How to print it.
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a new secret to a file that is not there yet, for its owner alone.
    New(File),
    /// Add an epoch to a secret. Every balancer and agent must have read the file before the epoch begins.
    Rotate(Rotate),
    /// Show the epochs of a secret, and what tells their keys apart, but no key.
    ShowEpochs(File),
}

#[derive(Debug, clap::Args)]
struct File {
    /// The file, which only its owner may read.
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct Rotate {
    #[command(flatten)]
    file: File,
    /// How long it takes until every balancer and agent has read the file: agents make tokens of the new epoch after that.
    /// A number with s, m, h or d behind it.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    after: Duration,
}

/// Makes, rotates or shows a secret.
pub fn secret(args: &Args) -> ExitCode {
    finish(async { say(&told(&args.command, UtcDateTime::now())?, args.output) })
}

fn told(command: &Command, now: UtcDateTime) -> Result<Told> {
    match command {
        Command::New(File { file }) => {
            let secret = TokenSecret::random(now)?;
            secret.create(file)?;
            Ok(Told::of(file, &secret, now))
        }
        Command::Rotate(Rotate { file: File { file }, after }) => {
            let rotated = load(file)?.rotated(now, *after)?;
            rotated.secret.replace(file)?;
            let gone = rotated.gone.map(|gone| gone.epoch.number());
            Ok(Told { gone, ..Told::of(file, &rotated.secret, now) })
        }
        Command::ShowEpochs(File { file }) => Ok(Told::of(file, &load(file)?, now)),
    }
}

fn load(file: &Path) -> Result<TokenSecret> {
    let path = path::absolute(file).with_context(|| format!("{} has no absolute path", file.display()))?;
    Ok(TokenSecret::load(&path)?)
}

/// What is in a secret.
#[derive(Debug, Serialize)]
struct Told {
    file: String,
    /// The oldest first.
    epochs: Vec<Shown>,
    /// The epoch that had to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<u8>,
}

#[derive(Debug, Serialize)]
struct Shown {
    epoch: u8,
    minted_from: String,
    fingerprint: String,
    state: State,
}

/// Where an epoch stands.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    /// Its tokens are read, and no more are made.
    Past,
    /// Its tokens are made.
    Minted,
    /// Its tokens will be made.
    ToCome,
}

impl Told {
    fn of(file: &Path, secret: &TokenSecret, now: UtcDateTime) -> Self {
        let minted = secret.minted_at(now);
        let shown = |epoch: &EpochSecret| Shown {
            epoch: epoch.epoch.number(),
            minted_from: rfc3339(epoch.minted_from),
            fingerprint: epoch.fingerprint().to_string(),
            state: match minted {
                Some(minted) if minted == epoch => State::Minted,
                _ if epoch.minted_from <= now => State::Past,
                _ => State::ToCome,
            },
        };
        let epochs = secret.epochs().iter().map(shown).collect();
        Self { file: file.display().to_string(), epochs, gone: None }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.file)?;
        for Shown { epoch, minted_from, fingerprint, state } in &self.epochs {
            let state = match state {
                State::Past => "is read",
                State::Minted => "is read and minted",
                State::ToCome => "is read, and minted then",
            };
            writeln!(f, "  epoch {epoch}  from {minted_from}  fingerprint {fingerprint}  {state}")?;
        }
        match self.gone {
            Some(epoch) => writeln!(f, "  epoch {epoch} is gone: joins of connections that it made are unknown now"),
            None => Ok(()),
        }
    }
}

/// A duration as it is typed, such as `10m`.
fn duration(text: &str) -> Result<Duration, &'static str> {
    const UNITS: [(char, u64); 4] = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let seconds = UNITS.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    seconds.map(Duration::from_secs).ok_or("write a number with s, m, h or d behind it, such as 10m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86_400)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "10", "m", "-1m", "1.5h", "10 m", "99999999999999999999s", "18446744073709551615d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
