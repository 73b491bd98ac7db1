//! Settings of this network namespace that cookies depend on, and the one that is changed for a moment.

use crate::bpf::Pins;
use lb_common::mint::Listener;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Why the kernel would not take a cookie, or take it otherwise than it was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Cookies are never taken.
    #[error("net.ipv4.tcp_syncookies is 0, so the kernel takes no cookies")]
    NoCookies,
    /// A cookie's timestamp would not be read as it was written.
    #[error("net.ipv4.tcp_timestamps is {0}, and the kernel reads cookies of others rightly only with 2")]
    Timestamps(u32),
    /// There is no MPTCP.
    #[error("net.mptcp.enabled is not 1, so nothing here speaks MPTCP")]
    NoMptcp,
}

impl Unfit {
    /// What is so now.
    pub fn found() -> Option<Self> {
        flags().err()
    }

    /// The line of shell that mends it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::NoCookies => "sysctl -w net.ipv4.tcp_syncookies=1",
            Self::Timestamps(_) => "sysctl -w net.ipv4.tcp_timestamps=2",
            Self::NoMptcp => "sysctl -w net.mptcp.enabled=1",
        }
    }
}

const SYNCOOKIES: &str = "net/ipv4/tcp_syncookies";

/// What the settings have a listener say.
pub(super) fn flags() -> Result<u8, Unfit> {
    if read(SYNCOOKIES) == Some(0) {
        return Err(Unfit::NoCookies);
    }
    match read("net/ipv4/tcp_timestamps") {
        Some(2) => {}
        other => return Err(Unfit::Timestamps(other.unwrap_or_default())),
    }
    if read("net/mptcp/enabled") != Some(1) {
        return Err(Unfit::NoMptcp);
    }
    let flag = |setting, is: fn(u32) -> bool, flag| if read(setting).is_some_and(is) { flag } else { 0 };
    Ok(flag("net/ipv4/tcp_sack", |value| value != 0, Listener::SACK)
        | flag("net/ipv4/tcp_window_scaling", |value| value != 0, Listener::WSCALE)
        | flag("net/ipv4/tcp_ecn", |value| value != 0, Listener::ECN)
        | flag("net/mptcp/checksum_enabled", |value| value != 0, Listener::CHECKSUM)
        | flag("net/mptcp/allow_join_initial_addr_port", |value| value == 0, Listener::NO_JOIN_HERE))
}

/// Has the kernel answer the program's questions for routes, as [`crate::bpf`]'s program asks them: for nothing else does it
/// matter whether the loopback interface forwards, as nothing arrives there that is not this host's.
pub(super) fn let_routes_be_asked() -> io::Result<()> {
    for family in ["ipv4", "ipv6"] {
        let setting = format!("net/{family}/conf/lo/forwarding");
        if read(&setting) != Some(1) {
            write(&setting, 1)?;
        }
    }
    Ok(())
}

/// While it lives, each SYN is answered with a cookie.
pub(super) struct Moment {
    former: u32,
    note: PathBuf,
}

impl Moment {
    /// Begins. What to go back to is noted among the pins, for whoever comes after a process that was killed.
    pub(super) fn begin(pins: &Pins, mark: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<Self> {
        let former = read(SYNCOOKIES).ok_or_else(|| io::Error::other("net.ipv4.tcp_syncookies cannot be read"))?;
        let moment = Self { former, note: pins.moment(former) };
        mark(&moment.note)?;
        write(SYNCOOKIES, 2)?;
        Ok(moment)
    }
}

impl Drop for Moment {
    fn drop(&mut self) {
        // What cannot be restored stays noted.
        if write(SYNCOOKIES, self.former).is_ok() {
            let _ = fs::remove_file(&self.note);
        }
    }
}

/// Ends the moment of a process that was killed in it. Whether there was one.
///
/// # Errors
/// The setting cannot be written, or the note not removed.
pub fn restore(pins: &Pins) -> io::Result<bool> {
    let Some((former, note)) = pins.noted_moment() else { return Ok(false) };
    write(SYNCOOKIES, former)?;
    fs::remove_file(note)?;
    Ok(true)
}

fn read(setting: &str) -> Option<u32> {
    fs::read_to_string(PathBuf::from("/proc/sys").join(setting)).ok()?.trim().parse().ok()
}

fn write(setting: &str, value: u32) -> io::Result<()> {
    fs::write(PathBuf::from("/proc/sys").join(setting), value.to_string()).map_err(|error| {
        io::Error::new(error.kind(), format!("{} cannot be set to {value}: {error}", setting.replace('/', ".")))
    })
}
