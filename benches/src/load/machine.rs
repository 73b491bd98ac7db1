//! Where a run ran: figures of two machines are not to be compared.

use std::{fs, num::NonZero, thread};

use nix::sys::utsname::uname;
use serde::Serialize;

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Its kernel's release.
    pub kernel: String,
    /// What its processors say that they are.
    pub processor: String,
    /// How many of them there are.
    pub processors: usize,
    /// Its memory, in MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// The one that this runs on; what it does not tell is left empty.
    pub(crate) fn this() -> Self {
        let kib = field("/proc/meminfo", "MemTotal").and_then(|size| size.trim_end_matches(" kB").parse::<u64>().ok());
        Self {
            kernel: uname().map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned()),
            processor: field("/proc/cpuinfo", "model name").unwrap_or_default(),
            processors: thread::available_parallelism().map_or(0, NonZero::get),
            memory_mib: kib.unwrap_or(0) / 1024,
        }
    }
}

/// The value of the first `name : value` in a file.
fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(field, _)| field.trim() == name).map(|(_, value)| value.trim().to_owned())
}
