//! `weir generate`, which no help shows: writes the documents that the code knows best, for packages and the repository.

use super::finish;
use crate::reference;
use anyhow::{Context as _, Result};
use clap::{Command, Subcommand};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// What `weir generate` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A man page for each command.
    Man {
        /// Where to.
        directory: PathBuf,
    },
    /// The pages of the reference.
    Reference {
        /// Where to.
        directory: PathBuf,
    },
}

/// Writes files into a directory, which is made if need be.
pub fn generate(args: &Args, weir: Command) -> ExitCode {
    finish(async { write(args, weir) })
}

fn write(args: &Args, weir: Command) -> Result<()> {
    match &args.what {
        What::Man { directory } => {
            make(directory)?;
            clap_mangen::generate_to(weir, directory)
                .with_context(|| format!("no man pages in {}", directory.display()))
        }
        What::Reference { directory } => {
            make(directory)?;
            for (name, page) in reference::pages(weir) {
                let path = directory.join(name);
                fs::write(&path, page).with_context(|| format!("{} could not be written", path.display()))?;
            }
            Ok(())
        }
    }
}

fn make(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("no directory {}", directory.display()))
}
