//! The tables of a running controller by their pins: what they take, what stands in them, and entries as if packets had
//! made them. It writes tokens and joined flows, and only before anything is measured.

use std::{collections::BTreeSet, fs, path::PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError};
use lb_common::{
    addresses,
    ids::{BackendId, FlowHash, Tick},
    tables::{ABI, FlowEntry, Globals, Slot, SlotWords, TokenEntry, TokenKey},
};
use lb_user::bpf::{Pod, Value};
use nix::time::{ClockId, clock_gettime};

use crate::{
    Lab, LabError,
    bench::{BenchError, MapMemory, Scale, of_pinned},
};

/// What the names of maps begin with.
const MAPS: &str = "weir_";

/// The tables of the controller in a lab.
pub(super) struct Tables(PathBuf);

/// What stands in them of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// Backends that own slots.
    pub(super) backends: usize,
    /// Addresses of VIPs.
    pub(super) vips: usize,
}

impl Tables {
    pub(super) fn of(lab: &Lab) -> Self {
        Self(lab.pins().join(format!("v{ABI}")))
    }

    /// What each takes, the largest first.
    pub(super) fn memory(&self) -> Result<Vec<MapMemory>, BenchError> {
        let files = fs::read_dir(&self.0).map_err(LabError::file("read", &self.0))?.flatten();
        let of_maps = files.filter(|file| file.file_name().to_string_lossy().starts_with(MAPS));
        let mut maps = of_maps.map(|file| of_pinned(&file.path())).collect::<Result<Vec<_>, _>>()?;
        maps.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        Ok(maps)
    }

    /// Enters the connections and joined subflows of a scale.
    pub(super) fn fill(&self, scale: Scale) -> Result<(), BenchError> {
        let now = now();
        let mut tokens: HashMap<_, Pod<TokenKey>, Pod<TokenEntry>> = HashMap::try_from(self.hash("weir_tokens")?)?;
        for number in 0..scale.flows {
            let (key, entry) = scale.farm().token(number, now);
            tokens.insert(Pod(key), Pod(entry), 0)?;
        }
        let mut joined: HashMap<_, Pod<FlowHash>, Pod<FlowEntry>> = HashMap::try_from(self.hash("weir_joined")?)?;
        let entry = FlowEntry { sequence: 0, seen: now, backend: BackendId(1), state: FlowEntry::OPEN };
        for number in 0..scale.joined {
            joined.insert(Pod(FlowHash(scattered(number))), Pod(entry), 0)?;
        }
        Ok(())
    }

    /// What stands in the ring of the only pool, and in the addresses that are looked up.
    pub(super) fn held(&self) -> Result<Held, BenchError> {
        let owners = self.array::<SlotWords>("weir_owners")?;
        let mut backends = BTreeSet::new();
        for index in 0..owners.len() {
            let Pod(words) = owners.get(&index, 0)?;
            backends.extend(words.into_iter().filter_map(|word| Slot::from_words(word, || Some(0))).map(Slot::owner));
        }
        let Pod(globals) = self.array::<Globals>("weir_globals")?.get(&0, 0)?;
        let rows = self.array::<addresses::Row>("weir_addresses")?;
        let first = globals.addresses.half * addresses::ROWS;
        let mut vips = 0;
        for index in first..first + addresses::ROWS {
            let Pod(row) = rows.get(&index, 0)?;
            vips += usize::from(row.services().count > 0);
        }
        Ok(Held { backends: backends.iter().filter(|backend| backend.is_some()).count(), vips })
    }

    fn pinned(&self, name: &str) -> Result<MapData, MapError> {
        MapData::from_pin(self.0.join(name))
    }

    fn hash(&self, name: &str) -> Result<Map, MapError> {
        Map::from_map_data(self.pinned(name)?)
    }

    fn array<V: Value>(&self, name: &str) -> Result<Array<MapData, Pod<V>>, MapError> {
        Array::try_from(Map::from_map_data(self.pinned(name)?)?)
    }
}

/// A flow's hash with a number, as unique as the number.
const fn scattered(number: u32) -> u64 {
    (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The data path's time.
fn now() -> Tick {
    let since = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(std::time::Duration::ZERO, Into::into);
    Tick::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
