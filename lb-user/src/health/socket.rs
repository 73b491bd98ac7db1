//! The socket of a check: an ordinary connection to a VIP whose mark names the backend that it has to reach. It leaves by
//! the tunnel of that backend, or not at all.

use super::Failure;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, TcpStream as StdStream},
    time::Duration,
};
use tokio::net::{TcpSocket, TcpStream};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Mptcp,
}

/// Connects to a VIP on the backend that `mark` names.
pub(super) async fn connect(target: SocketAddr, mark: u32, transport: Transport) -> Result<TcpStream, Failure> {
    let socket = open(target, mark, transport)?;
    let socket = TcpSocket::from_std_stream(StdStream::from(socket));
    socket.connect(target).await.map_err(|error| Failure::connect(&error, target.ip()))
}

fn open(target: SocketAddr, mark: u32, transport: Transport) -> Result<Socket, Failure> {
    let protocol = match transport {
        Transport::Tcp => Protocol::TCP,
        Transport::Mptcp => Protocol::MPTCP,
    };
    let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(protocol)).map_err(|error| {
        match (transport, error.raw_os_error()) {
            (Transport::Mptcp, Some(nix::libc::ENOPROTOOPT | nix::libc::EPROTONOSUPPORT | nix::libc::EINVAL)) => {
                Failure::NoMptcpHere
            }
            _ => Failure::Socket(error),
        }
    })?;
    let prepare = || -> io::Result<()> {
        socket.set_nonblocking(true)?;
        socket.set_mark(mark)?;
        // A check ends with a reset, not in TIME-WAIT: with all backends behind one address and port there are no more
        // source ports than one backend would have.
        socket.set_linger(Some(Duration::ZERO))
    };
    prepare().map_err(Failure::Socket)?;
    Ok(socket)
}
