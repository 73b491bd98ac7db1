//! `weir agent keys`: what the search for keys can do here, measured by the code that an agent runs.

use super::{Output, finish, say};
use crate::agent::mint::Candidates;
use anyhow::{Context as _, Result};
use lb_common::{
    hash::SipKey,
    stateless::{Epoch, IdBits, Mark, TokenId},
};
use serde::Serialize;
use std::{
    fmt,
    process::ExitCode,
    time::{Duration, Instant},
};

/// What `weir agent keys` is told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The bits of ids, which follow from `max_backends`: 8 for 256.
    #[arg(long, value_name = "BITS", value_delimiter = ',', default_value = "6,8,10,12", value_parser = clap::value_parser!(u32).range(1..=12))]
    bits: Vec<u32>,
    /// For how long each is measured.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
}

/// What one CPU does in a second.
#[derive(Serialize)]
struct Rate {
    id_bits: u32,
    keys_per_second: u64,
    candidates_per_second: u64,
}

#[derive(Serialize)]
struct Rates {
    rates: Vec<Rate>,
}

/// Measures, and prints.
pub(super) fn keys(args: &Args) -> ExitCode {
    finish(async { say(&measured(args)?, args.output) })
}

fn measured(args: &Args) -> Result<Rates> {
    let duration = Duration::from_secs(args.seconds);
    let rates: Result<Vec<_>> = args.bits.iter().map(|&bits| rate(bits, duration)).collect();
    Ok(Rates { rates: rates? })
}

fn rate(id_bits: u32, duration: Duration) -> Result<Rate> {
    let bits = IdBits::for_backends(1 << id_bits).context("the bits are out of range")?;
    let mut key = [0; 16];
    getrandom::fill(&mut key).map_err(std::io::Error::other)?;
    let mark = Mark { id: TokenId(0), epoch: Epoch::FIRST, key: SipKey::from_bytes(key), bits };
    let mut candidates = Candidates::new()?;
    let (mut found, mut looked_at) = (0, 0);
    let begun = Instant::now();
    while begun.elapsed() < duration {
        found += candidates.batch(&mark).len() as u64;
        looked_at += Candidates::BATCH as u64;
    }
    let millis = begun.elapsed().as_millis().max(1);
    let per_second = |count: u64| u64::try_from(u128::from(count) * 1000 / millis).unwrap_or(u64::MAX);
    Ok(Rate { id_bits, keys_per_second: per_second(found), candidates_per_second: per_second(looked_at) })
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>7}  {:>12}  {:>18}", "id bits", "keys a second", "of candidates")?;
        for Rate { id_bits, keys_per_second, candidates_per_second } in &self.rates {
            writeln!(f, "{id_bits:>7}  {keys_per_second:>13}  {candidates_per_second:>17}")?;
        }
        writeln!(f, "by one CPU")
    }
}
