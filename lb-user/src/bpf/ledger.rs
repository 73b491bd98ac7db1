//! A table of bytes that a controller leaves to the next one: written as a whole, twice in turn, so that whoever dies in
//! the middle of writing leaves what was written before.
//!
//! What the bytes mean is not known here.

use super::ArrayTable;
use aya::{
    maps::{Map, MapData, MapError, MapType},
    pin::PinError as AyaPinError,
};
use lb_common::{
    hash::{SipKey, sip},
    limits::LEDGER_BYTES_MAX,
};
use std::path::Path;

/// Bytes that are written at once.
const CHUNK_BYTES: u32 = 4096;
const CHUNK: usize = CHUNK_BYTES as usize;
/// The body of a half, behind its heading.
const CHUNKS: u32 = LEDGER_BYTES_MAX / CHUNK_BYTES;
/// A half, with its heading.
const HALF: u32 = 1 + CHUNKS;

type Chunk = [u8; CHUNK];

/// Why nothing could be written down or read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// More than there is room for.
    #[error("Weir's ledger would have {bytes} bytes, and has room for {LEDGER_BYTES_MAX}: configure fewer backends")]
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// The kernel refuses.
    #[error("the kernel refused Weir's ledger: {0}")]
    Map(#[from] MapError),
    /// The kernel refuses its pin.
    #[error("the kernel refused a pin for Weir's ledger: {0}")]
    Pin(#[from] AyaPinError),
}

/// Where chunks are kept.
trait Chunks {
    fn read(&self, index: u32) -> Result<Chunk, MapError>;
    fn write(&mut self, index: u32, chunk: &Chunk) -> Result<(), MapError>;
}

impl Chunks for ArrayTable<Chunk> {
    fn read(&self, index: u32) -> Result<Chunk, MapError> {
        Self::read(self, index)
    }

    fn write(&mut self, index: u32, chunk: &Chunk) -> Result<(), MapError> {
        Self::write(self, index, *chunk)
    }
}

/// The ledger's table in the kernel.
pub struct LedgerTable(Ledger<ArrayTable<Chunk>>);

impl LedgerTable {
    /// Makes an empty one and pins it.
    pub(super) fn make(name: &str, path: &Path) -> Result<Self, LedgerError> {
        let map = aya_obj::Map::new_from_params(MapType::Array as u32, 4, CHUNK_BYTES, 2 * HALF, 0);
        let data = MapData::create(map, name, None)?;
        data.pin(path)?;
        Ok(Self(Ledger::new(ArrayTable::new(Map::from_map_data(data)?)?)))
    }

    /// Opens the one that is pinned.
    pub(super) fn open(path: &Path) -> Result<Self, MapError> {
        Ok(Self(Ledger::new(ArrayTable::new(Map::from_map_data(MapData::from_pin(path)?)?)?)))
    }

    /// What was last written as a whole, if anything was.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn read(&self) -> Result<Option<Vec<u8>>, MapError> {
        Ok(self.0.newest()?.map(|entry| entry.body))
    }

    /// Writes other bytes in the place of those. What is there already is not written again.
    ///
    /// # Errors
    /// There is no room, or the kernel refuses; what was there before holds then.
    pub fn write(&mut self, body: &[u8]) -> Result<(), LedgerError> {
        self.0.write(body)
    }
}

struct Ledger<C> {
    chunks: C,
    /// What is known to stand there.
    written: Option<Entry>,
}

struct Entry {
    half: u32,
    generation: u64,
    body: Vec<u8>,
}

impl<C: Chunks> Ledger<C> {
    const fn new(chunks: C) -> Self {
        Self { chunks, written: None }
    }

    fn newest(&self) -> Result<Option<Entry>, MapError> {
        let halves = [self.entry(0)?, self.entry(1)?];
        Ok(halves.into_iter().flatten().max_by_key(|entry| entry.generation))
    }

    /// The entry in a half, if it is whole.
    fn entry(&self, half: u32) -> Result<Option<Entry>, MapError> {
        let heading = Heading::of_chunk(&self.chunks.read(half * HALF)?);
        let Ok(bytes) = u32::try_from(heading.bytes) else { return Ok(None) };
        if heading.generation == 0 || bytes > LEDGER_BYTES_MAX {
            return Ok(None);
        }
        let mut body = Vec::with_capacity(bytes as usize + CHUNK);
        for index in 0..bytes.div_ceil(CHUNK_BYTES) {
            body.extend(self.chunks.read(half * HALF + 1 + index)?);
        }
        body.truncate(bytes as usize);
        let generation = heading.generation;
        let is_whole = Heading::of(generation, &body) == heading;
        Ok(is_whole.then_some(Entry { half, generation, body }))
    }

    fn write(&mut self, body: &[u8]) -> Result<(), LedgerError> {
        if body.len() > LEDGER_BYTES_MAX as usize {
            return Err(LedgerError::TooLarge { bytes: body.len() });
        }
        let before = match self.written.take() {
            Some(entry) => Some(entry),
            None => self.newest()?,
        };
        let (half, generation) = match before {
            Some(entry) if entry.body == body => {
                self.written = Some(entry);
                return Ok(());
            }
            Some(entry) => (1 - entry.half, entry.generation + 1),
            None => (0, 1),
        };
        for (index, part) in (half * HALF + 1..).zip(body.chunks(CHUNK)) {
            let mut chunk = [0; CHUNK];
            chunk[..part.len()].copy_from_slice(part);
            self.chunks.write(index, &chunk)?;
        }
        self.chunks.write(half * HALF, &Heading::of(generation, body).chunk())?;
        self.written = Some(Entry { half, generation, body: body.to_owned() });
        Ok(())
    }
}

/// What stands in front of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heading {
    generation: u64,
    bytes: u64,
    checksum: u64,
}

impl Heading {
    fn of(generation: u64, body: &[u8]) -> Self {
        let mut key = *b"weir ledger.....";
        key[8..].copy_from_slice(&generation.to_be_bytes());
        Self { generation, bytes: body.len() as u64, checksum: sip::sip13_bytes(&SipKey::from_bytes(key), body) }
    }

    fn of_chunk(chunk: &Chunk) -> Self {
        let word = |index: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&chunk[index * 8..][..8]);
            u64::from_be_bytes(word)
        };
        Self { generation: word(0), bytes: word(1), checksum: word(2) }
    }

    fn chunk(self) -> Chunk {
        let mut chunk = [0; CHUNK];
        let words = [self.generation, self.bytes, self.checksum].map(u64::to_be_bytes);
        chunk[..24].copy_from_slice(words.as_flattened());
        chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A table whose controller dies after so many writes.
    #[derive(Default)]
    struct Mortal {
        chunks: BTreeMap<u32, Chunk>,
        writes_left: usize,
    }

    impl Chunks for Mortal {
        fn read(&self, index: u32) -> Result<Chunk, MapError> {
            assert!(index < 2 * HALF);
            Ok(self.chunks.get(&index).copied().unwrap_or([0; CHUNK]))
        }

        fn write(&mut self, index: u32, chunk: &Chunk) -> Result<(), MapError> {
            assert!(index < 2 * HALF);
            self.writes_left = self.writes_left.checked_sub(1).ok_or(MapError::ElementNotFound)?;
            self.chunks.insert(index, *chunk);
            Ok(())
        }
    }

    fn body(seed: u8, bytes: usize) -> Vec<u8> {
        (0..bytes).map(|index| seed.wrapping_add(u8::try_from(index % 251).unwrap())).collect()
    }

    fn newest(ledger: &Ledger<Mortal>) -> Option<Vec<u8>> {
        ledger.newest().expect("it can be read").map(|entry| entry.body)
    }

    #[test]
    fn an_empty_table_says_nothing() {
        assert_eq!(newest(&Ledger::new(Mortal::default())), None);
    }

    #[test]
    fn who_dies_in_the_middle_leaves_what_was_there_before() {
        let versions = [body(1, 3 * CHUNK + 7), body(2, 5 * CHUNK), body(3, 9), body(4, 4 * CHUNK + 1)];
        for last in 1..versions.len() {
            for writes in 0..=6 {
                let mut ledger = Ledger::new(Mortal { writes_left: usize::MAX, ..Mortal::default() });
                for version in &versions[..last] {
                    ledger.write(version).expect("it lives");
                }
                ledger.chunks.writes_left = writes;
                let outcome = ledger.write(&versions[last]);
                let expected = if outcome.is_ok() { &versions[last] } else { &versions[last - 1] };
                let mut next = Ledger::new(ledger.chunks);
                assert_eq!(newest(&next).as_ref(), Some(expected), "version {last}, {writes} writes");
                next.chunks.writes_left = usize::MAX;
                next.write(&versions[0]).expect("it lives");
                assert_eq!(newest(&next).as_ref(), Some(&versions[0]));
            }
        }
    }

    #[test]
    fn any_byte_that_changes_is_noticed() {
        let mut ledger = Ledger::new(Mortal { writes_left: usize::MAX, ..Mortal::default() });
        let text = body(5, CHUNK + 5);
        ledger.write(&text).expect("it lives");
        for (index, at) in [(0, 7), (0, 15), (0, 23), (1, 0), (1, CHUNK - 1), (2, 4)] {
            let mut damaged = Ledger::new(Mortal { chunks: ledger.chunks.chunks.clone(), writes_left: 0 });
            damaged.chunks.chunks.get_mut(&index).expect("written")[at] ^= 1;
            assert_eq!(newest(&damaged), None, "chunk {index}, byte {at}");
        }
    }

    #[test]
    fn the_same_again_writes_nothing_and_too_much_is_refused() {
        let mut ledger = Ledger::new(Mortal { writes_left: 3, ..Mortal::default() });
        let text = body(6, 2 * CHUNK);
        ledger.write(&text).expect("three chunks");
        ledger.write(&text).expect("none");
        let too_much = vec![0; LEDGER_BYTES_MAX as usize + 1];
        assert!(matches!(ledger.write(&too_much), Err(LedgerError::TooLarge { .. })));
        assert_eq!(newest(&ledger), Some(text));
    }
}
