//! An interface as whole frames: what comes in by it, or leaves by it, and what is sent from it (`packet(7)`).

use std::{io, os::fd::AsRawFd as _, time::Duration};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, bind, recvfrom, setsockopt, sockopt::RcvBufForce},
};
use socket2::{Domain, Protocol, Socket, Type};

/// More than any frame on a client's path.
pub(crate) const FRAME_BYTES_MAX: usize = 4096;
/// What the kernel keeps for a thread that does not run.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;
/// How soon who receives can notice that it is to end.
const PATIENCE: Duration = Duration::from_millis(100);
/// The kernel's mark of a frame that the machine itself sends.
const PACKET_OUTGOING: u8 = 4;
const ETH_P_ALL: u16 = 3;

/// Which frames are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    /// None.
    None,
    /// Those that come in.
    Received,
    /// Those that the machine sends.
    Sent,
}

/// A packet socket on an interface.
pub(crate) struct LinkEnd {
    socket: Socket,
    address: LinkAddr,
    frames: Frames,
}

impl LinkEnd {
    /// Opens one on an interface of the present namespace.
    pub(crate) fn open(interface: &str, frames: Frames) -> io::Result<Self> {
        let address = link_address(interface)?;
        let protocol = if frames == Frames::None { 0 } else { ETH_P_ALL };
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol.to_be()))))?;
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket, address, frames })
    }

    /// The interface's own Ethernet address.
    pub(crate) fn ethernet(&self) -> Option<[u8; 6]> {
        self.address.addr()
    }

    /// The next frame's length; none if none comes for a while.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let is_wanted = |from: &LinkAddr| {
            // Before it was bound, the socket received from every interface.
            let frames = if from.pkttype() == PACKET_OUTGOING { Frames::Sent } else { Frames::Received };
            from.ifindex() == self.address.ifindex() && frames == self.frames
        };
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
            Ok((length, Some(from))) if is_wanted(&from) => Ok(Some(length)),
            Ok(_) => Ok(None),
            Err(errno) => match io::Error::from(errno) {
                error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// Sends a frame.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }
}

fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let mut addresses = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let found = addresses.find_map(|entry| entry.address?.as_link_addr().copied());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}")))
}

/// An Ethernet address, as `ip` prints it.
pub(crate) fn ethernet(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}
