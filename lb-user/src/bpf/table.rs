//! Maps with the types of lb-common: what is written is what the data path reads.

use super::pod::Pod;
use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray};
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
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => Err(error),
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
}
