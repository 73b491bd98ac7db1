//! A netlink socket that is read message by message, and the few attributes that two of the kernel's families share. No
//! message is believed to be as long as it says before that is checked.

use netlink_packet_core::{NLMSG_ALIGNTO, NetlinkBuffer, NlasIterator};
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket};
use std::{io, net::IpAddr};

/// Above the longest datagram of the kernel's lists (`netlink_dump`: 32 KiB).
const LONGEST: usize = 1 << 16;

/// A socket of one netlink protocol.
pub(super) struct Netlink {
    pub(super) socket: TokioSocket,
    /// The last datagram.
    datagram: Vec<u8>,
}

impl Netlink {
    /// Opens a socket that has an address of its own.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = TokioSocket::new(protocol)?;
        socket.socket_mut().bind_auto()?;
        Ok(Self { socket, datagram: Vec::with_capacity(LONGEST) })
    }

    /// Sends a request to the kernel.
    pub(super) async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.socket.send_to(request, &SocketAddr::new(0, 0)).await.map(drop)
    }

    /// The next datagram, of one or more messages. A wait that is cancelled loses nothing.
    pub(super) async fn receive(&mut self) -> io::Result<&[u8]> {
        self.datagram.clear();
        let sender = self.socket.recv_from(&mut self.datagram).await?;
        // Only the kernel has this number.
        Ok(if sender.port_number() == 0 { &self.datagram } else { &[] })
    }
}

/// A message of a datagram.
pub(super) struct Message<'d> {
    pub(super) kind: u16,
    pub(super) payload: &'d [u8],
}

/// The messages of a datagram, as far as they are whole.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(rest).ok()?;
        let length = usize::try_from(message.length()).ok()?.next_multiple_of(usize::from(NLMSG_ALIGNTO));
        let found = Message { kind: message.message_type(), payload: message.payload() };
        rest = rest.get(length..).unwrap_or_default();
        Some(found)
    })
}

/// The attributes of a payload, each with its kind.
pub(super) fn attributes(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(payload).map_while(Result::ok).map(|attribute| {
        let whole = attribute.into_inner();
        (attribute.kind(), whole.get(4..usize::from(attribute.length())).unwrap_or_default())
    })
}

/// An address as it stands on the wire. IPv4 mapped into IPv6 is IPv4.
pub(super) fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(v4.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::from(v6).to_canonical())
}
