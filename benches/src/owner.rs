//! Who a lab belongs to, told by its name alone: `weirlab-PID-STARTED-SEQUENCE`.
//!
//! The process id and its start time name one process for as long as the machine runs, so a lab
//! whose owner is gone can be told from a living one's with no record on disk. Nothing here may
//! take a recycled process id for the owner.

use std::{
    fmt, fs, process,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
};

/// What the name of every namespace, directory and pin of a lab begins with.
pub const PREFIX: &str = "weirlab";

static NEXT_SEQUENCE: AtomicU32 = AtomicU32::new(0);

/// A process, told apart from any other that had or will have its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    pid: u32,
    /// Clock ticks since boot: field 22 of `/proc/PID/stat`, proc(5).
    started: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Panics
    ///
    /// If `/proc` is not mounted.
    pub fn current() -> Self {
        let pid = process::id();
        let stat = Stat::of(pid).expect("/proc is mounted");
        Self { pid, started: stat.started }
    }

    /// Whether the process still runs. A zombie does not.
    pub fn is_alive(self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.started == self.started && !stat.is_over())
    }

    /// Its process id.
    pub const fn pid(self) -> u32 {
        self.pid
    }
}

/// What `/proc/PID/stat` says about a process.
struct Stat {
    state: char,
    started: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command name, field 2, is in parentheses and may itself hold blanks and parentheses.
    fn parse(line: &str) -> Option<Self> {
        let (_, after_name) = line.rsplit_once(") ")?;
        let mut fields = after_name.split(' ');
        let state = fields.next()?.chars().next()?;
        let started = fields.nth(18)?.parse().ok()?;
        Some(Self { state, started })
    }

    fn is_over(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The name of a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LabName {
    owner: Owner,
    sequence: u32,
}

impl LabName {
    /// A name that no other lab has.
    pub fn unique() -> Self {
        Self { owner: Owner::current(), sequence: NEXT_SEQUENCE.fetch_add(1, Ordering::Relaxed) }
    }

    /// The process that made the lab.
    pub const fn owner(&self) -> Owner {
        self.owner
    }

    /// The lab that a namespace, directory or pin belongs to, if it is a lab's.
    pub fn of_entry(entry: &str) -> Option<Self> {
        let lab_name: Vec<&str> = entry.splitn(5, '-').take(4).collect();
        lab_name.join("-").parse().ok()
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { pid, started } = self.owner;
        write!(f, "{PREFIX}-{pid}-{started}-{}", self.sequence)
    }
}

/// Not the name of a lab.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form {PREFIX}-PID-STARTED-SEQUENCE")]
pub struct NotALabName;

impl FromStr for LabName {
    type Err = NotALabName;

    fn from_str(name: &str) -> Result<Self, NotALabName> {
        let mut parts = name.split('-');
        if parts.next() != Some(PREFIX) {
            return Err(NotALabName);
        }
        let mut number = || -> Option<u64> { parts.next()?.parse().ok() };
        let (Some(pid), Some(started), Some(sequence)) = (number(), number(), number()) else {
            return Err(NotALabName);
        };
        let (Ok(pid), Ok(sequence)) = (pid.try_into(), sequence.try_into()) else {
            return Err(NotALabName);
        };
        if parts.next().is_some() {
            return Err(NotALabName);
        }
        Ok(Self { owner: Owner { pid, started }, sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_the_way_through_text() {
        let name = LabName::unique();
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(LabName::of_entry(&format!("{name}-client")), Some(name));
        assert_eq!(LabName::of_entry(&name.to_string()), Some(name));
    }

    #[test]
    fn other_names_are_nobodys_lab() {
        for other in ["", "weirlab", "weirlab-1-2", "weirlab-1-2-x", "other-1-2-3"] {
            assert_eq!(LabName::of_entry(other), None, "{other}");
        }
    }

    #[test]
    fn a_recycled_process_id_is_not_the_owner() {
        let this = Owner::current();
        assert!(this.is_alive());
        let earlier = Owner { started: this.started - 1, ..this };
        assert!(!earlier.is_alive());
    }

    #[test]
    fn a_command_name_may_hold_parentheses() {
        let line = "7 (a) b) Z 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = Stat::parse(line).expect("a good line");
        assert_eq!(stat.started, 4242);
        assert!(stat.is_over());
    }
}
