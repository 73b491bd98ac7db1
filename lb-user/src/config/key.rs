//! The cluster key: the secret of the flow hash, which all balancers of a cluster share. While it is changed its file has the
//! former key too, in a second line.
//!
//! It is read from a file that only its owner may touch. It is never printed, not even by `Debug`, and no error message
//! has a part of it.

use super::{SecretError, secret};
use std::{
    fmt,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Bytes of a cluster key, which is a key of the flow hash.
const KEY_LEN: usize = 16;
/// The most that is read of a key file: the digits of two keys and some white space.
const FILE_MAX: u64 = 128;
const KIND: secret::Kind = secret::Kind {
    file: "a file with 32 hexadecimal digits",
    write: |path| format!("write one with `(umask 077; openssl rand -hex 16 > {})`", path.display()),
};

/// The secret of the flow hash.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey {
    present: [u8; KEY_LEN],
    former: Option<[u8; KEY_LEN]>,
}

impl ClusterKey {
    /// A key of the kernel's randomness, for a balancer that stands alone.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn random() -> Result<Self, KeyError> {
        let mut key = [0; KEY_LEN];
        getrandom::fill(&mut key).map_err(KeyError::Random)?;
        Ok(Self { present: key, former: None })
    }

    /// Reads a key of 32 hexadecimal digits, and the former one if there is a second line of them.
    ///
    /// # Errors
    /// The file cannot be read, others than its owner may touch it, or it holds something else.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let mut text = Vec::new();
        let read = KIND.open(path)?.take(FILE_MAX).read_to_end(&mut text);
        read.map_err(|source| KIND.unreadable(path, source))?;
        Self::parse(&text).ok_or_else(|| KeyError::Malformed(path.to_owned()))
    }

    /// The key, for the program that hashes with it.
    pub const fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.present
    }

    /// The key before it, whose flows are to be kept.
    pub const fn former(&self) -> Option<&[u8; KEY_LEN]> {
        self.former.as_ref()
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let mut lines = text.trim_ascii().split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let present = from_hex(lines.next()?)?;
        let former = match lines.next() {
            Some(line) => Some(from_hex(line)?).filter(|former| *former != present),
            None => None,
        };
        lines.next().is_none().then_some(Self { present, former })
    }
}

fn from_hex(digits: &[u8]) -> Option<[u8; KEY_LEN]> {
    if digits.len() != 2 * KEY_LEN || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let number = u128::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    Some(number.to_be_bytes())
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

/// Why there is no cluster key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Not a key.
    #[error(
        "{} does not hold exactly 32 hexadecimal digits (and in a second line those of the former key, while it is changed); \
         write them with `openssl rand -hex 16`",
        .0.display()
    )]
    Malformed(PathBuf),
    /// The kernel has no randomness.
    #[error("the kernel gave no random bytes for a key: {0}")]
    Random(getrandom::Error),
}
