//! Whether a connection is an MPTCP one, or has fallen back to plain TCP.

use super::Failure;
use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::getsockopt};
use tokio::net::TcpStream;

/// `MPTCP_INFO` (linux/mptcp.h), which is refused where the connection is plain TCP.
const MPTCP_INFO: libc::c_int = 1;
const SOL_MPTCP: libc::c_int = 284;

sockopt_impl!(
    /// Its first word; the rest does not matter here.
    Info, GetOnly, SOL_MPTCP, MPTCP_INFO, u32
);

/// Good if the other end speaks MPTCP.
pub(super) fn is_spoken(stream: &TcpStream) -> Result<(), Failure> {
    getsockopt(stream, Info).map(drop).map_err(|_| Failure::PlainTcp)
}
