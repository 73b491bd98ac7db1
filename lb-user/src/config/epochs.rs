//! The secret of stateless tokens: one file for all balancers and agents of a pool, with a key for each epoch and from when
//! on tokens are made under it.
//!
//! All epochs in it are read; the latest that has begun is minted. So one distribution of one file does a rotation, if it
//! is through before the new epoch begins. A key is never printed, not even by `Debug`, and no error message has a part of
//! it, nor of what the file holds.

use super::{SecretError, regular, secret};
use lb_common::{
    hash::{SipKey, sip::sip13_bytes},
    limits::TOKEN_EPOCHS_LIVE_MAX,
    stateless::{Codec, Epoch, IdBits, Mark, TokenId},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt::{self, Write as _},
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    time::Duration,
};
use time::{UtcDateTime, format_description::well_known::Rfc3339};
use toml::Spanned;

const KEY_LEN: usize = 16;
/// The most that is read of a file: three epochs and some comments.
const FILE_MAX: u64 = 4096;
const KIND: secret::Kind = secret::Kind {
    file: "a file that `weir secret` has written",
    write: |path| format!("write one with `weir secret new {}`", path.display()),
};
const HEADING: &str = "\
# The secret of stateless tokens, the same on all balancers and agents of a pool. Nobody else may read it.
# `weir secret rotate` adds an epoch, `weir secret show-epochs` says what is in here without the keys.
";

/// The keys of the epochs that are live: at least one, at most [`TOKEN_EPOCHS_LIVE_MAX`], the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSecret {
    epochs: Vec<EpochSecret>,
}

/// The key of one epoch.
#[derive(Clone, PartialEq, Eq)]
pub struct EpochSecret {
    /// Its number in tokens.
    pub epoch: Epoch,
    /// From when on its tokens are made.
    pub minted_from: UtcDateTime,
    key: [u8; KEY_LEN],
}

/// What tells a key from others without telling it: a keyed hash of a fixed text, which no token is as long as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(u64);

/// What a rotation made of a secret.
#[derive(Clone, Debug)]
pub struct Rotated {
    /// The secret with its new epoch, which is the last.
    pub secret: TokenSecret,
    /// The epoch that had to go for it: its tokens are unknown from now on.
    pub gone: Option<EpochSecret>,
}

/// Why there is no secret of tokens, or none that is new.
#[derive(Debug, thiserror::Error)]
pub enum TokenSecretError {
    /// The file is not read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Not what `weir secret` writes. What stands there is not told: it may be a key.
    #[error("{}:{line}: {what}; write the file with `weir secret` alone", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// The kernel has no randomness.
    #[error("the kernel gave no random bytes for a key: {0}")]
    Random(getrandom::Error),
    /// A new secret would take the place of another.
    #[error("{} is there already; `weir secret rotate {}` adds an epoch to it", .0.display(), .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("{}: {source}; nothing is changed", path.display())]
    Unwritten {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The new epoch would begin before the one before it.
    #[error("epoch {} begins at {} only, and the next one must begin later; rotate after that, or with a longer --after", epoch.number(), rfc3339(*from))]
    NotBegun {
        /// The last epoch.
        epoch: Epoch,
        /// When it begins.
        from: UtcDateTime,
    },
    /// The oldest of three epochs would have to go while it is minted.
    #[error("epoch {} is minted until {}, and {TOKEN_EPOCHS_LIVE_MAX} epochs are the most; rotate after that", epoch.number(), rfc3339(*until))]
    StillMinted {
        /// The oldest epoch.
        epoch: Epoch,
        /// When the one after it begins.
        until: UtcDateTime,
    },
    /// The instant is beyond what a calendar can say.
    #[error("--after is too long; choose days at most")]
    TooLate,
}

/// An instant to the second, as the file has it.
pub fn rfc3339(at: UtcDateTime) -> String {
    at.truncate_to_second().format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

impl TokenSecret {
    /// A secret with one epoch, which is minted from `now` on.
    ///
    /// # Errors
    /// The kernel gave no random bytes.
    pub fn random(now: UtcDateTime) -> Result<Self, TokenSecretError> {
        let first = EpochSecret::random(Epoch::FIRST, now)?;
        Ok(Self { epochs: vec![first] })
    }

    /// Reads the file at an absolute path.
    ///
    /// # Errors
    /// It cannot be read, others than its owner may touch it, or it holds something else.
    pub fn load(path: &Path) -> Result<Self, TokenSecretError> {
        let file = KIND.open(path)?;
        let text = regular::bounded(file, FILE_MAX, "a secret of tokens").and_then(io::read_to_string);
        let text = text.map_err(|source| KIND.unreadable(path, source))?;
        parse(&text).map_err(|(at, what)| TokenSecretError::Malformed {
            path: path.to_owned(),
            line: text.as_bytes().iter().take(at).filter(|&&byte| byte == b'\n').count() + 1,
            what,
        })
    }

    /// All epochs, the oldest first.
    pub fn epochs(&self) -> &[EpochSecret] {
        &self.epochs
    }

    /// The epoch whose tokens are made at an instant; none before the first begins.
    pub fn minted_at(&self, now: UtcDateTime) -> Option<&EpochSecret> {
        self.epochs.iter().rfind(|epoch| epoch.minted_from <= now)
    }

    /// What reads the tokens of all epochs.
    pub fn codec(&self, bits: IdBits) -> Codec {
        self.epochs.iter().fold(Codec::new(bits), |codec, epoch| codec.with(epoch.epoch, epoch.sip_key()))
    }

    /// The same with one more epoch, minted from `after` from now on, and without the oldest if there were too many.
    ///
    /// # Errors
    /// The last epoch begins later than that, the oldest one is minted still, or there are no random bytes.
    pub fn rotated(&self, now: UtcDateTime, after: Duration) -> Result<Rotated, TokenSecretError> {
        let from = time::Duration::try_from(after).ok().and_then(|after| now.checked_add(after));
        let from = from.ok_or(TokenSecretError::TooLate)?.truncate_to_second();
        let mut epochs = self.epochs.clone();
        let next = match epochs.last() {
            Some(last) if last.minted_from >= from => {
                return Err(TokenSecretError::NotBegun { epoch: last.epoch, from: last.minted_from });
            }
            Some(last) => last.epoch.next(),
            None => Epoch::FIRST,
        };
        let gone = match &epochs[..] {
            [oldest, second, ..] if epochs.len() >= TOKEN_EPOCHS_LIVE_MAX => {
                if second.minted_from > now {
                    return Err(TokenSecretError::StillMinted { epoch: oldest.epoch, until: second.minted_from });
                }
                Some(epochs.remove(0))
            }
            _ => None,
        };
        epochs.push(EpochSecret::random(next, from)?);
        Ok(Rotated { secret: Self { epochs }, gone })
    }

    /// Writes a file that is not there yet, for its owner alone.
    ///
    /// # Errors
    /// There is one, or it cannot be written.
    pub fn create(&self, path: &Path) -> Result<(), TokenSecretError> {
        let unwritten = |source| TokenSecretError::Unwritten { path: path.to_owned(), source };
        let file = self.written_beside(path).map_err(unwritten)?;
        match file.persist_noclobber(path) {
            Ok(_) => sync_folder_of(path).map_err(unwritten),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(TokenSecretError::Exists(path.to_owned()))
            }
            Err(error) => Err(unwritten(error.error)),
        }
    }

    /// Writes over a file at once, with the owner and the rights that it has.
    ///
    /// # Errors
    /// It is not there, or cannot be written; then it stays as it was.
    pub fn replace(&self, path: &Path) -> Result<(), TokenSecretError> {
        let replace = || {
            // Where the path is a link, what it leads to is replaced, not the link.
            let path = fs::canonicalize(path)?;
            let former = fs::metadata(&path)?;
            let file = self.written_beside(&path)?;
            file.as_file().set_permissions(Permissions::from_mode(former.mode() & 0o7777))?;
            fchown(file.as_file(), Some(former.uid()), Some(former.gid()))?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            sync_folder_of(&path)
        };
        replace().map_err(|source| TokenSecretError::Unwritten { path: path.to_owned(), source })
    }

    /// A file in the same folder, which nobody else may read and which goes unless it is given its name.
    fn written_beside(&self, path: &Path) -> io::Result<tempfile::NamedTempFile> {
        let folder = folder_of(path);
        fs::metadata(folder)?;
        let mut file = tempfile::Builder::new().prefix(".weir-secret-").tempfile_in(folder)?;
        file.write_all(self.text().as_bytes())?;
        file.as_file().sync_all()?;
        Ok(file)
    }

    fn text(&self) -> String {
        let mut text = HEADING.to_owned();
        for EpochSecret { epoch, minted_from, key } in &self.epochs {
            let (number, from) = (epoch.number(), rfc3339(*minted_from));
            let key = u128::from_be_bytes(*key);
            let _ = write!(text, "\n[[epoch]]\nnumber = {number}\nminted_from = {from}\nkey = \"{key:032x}\"\n");
        }
        text
    }
}

impl EpochSecret {
    fn random(epoch: Epoch, minted_from: UtcDateTime) -> Result<Self, TokenSecretError> {
        let mut key = [0; KEY_LEN];
        getrandom::fill(&mut key).map_err(TokenSecretError::Random)?;
        Ok(Self { epoch, minted_from: minted_from.truncate_to_second(), key })
    }

    /// The key, for who hashes with it.
    pub const fn sip_key(&self) -> SipKey {
        SipKey::from_bytes(self.key)
    }

    /// What a backend's tokens of this epoch have in common.
    pub const fn mark(&self, id: TokenId, bits: IdBits) -> Mark {
        Mark { id, epoch: self.epoch, key: self.sip_key(), bits }
    }

    /// What tells the key from others without telling it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(sip13_bytes(&self.sip_key(), b"weir: fingerprint of a secret of tokens"))
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EpochSecret({}, {}, {})", self.epoch.number(), rfc3339(self.minted_from), self.fingerprint())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The folder that a file is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A name outlives a loss of power only when its folder is on the disk.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    fs::File::open(folder_of(path))?.sync_all()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    epoch: Vec<Spanned<Written>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    number: u8,
    minted_from: toml::value::Datetime,
    key: String,
}

/// What a text holds, or where and what is wrong with it.
fn parse(text: &str) -> Result<TokenSecret, (usize, &'static str)> {
    let file: File = toml::from_str(text).map_err(|error| {
        (error.span().map_or(0, |span| span.start), "this is not an [[epoch]] with number, minted_from and key")
    })?;
    let mut epochs: Vec<EpochSecret> = Vec::new();
    for written in &file.epoch {
        let epoch = epoch(written.get_ref(), epochs.last()).map_err(|what| (written.span().start, what))?;
        if epochs.iter().any(|other| other.key == epoch.key) {
            return Err((written.span().start, "the epoch has the key of another one"));
        }
        epochs.push(epoch);
    }
    if !(1..=TOKEN_EPOCHS_LIVE_MAX).contains(&epochs.len()) {
        return Err((0, "a secret has one to three epochs"));
    }
    Ok(TokenSecret { epochs })
}

fn epoch(written: &Written, before: Option<&EpochSecret>) -> Result<EpochSecret, &'static str> {
    let epoch = Epoch::new(written.number).ok_or("the number of an epoch is 0 to 3")?;
    let minted_from = UtcDateTime::parse(&written.minted_from.to_string(), &Rfc3339)
        .map_err(|_| "minted_from is a time such as 2026-01-02T03:04:05Z")?;
    let key = key(&written.key).ok_or("the key is 32 hexadecimal digits")?;
    if let Some(before) = before {
        if epoch != before.epoch.next() {
            return Err("the number is not the next after the epoch's before it");
        }
        if minted_from <= before.minted_from {
            return Err("the epoch begins no later than the one before it");
        }
    }
    Ok(EpochSecret { epoch, minted_from, key })
}

fn key(digits: &str) -> Option<[u8; KEY_LEN]> {
    let is_key = digits.len() == 2 * KEY_LEN && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_key.then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(u128::to_be_bytes)
}
