//! How the backends of a pool are checked.

use super::regular;
use std::{
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Bytes of a file of certificates: all that a system trusts take a quarter of a million.
const CERTIFICATES_BYTES_MAX: u64 = 4 << 20;

/// A `[pool.health]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked of a backend.
    pub check: Check,
    /// Where the checks connect to: addresses of VIPs of the pool, one or one of each family, on each backend in turn.
    pub targets: Vec<SocketAddr>,
    /// From the start of a check to that of the next.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// By how many percent an interval is longer or shorter, at random.
    pub jitter_percent: u32,
    /// Good checks in a row that bring a backend back.
    pub rise: u32,
    /// Failed checks in a row that take a backend out.
    pub fall: u32,
    /// Whether all backends are used where all of them have failed.
    pub fail_open: bool,
}

/// What is asked of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// That it accepts a TCP connection.
    Tcp,
    /// That it accepts an MPTCP connection as such.
    Mptcp,
    /// That it answers an HTTP request.
    Http(HttpRequest),
    /// The same inside TLS.
    Https(HttpRequest, Trust),
}

impl Health {
    /// The targets as an operator reads them.
    pub fn targets_words(&self) -> String {
        let words: Vec<_> = self.targets.iter().map(ToString::to_string).collect();
        words.join(", ")
    }
}

impl Check {
    /// Its word in the configuration.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Mptcp => "mptcp",
            Self::Http(_) => "http",
            Self::Https(..) => "https",
        }
    }
}

/// An HTTP request and the answer that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The host that is asked for, else the address; inside TLS also the name that the certificate must have.
    pub host: Option<String>,
    /// The path.
    pub path: String,
    /// The statuses that are good: at least one.
    pub statuses: Vec<u16>,
    /// What the body must hold.
    pub body: Option<String>,
}

impl HttpRequest {
    /// The host that is asked for at a target.
    pub fn host_at(&self, target: SocketAddr) -> String {
        let by_address = || match target.ip() {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        self.host.clone().unwrap_or_else(by_address)
    }
}

/// Which certificates are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Any.
    Any,
    /// Those of the host's name that one of these has signed.
    SignedBy(Vec<CertificateDer<'static>>),
}

/// Why a file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("{}: {source}; name a file of PEM certificates that weir may read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It holds none.
    #[error("{} holds no PEM certificate; name a file that begins with -----BEGIN CERTIFICATE-----", .0.display())]
    Empty(PathBuf),
}

impl Trust {
    /// The certificates in a file.
    ///
    /// # Errors
    /// It cannot be read, or holds none.
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        let mut text = Vec::new();
        regular::open_bounded(path, CERTIFICATES_BYTES_MAX, "a file of certificates")
            .and_then(|mut file| file.read_to_end(&mut text))
            .map_err(|source| TrustError::Unreadable { path: path.to_owned(), source })?;
        let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(Self::SignedBy(certificates)),
            _ => Err(TrustError::Empty(path.to_owned())),
        }
    }
}
