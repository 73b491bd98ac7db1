//! A process that stays as long as its owner wants it: `weir run`, `weir decap`, a monitor.
//!
//! It runs inside a namespace, in a process group of its own (a Ctrl-C at the terminal reaches only
//! the lab, which then ends it in order), and writes to a log file. It is never left running: the
//! drop ends it.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{LabError, namespace::Namespace, wait};

/// How long a process has to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// How long a process has to end where a test is about that.
const END_LIMIT: Duration = Duration::from_secs(30);
const LOG_TAIL_LINES: usize = 12;

/// A running process.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` inside `namespace`; everything that it says goes to the file `log`.
    ///
    /// # Errors
    ///
    /// If the log cannot be made or the program cannot be started.
    pub fn start(namespace: &Namespace, program: &Path, args: &[&str], log: PathBuf) -> Result<Self, LabError> {
        let name = program.file_name().unwrap_or(program.as_os_str());
        let first = args.first().copied().unwrap_or_default();
        let what = format!("`{} {first}` in {}", name.display(), namespace.name());
        let stdout = File::create(&log).map_err(LabError::file("create", &log))?;
        let stderr = stdout.try_clone().map_err(LabError::file("duplicate", &log))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);
        let child = namespace
            .run(|| command.spawn())?
            .map_err(|source| LabError::Spawn { program: program.display().to_string(), source })?;
        Ok(Self { what, child, log })
    }

    /// Everything that it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until `probe` holds while the process lives.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] with the end of its log if it ends first; a deadline; what `probe`
    /// fails with.
    pub fn wait_until(
        &mut self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&Self) -> Result<bool, LabError>,
    ) -> Result<(), LabError> {
        let what = format!("{}: {what}", self.what);
        wait::until(&what, limit, || {
            self.check_running()?;
            Ok(probe(self)?.then_some(()))
        })
    }

    /// Waits until its log holds `word`, as a whole word.
    ///
    /// # Errors
    ///
    /// As [`Process::wait_until`].
    pub fn wait_for_word(&mut self, word: &str, limit: Duration) -> Result<(), LabError> {
        self.wait_until(&format!("says {word:?}"), limit, |process| {
            let log = process.log();
            let mut words = log.split(|letter: char| !letter.is_alphanumeric());
            Ok(words.any(|said| said == word))
        })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// [`LabError::Ended`] if it has ended.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        self.check_running()?;
        kill(self.pid(), signal).map_err(LabError::system(format!("signal {}", self.what)))
    }

    /// Asks it to end with SIGTERM, and kills it if it does not; waits until it is gone.
    pub fn stop(&mut self) {
        if self.check_running().is_err() {
            return;
        }
        let _ = kill(self.pid(), Signal::SIGTERM);
        let ended = wait::until_even_if_interrupted(&self.what.clone(), GRACE, || {
            Ok(self.check_running().is_err().then_some(()))
        });
        if ended.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// Ends it by a signal; returns when it is gone.
    ///
    /// # Errors
    ///
    /// If it has ended before, or does not end in time.
    pub fn end_by(&mut self, signal: Signal) -> Result<(), LabError> {
        self.signal(signal)?;
        let what = format!("{} ends by {signal}", self.what);
        wait::until(&what, END_LIMIT, || Ok(self.check_running().is_err().then_some(())))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn check_running(&mut self) -> Result<(), LabError> {
        let Ok(Some(status)) = self.child.try_wait() else {
            return Ok(());
        };
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
        Err(LabError::Ended { what: self.what.clone(), status: status.to_string(), log: tail.join("\n") })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
