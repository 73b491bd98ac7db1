//! MPTCP sockets (RFC 8684, protocol 262): a listener for both families, and a client's connection.
//!
//! Call these inside a namespace. Every socket resets when it is dropped, so that a lab that goes
//! away leaves no half-closed connection to keep its namespace alive.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::LabError;

const BACKLOG: i32 = 4096;
/// An idle subflow shows itself so often.
const KEEPALIVE: Duration = Duration::from_secs(1);

/// What a connection is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One flow.
    Tcp,
    /// As many subflows as the path manager opens.
    Mptcp,
}

/// Listens on `port` of every address of both families.
///
/// # Errors
///
/// If the kernel has no MPTCP or the port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = socket(Transport::Mptcp, Domain::IPV6)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects to `service` with a socket of `service`'s own family. Reads and writes fail after
/// `limit`, as does the connecting.
///
/// # Errors
///
/// If the service refuses or does not answer in time.
pub fn connect(service: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    connect_by(Transport::Mptcp, service, limit)
}

/// As [`connect`], by another transport.
///
/// # Errors
///
/// As [`connect`].
pub fn connect_by(transport: Transport, service: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let socket = socket(transport, Domain::for_address(service))?;
    socket.connect_timeout(&service.into(), limit)?;
    socket.set_read_timeout(Some(limit))?;
    socket.set_write_timeout(Some(limit))?;
    Ok(socket.into())
}

/// Has the kernel probe each subflow that is idle, as MPTCP's scheduler leaves all but one.
///
/// # Errors
///
/// If the kernel refuses.
pub fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Lets this process have as many sockets as it may.
///
/// # Errors
///
/// If the kernel refuses.
pub fn allow_many() -> Result<(), LabError> {
    let raise = || {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)
    };
    raise().map_err(LabError::system("raise the limit of open files"))
}

/// A socket that resets the connection when closed.
fn socket(transport: Transport, domain: Domain) -> io::Result<Socket> {
    let socket = orderly(transport, domain)?;
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}

/// A socket that closes as programs' sockets do. Whoever has one sees to it that it is closed and gone before its lab.
pub(crate) fn orderly(transport: Transport, domain: Domain) -> io::Result<Socket> {
    let protocol = match transport {
        Transport::Tcp => Protocol::TCP,
        Transport::Mptcp => Protocol::MPTCP,
    };
    Socket::new(domain, Type::STREAM, Some(protocol))
}
