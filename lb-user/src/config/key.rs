//! The cluster key: the secret of the flow hash, which all balancers of a cluster share.
//!
//! It is read from a file that only its owner may touch. It is never printed, not even by `Debug`, and no error message
//! has a part of it.

use super::{regular, words::this_user};
use std::fmt;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a cluster key, which is a key of the flow hash.
const KEY_LEN: usize = 16;
/// The most that is read of a key file: the digits and some white space.
const FILE_MAX: u64 = 64;

/// The secret of the flow hash.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey([u8; KEY_LEN]);

impl ClusterKey {
    /// A key of the kernel's randomness, for a balancer that stands alone.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn random() -> Result<Self, KeyError> {
        let mut key = [0; KEY_LEN];
        getrandom::fill(&mut key).map_err(KeyError::Random)?;
        Ok(Self(key))
    }

    /// Reads a key of 32 hexadecimal digits.
    ///
    /// # Errors
    /// The file cannot be read, others than its owner may touch it, or it holds something else.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let path = || path.to_owned();
        if !path().is_absolute() {
            return Err(KeyError::Relative(path()));
        }
        let unreadable = |source| KeyError::Unreadable { path: path(), source };
        let file = regular::open(&path()).map_err(unreadable)?.ok_or_else(|| KeyError::NotAFile(path()))?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Rights { path: path(), mode });
        }
        let owner = metadata.uid();
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Err(KeyError::Owner { path: path(), owner });
        }

        let mut text = Vec::new();
        file.take(FILE_MAX).read_to_end(&mut text).map_err(unreadable)?;
        Self::from_hex(text.trim_ascii()).ok_or_else(|| KeyError::Malformed(path()))
    }

    /// The key, for the program that hashes with it.
    pub const fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    fn from_hex(digits: &[u8]) -> Option<Self> {
        if digits.len() != 2 * KEY_LEN || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let number = u128::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

/// Why there is no cluster key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The path depends on where the command is started.
    #[error("{} is not an absolute path; write it from / on", .0.display())]
    Relative(PathBuf),
    /// The file cannot be opened or read.
    #[error("{}: {source}; {}", path.display(), mend(path, source.kind()))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, device or the like.
    #[error("{} is not a plain file; name a file with 32 hexadecimal digits", .0.display())]
    NotAFile(PathBuf),
    /// Others than the owner may read or change the file.
    #[error("{} has the rights {mode:04o}, so others may read the secret; `chmod 0600 {}`, and change the key if they did", path.display(), path.display())]
    Rights {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Somebody else could change the file.
    #[error("{} belongs to user {owner}; `chown {} {}`", path.display(), this_user(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The user id of its owner.
        owner: u32,
    },
    /// Not a key.
    #[error("{} does not hold exactly 32 hexadecimal digits; write them with `openssl rand -hex 16`", .0.display())]
    Malformed(PathBuf),
    /// The kernel has no randomness.
    #[error("the kernel gave no random bytes for a key: {0}")]
    Random(getrandom::Error),
}

/// What to do about a key file that cannot be read.
fn mend(path: &Path, kind: io::ErrorKind) -> String {
    let path = path.display();
    match kind {
        io::ErrorKind::PermissionDenied => {
            format!("give it to the user that runs weir: `chown {} {path}`", this_user())
        }
        _ => format!("write one with `(umask 077; openssl rand -hex 16 > {path})`"),
    }
}
