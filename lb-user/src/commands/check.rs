//! `weir check`: says whether a configuration is good, and everything that is wrong with it.
//!
//! It reads the file and the key file that it names. It never touches the network or a running balancer.

use crate::config::Config;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `weir check` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
}

/// Checks a file: what it holds goes to standard output, what is wrong or odd to standard error.
///
/// Where nobody reads the words any more, the exit code still tells.
pub fn check(Args { config: path }: &Args) -> ExitCode {
    match Config::load(path) {
        Ok(config) => {
            for warning in &config.warnings {
                let _ = writeln!(io::stderr(), "warning: {warning}");
            }
            let (file, summary) = (path.display(), config.summary());
            let _ = writeln!(io::stdout(), "{file} is good: {summary}");
            ExitCode::SUCCESS
        }
        Err(errors) => {
            let _ = writeln!(io::stderr(), "{errors}");
            ExitCode::from(super::BAD_CONFIG)
        }
    }
}
