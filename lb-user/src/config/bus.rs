//! The `[bus]` table: the NATS servers by which the members of a cluster tell each other what they know.
//!
//! The credentials are a secret: read from a file that only its owner may touch, never printed.

use super::{Name, regular, words::this_user};
use std::{
    fmt, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// The most that is read of a credentials file, which is a token and a key of less than 2 KiB.
const FILE_MAX: u64 = 64 << 10;

/// How a member of a cluster reaches the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bus {
    /// The servers, at least one: `nats://HOST:PORT` or `tls://HOST:PORT`.
    pub servers: Vec<String>,
    /// The cluster, a part of every subject: it has no dot.
    pub cluster: Name,
    /// This member, unlike all others of the cluster.
    pub name: Name,
    /// What the servers know this member by.
    pub credentials: Option<Credentials>,
    /// Who has signed the servers' certificates, where it is not one that the system trusts.
    pub ca: Option<PathBuf>,
}

/// The content of a NATS credentials file.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials(String);

impl Credentials {
    /// Reads a credentials file.
    ///
    /// # Errors
    /// It cannot be read, or others than its owner may touch it.
    pub fn load(path: &Path) -> Result<Self, CredentialsError> {
        let named = || path.to_owned();
        if !path.is_absolute() {
            return Err(CredentialsError::Relative(named()));
        }
        let unreadable = |source| CredentialsError::Unreadable { path: named(), source };
        let file = regular::open(path).map_err(unreadable)?.ok_or_else(|| CredentialsError::NotAFile(named()))?;
        let metadata = file.metadata().map_err(unreadable)?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(CredentialsError::Rights { path: named(), mode });
        }
        let owner = metadata.uid();
        if owner != 0 && owner != nix::unistd::geteuid().as_raw() {
            return Err(CredentialsError::Owner { path: named(), owner });
        }
        regular::bounded(file, FILE_MAX, "a file of credentials")
            .and_then(io::read_to_string)
            .map(Self)
            .map_err(unreadable)
    }

    /// The text, for the connection that is made with it.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The path depends on where the command is started.
    #[error("{} is not an absolute path; write it from / on", .0.display())]
    Relative(PathBuf),
    /// The file cannot be read.
    #[error("{}: {source}; write the credentials that `nsc generate creds` prints there, for {} alone", path.display(), this_user())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, device or the like.
    #[error("{} is not a plain file; name a NATS credentials file", .0.display())]
    NotAFile(PathBuf),
    /// Others than the owner may read or change the file.
    #[error("{} has the rights {mode:04o}, so others may read the secret; `chmod 0600 {}`, and change it if they did", path.display(), path.display())]
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
