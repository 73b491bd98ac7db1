//! What a lab leaves outside its own process, and how it goes away: namespaces (and the processes
//! inside them), a directory for files, and pins. All carry the lab's name, so one function clears
//! a lab at its ordinary end and after a `kill -9` alike.
//!
//! A lab whose owner lives is never touched by anyone but its owner.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{LabError, command, namespace, owner::LabName, wait};

/// Where each lab has a directory for configurations and logs.
const FILES: &str = "/run";
/// Where pins go.
const PINS: &str = "/sys/fs/bpf";
const GRACE: Duration = Duration::from_secs(3);

/// The directory for a lab's files.
pub(crate) fn directory(lab: LabName) -> PathBuf {
    Path::new(FILES).join(lab.to_string())
}

/// The directory for the pins of a lab's Weir.
pub(crate) fn pins(lab: LabName) -> PathBuf {
    Path::new(PINS).join(lab.to_string())
}

/// Every lab on this machine that left something, sorted by name.
///
/// # Errors
///
/// If one of the places cannot be read.
pub fn labs() -> Result<Vec<LabName>, LabError> {
    let mut found = HashSet::new();
    for place in [namespace::NAMES, FILES, PINS] {
        found.extend(entries(Path::new(place))?.iter().filter_map(|entry| LabName::of_entry(entry)));
    }
    let mut found: Vec<LabName> = found.into_iter().collect();
    found.sort_by_key(ToString::to_string);
    Ok(found)
}

/// Clears every lab whose owner is gone; returns which.
///
/// # Errors
///
/// If one of the places cannot be read, a process cannot be ended or something cannot be removed.
pub fn clear_dead() -> Result<Vec<LabName>, LabError> {
    let mut dead = labs()?;
    dead.retain(|lab| !lab.owner().is_alive());
    for lab in &dead {
        clear(*lab)?;
    }
    Ok(dead)
}

/// Ends every process in the lab's namespaces and removes these, its files and its pins.
///
/// # Errors
///
/// If a process cannot be ended or something cannot be removed.
pub(crate) fn clear(lab: LabName) -> Result<(), LabError> {
    let namespaces: Vec<String> = entries(Path::new(namespace::NAMES))?
        .into_iter()
        .filter(|entry| LabName::of_entry(entry) == Some(lab))
        .collect();
    end_processes(&namespaces)?;
    for name in &namespaces {
        let deleted = command::output("ip", &["netns", "delete", name], "");
        if exists(name) {
            deleted?;
        }
    }
    for place in [FILES, PINS] {
        remove(&Path::new(place).join(lab.to_string()))?;
    }
    Ok(())
}

/// Ends what runs in the namespaces: membership, unlike a recorded process id, cannot be wrong.
fn end_processes(namespaces: &[String]) -> Result<(), LabError> {
    signal_all(namespaces, Signal::SIGTERM)?;
    let graceful = wait_until_empty(namespaces, GRACE);
    if graceful.is_ok() {
        return Ok(());
    }
    signal_all(namespaces, Signal::SIGKILL)?;
    wait_until_empty(namespaces, GRACE)
}

/// Unlike [`wait::until`], goes on after a Ctrl-C: this is what a Ctrl-C leads to.
fn wait_until_empty(namespaces: &[String], limit: Duration) -> Result<(), LabError> {
    let what = "the processes in the lab's namespaces end";
    wait::until_even_if_interrupted(what, limit, || Ok(processes(namespaces)?.is_empty().then_some(())))
}

fn signal_all(namespaces: &[String], signal: Signal) -> Result<(), LabError> {
    for pid in processes(namespaces)? {
        match kill(pid, signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(LabError::system(format!("end process {pid}"))(errno)),
        }
    }
    Ok(())
}

fn processes(namespaces: &[String]) -> Result<Vec<Pid>, LabError> {
    let mut found = Vec::new();
    for name in namespaces {
        let pids = match command::output("ip", &["netns", "pids", name], "") {
            // Another process may be clearing the same dead lab.
            Err(_) if !exists(name) => continue,
            pids => pids?,
        };
        let pids = pids.lines().filter_map(|line| line.trim().parse().ok());
        found.extend(pids.map(Pid::from_raw));
    }
    Ok(found)
}

fn exists(namespace: &str) -> bool {
    Path::new(namespace::NAMES).join(namespace).exists()
}

fn entries(place: &Path) -> Result<Vec<String>, LabError> {
    let listing = match fs::read_dir(place) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(LabError::file("list", place)(error)),
    };
    Ok(listing.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn remove(directory: &Path) -> Result<(), LabError> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LabError::file("remove", directory)(error)),
        _ => Ok(()),
    }
}
