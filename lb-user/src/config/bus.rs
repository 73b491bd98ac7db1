//! The `[bus]` table: the NATS servers by which the members of a cluster tell each other what they know.
//!
//! The credentials are a secret: read from a file that only its owner may touch, never printed.

use super::{Name, SecretError, regular, secret, words::this_user};
use std::{
    fmt, io,
    path::{Path, PathBuf},
};

/// The most that is read of a credentials file, which is a token and a key of less than 2 KiB.
const FILE_MAX: u64 = 64 << 10;
const KIND: secret::Kind = secret::Kind {
    file: "a NATS credentials file",
    write: |_| format!("write the credentials that `nsc generate creds` prints there, for {} alone", this_user()),
};

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
    pub fn load(path: &Path) -> Result<Self, SecretError> {
        let file = KIND.open(path)?;
        let text = regular::bounded(file, FILE_MAX, "a file of credentials").and_then(io::read_to_string);
        text.map(Self).map_err(|source| KIND.unreadable(path, source))
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
