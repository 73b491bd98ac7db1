//! Who has a program in the kernel: its name, the files in bpffs that keep it, and the processes that have it open. Only
//! for messages: what cannot be known is left out, and nothing is changed.

use aya::programs::{
    ProgramInfo,
    links::{LinkType, PinnedLink},
    loaded_programs,
};
use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

/// Where pins are looked for, and how deep.
const BPFFS: &str = "/sys/fs/bpf";
const DEPTH_MAX: usize = 4;

/// A program and what keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The kernel's number for it.
    pub program: u32,
    /// Its name, as long as the kernel keeps one.
    pub name: Option<String>,
    /// Files that keep it, or a link of it.
    pub pins: Vec<PathBuf>,
    /// Processes that have it or a link of it open: their numbers and names.
    pub processes: Vec<(u32, String)>,
}

impl Holder {
    /// What keeps a program.
    pub fn of(program: u32) -> Self {
        let info = loaded_programs().flatten().find(|info| info.id() == program);
        let name = info.and_then(|info| info.name_as_str().map(str::to_owned));
        let mut pins = Vec::new();
        find_pins(Path::new(BPFFS), program, DEPTH_MAX, &mut pins);
        Self { program, name, pins, processes: processes(program) }
    }
}

/// Such as ``program 77 `xdp_pass`, pinned at /sys/fs/bpf/x, open in process 4242 (loader)``.
impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {}", self.program)?;
        if let Some(name) = self.name.as_ref().filter(|name| !name.is_empty()) {
            write!(f, " `{name}`")?;
        }
        for pin in &self.pins {
            write!(f, ", pinned at {}", pin.display())?;
        }
        for (pid, name) in &self.processes {
            write!(f, ", open in process {pid} ({name})")?;
        }
        Ok(())
    }
}

fn find_pins(directory: &Path, program: u32, depth: usize, found: &mut Vec<PathBuf>) {
    let Ok(listing) = fs::read_dir(directory) else { return };
    for entry in listing.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => find_pins(&path, program, depth - 1, found),
            Ok(kind) if kind.is_file() && keeps(&path, program) => found.push(path),
            _ => {}
        }
    }
}

fn keeps(path: &Path, program: u32) -> bool {
    let link = PinnedLink::from_pin(path).map(aya::programs::links::FdLink::from).and_then(|link| link.info());
    if link.is_ok_and(|link| link.program_id() == program && link.link_type().is_ok_and(|kind| kind == LinkType::Xdp)) {
        return true;
    }
    ProgramInfo::from_pin(path).is_ok_and(|info| info.id() == program)
}

fn processes(program: u32) -> Vec<(u32, String)> {
    let Ok(listing) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = listing.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holding = pids.filter(|pid| has_open(*pid, program));
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned();
    holding.map(|pid| (pid, name(pid))).collect()
}

fn has_open(pid: u32, program: u32) -> bool {
    let Ok(listing) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return false };
    let line = format!("prog_id:\t{program}\n");
    listing.flatten().any(|entry| fs::read_to_string(entry.path()).is_ok_and(|info| info.contains(&line)))
}
