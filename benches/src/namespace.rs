//! A network namespace by name, and ways to do something inside it.
//!
//! A thread enters a namespace alone, so work runs on a thread of its own that ends with it; the
//! caller's thread never changes namespace. Sockets and programs made there stay there.

use std::{fs, path::PathBuf, thread};

use nix::sched::{CloneFlags, setns};

use crate::{LabError, command, owner::LabName};

/// Where `ip netns` keeps the names.
pub(crate) const NAMES: &str = "/run/netns";

/// A network namespace of a lab.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The namespace that plays `role` in `lab`; it need not exist yet.
    pub(crate) fn of(lab: LabName, role: &str) -> Self {
        Self { name: format!("{lab}-{role}") }
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NAMES).join(&self.name)
    }

    /// Runs `work` inside.
    ///
    /// # Errors
    ///
    /// If the namespace is gone or cannot be entered.
    ///
    /// # Panics
    ///
    /// If `work` does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let path = self.path();
        let file = fs::File::open(&path).map_err(LabError::file("open namespace", &path))?;
        let inside = thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            worker.join()
        });
        match inside {
            Ok(done) => {
                done.map_err(|errno: nix::Error| LabError::system(format!("enter namespace {}", self.name))(errno))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a short command inside and returns what it printed.
    ///
    /// # Errors
    ///
    /// If it cannot be run or fails.
    pub fn output(&self, program: &str, args: &[&str]) -> Result<String, LabError> {
        self.run(|| command::output(program, args, ""))?
    }

    /// Runs many `ip` commands inside, one a line, in one go.
    pub(crate) fn ip_batch(&self, lines: &str) -> Result<(), LabError> {
        self.run(|| command::output("ip", &["-batch", "-"], lines))??;
        Ok(())
    }

    /// Writes kernel settings (paths below `/proc/sys/net`) inside.
    pub(crate) fn write_settings(&self, settings: &[(&str, &str)]) -> Result<(), LabError> {
        self.run(|| {
            settings.iter().try_for_each(|(setting, value)| {
                let path = PathBuf::from("/proc/sys/net").join(setting);
                fs::write(&path, value).map_err(LabError::file("write", &path))
            })
        })?
    }
}
