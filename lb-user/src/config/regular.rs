//! Files that the operator names. What is no regular file could keep a running balancer waiting for a writer, and what is
//! too large takes its memory: neither is read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Take},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// Opens a regular file; `None` if it is something else.
pub(super) fn open(path: &Path) -> io::Result<Option<File>> {
    if !fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    // It may be something else by now.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Opens a regular file for who reads `max` bytes at most; `what` it is, an error says.
pub(super) fn open_bounded(path: &Path, max: u64, what: &str) -> io::Result<Take<File>> {
    let Some(file) = open(path)? else {
        return Err(if path.is_dir() {
            io::Error::from_raw_os_error(nix::libc::EISDIR)
        } else {
            io::Error::other("it is no regular file; copy what it says to one")
        });
    };
    bounded(file, max, what)
}

/// The same of a file that is open.
pub(super) fn bounded(file: File, max: u64, what: &str) -> io::Result<Take<File>> {
    let len = file.metadata()?.len();
    if len > max {
        return Err(io::Error::other(format!("it has {len} bytes, and {what} has at most {max}")));
    }
    Ok(file.take(max))
}
