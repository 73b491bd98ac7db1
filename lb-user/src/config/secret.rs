//! Files that hold a secret: only their owner may touch them, and who that is must be root or whoever runs weir. No message
//! has a part of what they hold.

use super::{regular, words::this_user};
use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A kind of secret, as messages tell of it.
pub(super) struct Kind {
    /// What it is, behind `name`.
    pub(super) file: &'static str,
    /// How to write one at a path.
    pub(super) write: fn(&Path) -> String,
}

/// Why a secret is not read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The path depends on where the command is started.
    #[error("{} is not an absolute path; write it from / on", .0.display())]
    Relative(PathBuf),
    /// The file cannot be opened or read.
    #[error("{}: {source}; {mend}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
        /// What to do.
        mend: String,
    },
    /// A directory, device or the like.
    #[error("{} is not a plain file; name {file}", path.display())]
    NotAFile {
        /// What it is.
        path: PathBuf,
        /// What it is to be.
        file: &'static str,
    },
    /// Others than the owner may read or change the file.
    #[error("{} has the rights {mode:04o}, so others may read the secret; `chmod 0600 {}`, and change the secret if they did", path.display(), path.display())]
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
}

impl Kind {
    /// Opens a file of this kind, if nobody but its owner may touch it.
    pub(super) fn open(&self, path: &Path) -> Result<File, SecretError> {
        let path_buf = || path.to_owned();
        if !path.is_absolute() {
            return Err(SecretError::Relative(path_buf()));
        }
        let opened = regular::open(path).map_err(|source| self.unreadable(path, source))?;
        let file = opened.ok_or_else(|| SecretError::NotAFile { path: path_buf(), file: self.file })?;
        let metadata = file.metadata().map_err(|source| self.unreadable(path, source))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Rights { path: path_buf(), mode });
        }
        let owner = metadata.uid();
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Err(SecretError::Owner { path: path_buf(), owner });
        }
        Ok(file)
    }

    /// That the system refuses a file of this kind, and what to do.
    pub(super) fn unreadable(&self, path: &Path, source: io::Error) -> SecretError {
        let mend = match source.kind() {
            io::ErrorKind::PermissionDenied => {
                format!("give it to the user that runs weir: `chown {} {}`", this_user(), path.display())
            }
            _ => (self.write)(path),
        };
        SecretError::Unreadable { path: path.to_owned(), source, mend }
    }
}
