//! The tables of the two programs that mint. That of the keys which are out is pinned: whoever comes after an agent that died
//! must not give out a token that a client still holds.

use super::{
    HashTable, LoadError, PerCpuTable, Pins, PrefixTable, QueueTable,
    balancer::{hash, per_cpu, prefix, take},
};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapError},
};
use lb_common::{
    clamp::Rule,
    mint::{Key, Listener, Mint, Service},
};
use std::{fs, io, path::Path};

/// The names of the programs, as the kernel tells them.
pub(super) const MINT: &str = "weir_mint";
pub(super) const PLAIN: &str = "weir_plain";
/// Those of the tables that are made larger than the object has them.
pub(super) const KEYS: &str = "weir_mint_keys";
pub(super) const OUT: &str = "weir_mint_out";

/// What the programs that mint know.
pub struct MintTables {
    /// Keys to be given out.
    pub keys: QueueTable<Key>,
    /// Keys that were given out and have not come back, and when by the kernel's clock.
    pub out: HashTable<Key, u64>,
    /// The services that have a listener.
    pub listeners: HashTable<Service, Listener>,
    /// The VIPs whose handshakes carry no other keys.
    pub vips: PrefixTable<Rule>,
    counters: Option<MintCounters>,
    /// The same table as `out`, to be pinned.
    pinned: MapData,
}

/// See [`MintTables::marker`].
pub struct Marker(MapData);

impl Marker {
    /// Marks a place; one that is marked already stays so.
    pub(crate) fn mark(&self, path: &Path) -> io::Result<()> {
        match self.0.pin(path) {
            Err(_) if path.exists() => Ok(()),
            Err(error) => Err(io::Error::other(LoadError::pin(path, error))),
            Ok(()) => Ok(()),
        }
    }
}

/// How often each thing happened to a handshake that offers MPTCP, since the programs were loaded.
pub struct MintCounters(PerCpuTable<u64>);

impl MintCounters {
    /// All of them.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn read(&self) -> Result<Vec<(Mint, u64)>, MapError> {
        let count = |outcome: Mint| Ok((outcome, self.0.read(outcome as u32)?.iter().sum()));
        Mint::ALL.into_iter().map(count).collect()
    }
}

impl MintTables {
    pub(super) fn of(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let failed = |map| move |error| LoadError::Map { map, error };
        let out: HashTable<Key, u64> = hash(ebpf, OUT)?;
        Ok(Self {
            keys: QueueTable::new(take(ebpf, KEYS)?).map_err(failed(KEYS))?,
            pinned: out.data().map_err(failed(OUT))?,
            out,
            listeners: hash(ebpf, "weir_mint_listeners")?,
            vips: prefix(ebpf, "weir_mint_vips")?,
            counters: Some(MintCounters(per_cpu(ebpf, "weir_mints")?)),
        })
    }

    /// What marks a place among the pins: another name of the table that is there anyway.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn marker(&self) -> Result<Marker, LoadError> {
        self.out.data().map(Marker).map_err(|error| LoadError::Map { map: OUT, error })
    }

    /// The counters, for whom they are first asked by.
    pub fn take_counters(&mut self) -> Option<MintCounters> {
        self.counters.take()
    }

    /// Takes over what an agent before had given out, and leaves to the next what this one gives out. The programs must be
    /// attached: those of before give out nothing more.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn inherit(&mut self, pins: &Pins) -> Result<(), LoadError> {
        let path = pins.table(OUT);
        let failed = |error| LoadError::Map { map: OUT, error };
        if path.exists() {
            let before = MapData::from_pin(&path).map_err(failed)?;
            let before = HashTable::<Key, u64>::new(Map::HashMap(before)).map_err(failed)?;
            for entry in before.entries() {
                let (key, at) = entry.map_err(failed)?;
                self.out.write(key, at).map_err(failed)?;
            }
            fs::remove_file(&path).map_err(|error| LoadError::pin(&path, error))?;
        }
        self.pinned.pin(&path).map_err(|error| LoadError::pin(&path, error))
    }
}
