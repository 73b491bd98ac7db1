//! MPTCP sockets (RFC 8684, protocol 262): a listener for both families, and a client's connection.
//!
//! Call these inside a namespace. Every socket resets when it is dropped, so that a lab that goes
//! away leaves no half-closed connection to keep its namespace alive.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

const BACKLOG: i32 = 4096;

/// Listens on `port` of every address of both families.
///
/// # Errors
///
/// If the kernel has no MPTCP or the port is taken.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = mptcp(Domain::IPV6)?;
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
    let socket = mptcp(Domain::for_address(service))?;
    socket.connect_timeout(&service.into(), limit)?;
    socket.set_read_timeout(Some(limit))?;
    socket.set_write_timeout(Some(limit))?;
    Ok(socket.into())
}

/// A socket that resets the connection when closed.
fn mptcp(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::MPTCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    Ok(socket)
}
