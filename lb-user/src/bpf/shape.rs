//! Whether a pinned table is the one that this binary would make: aya, and the kernel, take any.

use super::pins::PinError;
use aya::maps::MapInfo;
use std::path::Path;

/// What the kernel tells of a table of the expected kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) table: &'static str,
    pub(super) kind: u32,
    pub(super) key_bytes: u32,
    pub(super) value_bytes: u32,
    pub(super) entries: u32,
}

impl Shape {
    /// The shape of a table of an object, with another number of entries if there is one.
    pub(super) fn of(table: &'static str, map: &aya_obj::Map, entries: Option<u32>) -> Self {
        Self {
            table,
            kind: map.map_type(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            entries: entries.unwrap_or_else(|| map.max_entries()),
        }
    }

    /// Checks the table that is pinned at a path.
    pub(super) fn check(&self, path: &Path) -> Result<(), PinError> {
        let table = self.table;
        if !path.exists() {
            return Err(PinError::Shape { table, what: "been removed".to_owned() });
        }
        let info = MapInfo::from_pin(path).map_err(|error| PinError::Map { table, error })?;
        let kind = info.map_type().map_err(|error| PinError::Map { table, error })?;
        let pairs = [
            (info.key_size(), self.key_bytes, "bytes in a key"),
            (info.value_size(), self.value_bytes, "bytes in a value"),
            (info.max_entries(), self.entries, "entries at most"),
        ];
        if kind as u32 != self.kind {
            return Err(PinError::Shape { table, what: format!("the kind {kind:?}, not that of this version") });
        }
        match pairs.into_iter().find(|(pinned, expected, _)| pinned != expected) {
            Some((pinned, expected, what)) => {
                Err(PinError::Shape { table, what: format!("{pinned} {what}, and {expected} are asked for") })
            }
            None => Ok(()),
        }
    }
}
