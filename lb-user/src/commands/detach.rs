//! `weir detach`: takes the data path down, when no controller runs. It removes what Weir has put into the kernel, and
//! nothing else.

use super::{complain, finish, put};
use crate::{
    bpf::{self, Removed},
    config::{Balancer, Config},
};
use anyhow::{Context as _, Result};
use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What `weir detach` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration, which names the directory.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// The directory of the pins, whatever the configuration says.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "config")]
    pins: Option<PathBuf>,
}

/// Removes everything, unless a controller runs.
pub fn detach(args: &Args) -> ExitCode {
    finish(async { remove(args) })
}

fn remove(args: &Args) -> Result<()> {
    let root = match &args.pins {
        Some(pins) => pins.clone(),
        None => pins_of(&args.config)?,
    };
    let Removed { interfaces, pins, foreign, .. } = bpf::detach(&root)?;
    for path in &foreign {
        complain(format_args!("weir: {} is not Weir's, and stays", path.display()));
    }
    let root = root.display();
    match (pins, &interfaces[..]) {
        (0, _) => put(&format!("nothing of Weir's is under {root}\n")),
        (_, []) => put(&format!("{pins} pins under {root} are removed; no interface had the program\n")),
        (_, interfaces) => {
            put(&format!("no longer on {}; {pins} pins under {root} are removed\n", interfaces.join(", ")))
        }
    }
}

/// The directory that a configuration names. A file that does not hold is asked no more: the operator says which. Only where
/// nobody has named a file, and there is none, is it the usual directory: one that is misspelt must not take down another
/// balancer.
fn pins_of(config: &Path) -> Result<PathBuf> {
    match std::fs::metadata(config) {
        Err(error) if error.kind() == ErrorKind::NotFound && config == Path::new(super::CONFIG) => {
            Ok(Balancer::PINS.into())
        }
        _ => Ok(Config::load(config).context("name the directory with --pins")?.balancer.pins),
    }
}
