//! A connection of our own to a listener, by which it notes that it has given out a cookie just now, and shows what it says
//! in an answer. Without that note the kernel takes no cookie.

use nix::{
    getsockopt_impl, libc, sockopt_impl,
    sys::socket::{getsockopt, sockopt},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{io, net::SocketAddr, time::Duration};

/// A listener of this host answers at once, or is not to be minted for.
const LIMIT: Duration = Duration::from_millis(250);

const MPTCP_INFO: libc::c_int = 1;
const SOL_MPTCP: libc::c_int = 284;
/// As much of `struct tcp_info` as Linux 5.4 has and is read here.
const TCP_INFO_LEN: usize = 232;
/// Among the options there: each segment has 12 bytes of timestamps.
const TIMESTAMPS: u8 = 1;

sockopt_impl!(
    /// Its first word; refused where the connection is plain TCP.
    MptcpInfo, GetOnly, SOL_MPTCP, MPTCP_INFO, u32
);
sockopt_impl!(
    /// All of it.
    TcpInfo, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u8; TCP_INFO_LEN]
);

/// What a listener says in its answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The shift of its windows.
    pub wscale: u8,
    /// The first window.
    pub window: u16,
    /// Its MSS, where nothing but itself limits it.
    pub mss: u16,
}

/// Why a listener says nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// It does not answer.
    #[error("it takes no connection: {0}")]
    Connect(#[from] io::Error),
    /// The kernel could not be had give out cookies.
    #[error("the kernel does not give out cookies for a moment: {0}")]
    NoMoment(String),
    /// Another socket than the one that the kernel lists.
    #[error("it answers in plain TCP")]
    PlainTcp,
}

/// Connects, looks, and resets. It waits, so a runtime's own thread must not call it.
pub(super) fn ask(target: SocketAddr) -> Result<Said, ProbeError> {
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::MPTCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.connect_timeout(&target.into(), LIMIT)?;
    getsockopt(&socket, MptcpInfo).map_err(|_| ProbeError::PlainTcp)?;
    let info = getsockopt(&socket, TcpInfo).map_err(io::Error::from)?;
    let _ = getsockopt(&socket, sockopt::SocketError);
    let word = |at: usize| info[at..].first_chunk().map_or(0, |&word| u32::from_ne_bytes(word));
    let options = if info[5] & TIMESTAMPS != 0 { 12 } else { 0 };
    let narrow = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    Ok(Said { wscale: info[6] & 0x0f, window: narrow(word(228)), mss: narrow(word(16) + options) })
}
