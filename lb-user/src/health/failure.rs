//! Why a check failed, in the words of whoever has to mend it.

use std::{io, net::IpAddr, time::Duration};

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum Failure {
    #[error("no answer in {}", seconds(*.0))]
    Late(Duration),
    #[error("connection refused")]
    Refused,
    #[error("the connection was reset")]
    Reset,
    #[error("no way to it: {0}")]
    NoWay(String),
    #[error("this machine has no route to the VIP {0}, which checks need: `ip route add {0} via ROUTER`")]
    NoRoute(IpAddr),
    #[error(
        "no neighbour answers on this machine's route to the VIP {0}: `ip route get {0}` shows it; give it a router that answers"
    )]
    NoNeighbour(IpAddr),
    #[error("a check may not set the mark of its packets: give weir CAP_NET_ADMIN")]
    NotPermitted,
    #[error("no socket for the check: {0}")]
    Socket(io::Error),
    #[error("the connection broke: {0}")]
    Broken(io::Error),

    #[error("this machine has no MPTCP: `sysctl net.mptcp.enabled=1`")]
    NoMptcpHere,
    #[error("it answers plain TCP, not MPTCP: is net.mptcp.enabled 1 there, and does the server listen with MPTCP?")]
    PlainTcp,
    #[error("it speaks MPTCP, but no packet of the check has told its token: is `weir_probe` still on the interface?")]
    NoToken,
    #[error(
        "its token names token_id {named}, not {wanted}, so joins of its connections would go wrong: compare id, max_backends \
         and secret of its agent with token_id, max_backends and secret here"
    )]
    OtherToken { named: u16, wanted: u16 },
    #[error(
        "its token names no backend, so joins of its connections are unknown: its agent mints none, or under a secret that \
         this balancer has not read"
    )]
    IllegibleToken,

    #[error("no TLS: {0}")]
    Tls(String),
    #[error("no HTTP: {0}")]
    Http(String),
    #[error("status {got}, wanted {}", list(wanted))]
    Status { got: u16, wanted: Vec<u16> },
    #[error("the body lacks {0:?}")]
    Body(String),
}

impl Failure {
    /// Whether this machine could not even ask, which says nothing of the backend.
    pub(super) const fn is_ours(&self) -> bool {
        matches!(self, Self::Socket(_))
    }

    pub(super) fn connect(error: &io::Error, vip: IpAddr) -> Self {
        match error.raw_os_error() {
            Some(nix::libc::ECONNREFUSED) => Self::Refused,
            Some(nix::libc::ECONNRESET) => Self::Reset,
            Some(nix::libc::ENETUNREACH) => Self::NoRoute(vip),
            Some(nix::libc::EHOSTUNREACH) => Self::NoNeighbour(vip),
            Some(nix::libc::EPERM | nix::libc::EACCES) => Self::NotPermitted,
            Some(nix::libc::ETIMEDOUT) => Self::Broken(io::ErrorKind::TimedOut.into()),
            // No source port, or no memory.
            Some(nix::libc::EADDRNOTAVAIL | nix::libc::ENOBUFS | nix::libc::ENOMEM) => {
                Self::Socket(io::Error::from(error.kind()))
            }
            _ => Self::Broken(io::Error::from(error.kind())),
        }
    }
}

fn seconds(time: Duration) -> String {
    let ms = time.as_millis();
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{ms} ms") }
}

fn list(statuses: &[u16]) -> String {
    let words: Vec<_> = statuses.iter().map(ToString::to_string).collect();
    words.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_understands() {
        let vip: IpAddr = "192.0.2.1".parse().expect("an address");
        let no_route = Failure::connect(&io::Error::from_raw_os_error(nix::libc::ENETUNREACH), vip);
        for (failure, words) in [
            (Failure::Late(Duration::from_secs(2)), "no answer in 2 s"),
            (Failure::Late(Duration::from_millis(1500)), "no answer in 1500 ms"),
            (Failure::Status { got: 503, wanted: vec![200, 204] }, "status 503, wanted 200 or 204"),
            (Failure::Body("ok".to_owned()), "the body lacks \"ok\""),
            (
                no_route,
                "this machine has no route to the VIP 192.0.2.1, which checks need: `ip route add 192.0.2.1 via ROUTER`",
            ),
        ] {
            assert_eq!(failure.to_string(), words);
        }
    }
}
