//! Debian packages, by apt-get. It must never ask a question, remove a package or start a service.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;

use crate::{child, progress, workspace};

/// Seconds to wait for another package manager to finish.
const LOCK_TIMEOUT_S: u32 = 300;

/// Packages go from here onto the machine.
#[derive(Default)]
pub(crate) struct Apt {
    lists_were_refreshed: bool,
}

impl Apt {
    /// Installs packages with what they need, but not what they recommend.
    ///
    /// # Errors
    ///
    /// No apt-get, no root, a package that is not to be had, or apt-get fails.
    pub(crate) fn install(&mut self, packages: &BTreeSet<&str>) -> Result<()> {
        let names = packages.iter().copied().collect::<Vec<_>>().join(" ");
        self.refresh_lists().with_context(|| format!("cannot install {names}"))?;
        let started = Instant::now();
        progress::say("Installing", &names);
        let mut install = apt_get("install");
        install.args(["--no-install-recommends", "--no-remove"]).args(packages);
        child::run_logged(&mut install, &log())
            .with_context(|| format!("cannot install {names}: see what apt-get says and repeat by hand"))?;
        progress::say_timed("Installed", names, started);
        Ok(())
    }

    /// Takes one file out of a package, and leaves the rest: no service, no user, no dependency.
    ///
    /// # Errors
    ///
    /// As [`Apt::install`], or the file cannot be written.
    pub(crate) fn extract(&mut self, package: &str, file: &str, to: &Path) -> Result<()> {
        self.refresh_lists().with_context(|| format!("cannot take {file} out of package {package}"))?;
        let started = Instant::now();
        progress::say("Extracting", format_args!("{file} from {package}"));
        let scratch = Scratch::new(&workspace::target().join("setup").join(package))?;
        let mut download = apt_get("download");
        child::run_logged(download.arg(package).current_dir(&scratch.0), &log())
            .with_context(|| format!("cannot download package {package}"))?;
        let deb = only_file(&scratch.0)?;
        let unpacked = scratch.0.join("unpacked");
        let mut unpack = Command::new("dpkg-deb");
        child::run_logged(unpack.arg("--extract").arg(deb).arg(&unpacked), &log())?;
        fs::copy(unpacked.join(file), to).with_context(|| format!("cannot copy {file} to {}", to.display()))?;
        progress::say_timed("Installed", to.display(), started);
        Ok(())
    }

    /// Which of the packages these lists do not have.
    ///
    /// # Errors
    ///
    /// No apt-get, or no root.
    pub(crate) fn unknown<'a>(&mut self, packages: &BTreeSet<&'a str>) -> Result<Vec<&'a str>> {
        self.refresh_lists()?;
        Ok(packages.iter().copied().filter(|package| !is_known(package)).collect())
    }

    fn refresh_lists(&mut self) -> Result<()> {
        if self.lists_were_refreshed {
            return Ok(());
        }
        ensure!(
            which::which("apt-get").is_ok(),
            "there is no apt-get on this {}: install it with this system's own packages",
            system_name()
        );
        ensure!(geteuid().is_root(), "that needs root: repeat as root (`sudo -s`, then the same command)");
        let started = Instant::now();
        progress::say("Refreshing", format_args!("package lists (log: {})", log().display()));
        let mut update = apt_get("update");
        update.args(["--option", "APT::Update::Error-Mode=any"]);
        match child::run_logged(&mut update, &log()) {
            Ok(()) => progress::say_timed("Refreshed", "package lists", started),
            // One broken source must not hide the good ones.
            Err(error) => progress::say(
                "Warning",
                format_args!("package lists are not fresh, check the network and /etc/apt: {error}"),
            ),
        }
        self.lists_were_refreshed = true;
        Ok(())
    }
}

/// A directory of its own, gone when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: &Path) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(path).with_context(|| format!("cannot clear {}", path.display()))?;
        }
        fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path.to_path_buf()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            progress::say("Left", format_args!("{}: {error}", self.0.display()));
        }
    }
}

fn apt_get(verb: &str) -> Command {
    let mut apt_get = Command::new("apt-get");
    apt_get
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["--yes", "--option"])
        .arg(format!("DPkg::Lock::Timeout={LOCK_TIMEOUT_S}"))
        .arg(verb);
    apt_get
}

fn is_known(package: &str) -> bool {
    let mut policy = Command::new("apt-cache");
    policy.args(["policy", package]).env("LC_ALL", "C");
    child::output(&mut policy).is_ok_and(|printed| has_candidate(&printed))
}

/// Whether `apt-cache policy` names a version that can be installed.
fn has_candidate(policy: &str) -> bool {
    policy.lines().filter_map(|line| line.trim().strip_prefix("Candidate: ")).any(|version| version != "(none)")
}

fn log() -> PathBuf {
    workspace::setup_log("apt")
}

fn only_file(dir: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .map(|entry| entry.map(|entry| entry.path()));
    let (Some(Ok(file)), None) = (entries.next(), entries.next()) else {
        bail!("expected one downloaded package in {}", dir.display());
    };
    Ok(file)
}

/// What this system calls itself.
fn system_name() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    pretty_name(&release).unwrap_or("system").to_owned()
}

/// `PRETTY_NAME` of an os-release(5) file.
fn pretty_name(release: &str) -> Option<&str> {
    release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_is_named_as_it_names_itself() {
        let fedora = "NAME=\"Fedora Linux\"\nPRETTY_NAME=\"Fedora Linux 42 (Cloud Edition)\"\n";
        assert_eq!(pretty_name(fedora), Some("Fedora Linux 42 (Cloud Edition)"));
        assert_eq!(pretty_name("NAME=void\n"), None);
    }

    #[test]
    fn candidate_is_what_can_be_installed() {
        let policy = |candidate| format!("tshark:\n  Installed: (none)\n  Candidate: {candidate}\n");
        assert!(has_candidate(&policy("4.0.17-0+deb12u3")));
        assert!(!has_candidate(&policy("(none)")));
        assert!(!has_candidate(""));
    }

    #[test]
    fn only_file_refuses_none_and_two() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(only_file(dir.path()).is_err());
        fs::write(dir.path().join("a.deb"), "").expect("writable");
        assert_eq!(only_file(dir.path()).expect("there is one"), dir.path().join("a.deb"));
        fs::write(dir.path().join("b.deb"), "").expect("writable");
        assert!(only_file(dir.path()).is_err());
    }
}
