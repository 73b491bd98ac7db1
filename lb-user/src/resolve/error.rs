//! Why there is no way to a backend, in the words of whoever has to mend it.

use std::io;
use std::net::IpAddr;

/// Why a question to the kernel had no usable answer.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says it")]
pub enum ResolveError {
    #[error("no netlink socket: {0}; the service's sandbox must allow AF_NETLINK (systemd: RestrictAddressFamilies)")]
    Connect(io::Error),
    #[error("the netlink socket has closed; restart weir")]
    Closed,
    #[error("{asked}: {source}")]
    Refused {
        /// What was asked of the kernel.
        asked: String,
        source: io::Error,
    },
    #[error("the kernel will not resolve neighbours for this process: {0}; run weir as root or with CAP_NET_ADMIN")]
    NotPermitted(io::Error),

    #[error("there is no interface {name:?}; there are {existing}")]
    NoInterface { name: String, existing: String },
    #[error("interface {0} is not Ethernet, so nothing can be sent by it to a MAC address; route by another")]
    NotEthernet(String),

    #[error("interface {0} is a VLAN in more than two VLANs; two tags are the most that a packet can carry")]
    TooManyTags(String),

    #[error(
        "no route to backend {backend:?} {address}: {source}; `ip route get {address}` shows the same, add a route"
    )]
    NoRoute { backend: String, address: IpAddr, source: io::Error },
    #[error("backend {backend:?} {address} is this machine itself; a backend must be another one")]
    ThisMachine { backend: String, address: IpAddr },
    #[error("this machine has no route to the VIP {0}, which health checks need: `ip route add {0} via ROUTER`")]
    NoRouteToVip(IpAddr),
    #[error(
        "the VIP {0} is an address of this machine, so that health checks would not leave it: `ip address show to {0}` finds it, remove it"
    )]
    VipHere(IpAddr),
    #[error(
        "the route to backend {backend:?} {address} has no source address; give the interface one, or set source_v4 and source_v6"
    )]
    NoSource { backend: String, address: IpAddr },
    #[error(
        "backend {backend:?} {address} is behind the gateway {gateway} on {interface}, where forward = \"l2\" cannot reach; use \"ipip\" or \"gue\""
    )]
    BehindGateway { backend: String, address: IpAddr, gateway: IpAddr, interface: String },
    #[error(
        "no way to backend {backend:?} {address}: {neighbour} does not answer on {interface}; is it up? `ip neigh show {neighbour}` follows it"
    )]
    NoAnswer { backend: String, address: IpAddr, neighbour: IpAddr, interface: String },
}

impl ResolveError {
    pub(super) fn refused(asked: impl Into<String>, error: rtnetlink::Error) -> Self {
        Self::Refused { asked: asked.into(), source: system_error(error) }
    }
}

/// What the kernel said, as the system's own error.
pub(super) fn system_error(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
