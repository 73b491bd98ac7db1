//! Set-up: what this machine lacks is installed, what is there is only looked at.
//!
//! Every step looks first, so a second run changes nothing and takes well under a second.
//! A step that fails must not keep the others from being tried: the problems are told together
//! at the end.

use std::{collections::BTreeSet, path::Path, time::Instant};

use anyhow::{Error, Result, bail};

use crate::{child, progress, setup::apt::Apt};

mod apt;
mod linker;
mod machine;
pub(crate) mod toolchain;
mod tools;

/// How much of the machine is to be set up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// To compile Weir.
    Build,
    /// To run the lab: demo and bench.
    Lab,
    /// To run every test and lint.
    Tests,
}

/// Installs the packages of those commands that are missing.
///
/// # Errors
///
/// What could not be had.
pub(crate) fn have(commands: &[(&str, &str)]) -> Result<()> {
    let missing: BTreeSet<&str> =
        commands.iter().filter(|(command, _)| !tools::is_on_path(command)).map(|(_, package)| *package).collect();
    if missing.is_empty() { Ok(()) } else { Apt::default().install(&missing) }
}

/// Takes one file out of a package.
///
/// # Errors
///
/// The package cannot be had, or the file cannot be written.
pub(crate) fn extract(package: &str, file: &str, to: &Path) -> Result<()> {
    Apt::default().extract(package, file, to)
}

/// Sets the machine up.
///
/// # Errors
///
/// What could not be had, all of it, each with what to do.
pub(crate) fn set_up(scope: Scope) -> Result<()> {
    let started = Instant::now();
    let mut apt = Apt::default();
    let mut problems: Vec<Error> = toolchain::set_up(scope, &mut apt).err().into_iter().collect();
    if scope >= Scope::Lab {
        problems.extend(tools::set_up(scope, &mut apt));
        problems.extend(machine::set_up());
    }
    if child::interrupted() {
        bail!("interrupted by Ctrl-C");
    }
    if problems.is_empty() {
        progress::say_timed("Ready", "setup", started);
        return Ok(());
    }
    bail!("setup is not complete:\n{}", list(&problems));
}

fn list(problems: &[Error]) -> String {
    let items: Vec<String> =
        problems.iter().map(|problem| format!("  - {}", format!("{problem:#}").replace('\n', "\n    "))).collect();
    items.join("\n")
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn scopes_grow() {
        assert!(Scope::Build < Scope::Lab && Scope::Lab < Scope::Tests);
    }

    #[test]
    fn problems_are_listed_one_below_the_other() {
        let problems = [anyhow!("no tshark:\ntype this"), anyhow!("not root")];
        assert_eq!(list(&problems), "  - no tshark:\n    type this\n  - not root");
    }
}
