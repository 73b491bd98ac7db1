//! What is transferred: files of known bytes, made from the seed. Whether what comes is what was meant is told by SHA-256,
//! never by lengths or the server's word.

use std::{fs, path::Path};

use hyper::body::Bytes;
use sha2::{Digest, Sha256};

use crate::{LabError, random::Random};

const KIB: usize = 1 << 10;
/// What many short requests ask for.
const SMALL: [usize; 5] = [400, 2 * KIB, 8 * KIB, 32 * KIB, 128 * KIB];
/// What is a transfer among other traffic.
const MEDIUM: [usize; 2] = [512 * KIB, 1024 * KIB];
/// What long transfers ask for.
const LARGE: [usize; 3] = [4096 * KIB, 8192 * KIB, 16_384 * KIB];
/// Which random numbers the files are made of.
const SEQUENCE: u64 = u64::MAX;

/// The SHA-256 of a body.
pub(super) type Digested = [u8; 32];

/// A file, as it is to arrive.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Its path for HTTP.
    pub(super) path: String,
    pub(super) bytes: Bytes,
    pub(super) digest: Digested,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) small: Vec<File>,
    pub(super) medium: Vec<File>,
    pub(super) large: Vec<File>,
}

impl Content {
    /// Makes them and writes them below `root`, each complete before it has its name there.
    ///
    /// # Errors
    ///
    /// If one cannot be written.
    pub(super) fn write(seed: u64, root: &Path) -> Result<Self, LabError> {
        let mut random = Random::of(seed, SEQUENCE);
        let mut write = |kind: &str, sizes: &[usize]| -> Result<Vec<File>, LabError> {
            let files = sizes.iter().map(|size| File::write(&mut random, root, &format!("{kind}-{size}"), *size));
            files.collect()
        };
        Ok(Self { small: write("small", &SMALL)?, medium: write("medium", &MEDIUM)?, large: write("large", &LARGE)? })
    }
}

impl File {
    fn write(random: &mut Random, root: &Path, name: &str, size: usize) -> Result<Self, LabError> {
        let words = (0..size.div_ceil(8)).flat_map(|_| random.next().to_be_bytes());
        let bytes: Bytes = words.take(size).collect();
        let (unfinished, path) = (root.join(format!(".{name}")), root.join(name));
        fs::write(&unfinished, &bytes).map_err(LabError::file("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(LabError::file("name", &path))?;
        Ok(Self { path: format!("/{name}"), digest: Sha256::digest(&bytes).into(), bytes })
    }
}
