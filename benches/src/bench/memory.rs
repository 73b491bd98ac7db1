//! What a balancer's maps take of the kernel's memory, by the kernel's own account.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
};

use aya::maps::MapInfo;
use lb_user::bpf::{Balancer, Sizes};

use super::BenchError;

/// A map and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapMemory {
    /// Its name.
    pub name: String,
    /// How many entries it can hold.
    pub entries: u32,
    /// Bytes of kernel memory.
    pub bytes: u64,
}

/// The maps of a balancer of default sizes, the largest first.
pub(super) fn of_defaults() -> Result<Vec<MapMemory>, BenchError> {
    let mut balancer = Balancer::load(&Sizes::default())?;
    let program = balancer.program()?.info().map_err(BenchError::Info)?;
    let ids = program.map_ids().map_err(BenchError::Info)?.unwrap_or_default();
    let mut maps = ids.into_iter().map(|id| of_map(&MapInfo::from_id(id)?)).collect::<Result<Vec<_>, _>>()?;
    maps.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
    Ok(maps)
}

/// The map that is pinned in a file.
pub(crate) fn of_pinned(file: &Path) -> Result<MapMemory, BenchError> {
    of_map(&MapInfo::from_pin(file)?)
}

fn of_map(info: &MapInfo) -> Result<MapMemory, BenchError> {
    let fd = info.fd()?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).map_err(|error| BenchError::FdInfo { path: path.clone(), error })?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:")?.trim().parse().ok());
    let name = info.name_as_str().unwrap_or("?").to_owned();
    Ok(MapMemory { name, entries: info.max_entries(), bytes: bytes.unwrap_or_default() })
}
