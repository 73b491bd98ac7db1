//! Maps with the types of lb-common: what is written is what the data path reads.

use super::pod::Pod;
use aya::{
    maps::{
        Array, HashMap, IterableMap as _, LpmTrie, Map, MapData, MapError, PerCpuArray, PerCpuValues, Queue,
        lpm_trie::Key,
    },
    sys::SyscallError,
    util::nr_cpus,
};
use lb_common::{
    flow::slot_place,
    ids::PoolId,
    tables::{RING_SLOTS, SLOTS_PER_CHUNK, Slot, SlotWords},
    wire::ip::Address,
};
use nix::errno::Errno;
use std::{io, os::fd::AsFd as _};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Plain data that a map can hold.
pub trait Value: FromBytes + IntoBytes + Immutable + Copy + 'static {}
impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> Value for T {}

/// An array.
pub struct ArrayTable<V: Value>(Array<MapData, Pod<V>>);

impl<V: Value> ArrayTable<V> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Array::try_from(map).map(Self)
    }

    /// The same array by another descriptor, for who reads it apart from its owner.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn reader(&self) -> Result<Self, MapError> {
        Self::new(Map::Array(again(self.0.map())?))
    }

    /// How many elements it has.
    pub fn len(&self) -> u32 {
        self.0.len()
    }

    /// Whether it has none; the kernel makes no such array.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element at an index.
    ///
    /// # Errors
    /// The index is beyond the array, or the kernel refuses the call.
    pub fn read(&self, index: u32) -> Result<V, MapError> {
        self.0.get(&index, 0).map(|Pod(value)| value)
    }

    /// Replaces the element at an index.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn write(&mut self, index: u32, value: V) -> Result<(), MapError> {
        self.0.set(index, Pod(value), 0)
    }
}

/// A hash table.
pub struct HashTable<K: Value, V: Value>(HashMap<MapData, Pod<K>, Pod<V>>);

impl<K: Value, V: Value> HashTable<K, V> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        HashMap::try_from(map).map(Self)
    }

    /// The same table by another descriptor, for who reads it apart from its owner.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn reader(&self) -> Result<Self, MapError> {
        Self::new(Map::HashMap(again(self.0.map())?))
    }

    /// Its map by another descriptor.
    pub(super) fn data(&self) -> Result<MapData, MapError> {
        again(self.0.map())
    }

    /// Its limit, in entries.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn limit(&self) -> Result<u32, MapError> {
        self.0.map().info().map(|info| info.max_entries())
    }

    /// The value of a key; none where there is no such key.
    ///
    /// # Errors
    /// The kernel refuses the call.
    pub fn read(&self, key: K) -> Result<Option<V>, MapError> {
        match self.0.get(&Pod(key), 0) {
            Ok(Pod(value)) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sets the value of a key.
    ///
    /// # Errors
    /// The table is full, or the kernel refuses the call.
    pub fn write(&mut self, key: K, value: V) -> Result<(), MapError> {
        self.0.insert(Pod(key), Pod(value), 0)
    }

    /// Removes a key, which need not be there.
    ///
    /// # Errors
    /// The kernel refuses the call.
    pub fn remove(&mut self, key: K) -> Result<(), MapError> {
        match self.0.remove(&Pod(key)) {
            Err(MapError::SyscallError(call)) if call.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The keys and values as they are found; what is inserted or removed meanwhile may be missed.
    pub fn entries(&self) -> impl Iterator<Item = Result<(K, V), MapError>> + '_ {
        self.0.iter().map(|entry| entry.map(|(Pod(key), Pod(value))| (key, value)))
    }
}

/// An array with elements of their own for every CPU.
pub struct PerCpuTable<V: Value>(PerCpuArray<MapData, Pod<V>>);

impl<V: Value> PerCpuTable<V> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        PerCpuArray::try_from(map).map(Self)
    }

    /// How many elements each CPU has.
    pub fn len(&self) -> u32 {
        self.0.len()
    }

    /// Whether it has none; the kernel makes no such array.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements of all CPUs at an index.
    ///
    /// # Errors
    /// The index is beyond the array, or the kernel refuses the call.
    pub fn read(&self, index: u32) -> Result<Vec<V>, MapError> {
        let values = self.0.get(&index, 0)?;
        Ok(values.iter().map(|&Pod(value)| value).collect())
    }

    /// Sets the elements of all CPUs at an index.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn fill(&mut self, index: u32, value: V) -> Result<(), MapError> {
        let failed = |(call, io_error)| MapError::SyscallError(SyscallError { call, io_error });
        let cpus = nr_cpus().map_err(failed)?;
        let values = PerCpuValues::try_from(vec![Pod(value); cpus]).map_err(MapError::IoError)?;
        self.0.set(index, values, 0)
    }
}

/// A queue.
pub struct QueueTable<V: Value>(Queue<MapData, Pod<V>>);

impl<V: Value> QueueTable<V> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        Queue::try_from(map).map(Self)
    }

    /// Puts a value at its end; false where it is full.
    ///
    /// # Errors
    /// The kernel refuses the call.
    pub fn push(&mut self, value: V) -> Result<bool, MapError> {
        match self.0.push(Pod(value), 0) {
            Ok(()) => Ok(true),
            Err(MapError::SyscallError(call)) if call.io_error.raw_os_error() == Some(Errno::E2BIG as i32) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes the value at its beginning; none where it is empty.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn pop(&mut self) -> Result<Option<V>, MapError> {
        match self.0.pop(0) {
            Ok(Pod(value)) => Ok(Some(value)),
            Err(MapError::ElementNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The same map by another descriptor.
fn again(map: &MapData) -> Result<MapData, MapError> {
    MapData::from_fd(map.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?)
}

/// A trie of address prefixes, whose lengths are in bits of an IPv6 address.
pub struct PrefixTable<V: Value>(LpmTrie<MapData, Pod<Address>, Pod<V>>);

impl<V: Value> PrefixTable<V> {
    pub(super) fn new(map: Map) -> Result<Self, MapError> {
        LpmTrie::try_from(map).map(Self)
    }

    /// The prefixes that it holds, and their lengths.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn keys(&self) -> Result<Vec<(u32, Address)>, MapError> {
        self.0.keys().map(|key| key.map(|key| (key.prefix_len(), key.data().0))).collect()
    }

    /// The values of all of them.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub fn values(&self) -> Result<Vec<V>, MapError> {
        self.0.iter().map(|entry| entry.map(|(_, Pod(value))| value)).collect()
    }

    /// Sets the value of a prefix.
    ///
    /// # Errors
    /// The table is full, or the kernel refuses the call.
    pub fn write(&mut self, len: u32, prefix: Address, value: V) -> Result<(), MapError> {
        self.0.insert(&Key::new(len, Pod(prefix)), Pod(value), 0)
    }

    /// Removes a prefix, which must be there.
    ///
    /// # Errors
    /// It is not, or the kernel refuses the call.
    pub fn remove(&mut self, len: u32, prefix: Address) -> Result<(), MapError> {
        self.0.remove(&Key::new(len, Pod(prefix)))
    }
}

/// The rings of all pools.
pub struct RingTable {
    owners: ArrayTable<SlotWords>,
    previous: ArrayTable<SlotWords>,
}

impl RingTable {
    pub(super) const fn new(owners: ArrayTable<SlotWords>, previous: ArrayTable<SlotWords>) -> Self {
        Self { owners, previous }
    }

    /// The slots of a pool's ring as they stand.
    ///
    /// # Errors
    /// The kernel refuses the call.
    pub fn read(&self, pool: PoolId) -> Result<Vec<Slot>, MapError> {
        let mut slots = Vec::with_capacity(RING_SLOTS as usize);
        for first in (0..RING_SLOTS).step_by(SLOTS_PER_CHUNK as usize) {
            let (index, _) = slot_place(pool, first);
            let (owners, previous) = (self.owners.read(index)?, self.previous.read(index)?);
            let words = owners.into_iter().zip(previous);
            slots.extend(words.filter_map(|(owner, previous)| Slot::from_words(owner, || Some(previous))));
        }
        slots.truncate(RING_SLOTS as usize);
        Ok(slots)
    }

    /// Writes the chunks of a pool's ring in which `changed` slots lie; `slots` is all of it.
    ///
    /// # Errors
    /// The kernel refuses the call.
    pub fn write(&mut self, pool: PoolId, slots: &[Slot], changed: &[u32]) -> Result<(), MapError> {
        let chunks: std::collections::BTreeSet<u32> = changed.iter().map(|slot| slot / SLOTS_PER_CHUNK).collect();
        for chunk in chunks {
            let first = chunk * SLOTS_PER_CHUNK;
            let (index, _) = slot_place(pool, first);
            let (mut owners, mut previous) = (SlotWords::default(), SlotWords::default());
            for (place, slot) in slots[first as usize..].iter().take(owners.len()).enumerate() {
                [owners[place], previous[place]] = slot.words();
            }
            // Whoever reads that a slot is in transition must find its previous owner.
            self.previous.write(index, previous)?;
            self.owners.write(index, owners)?;
        }
        Ok(())
    }
}
