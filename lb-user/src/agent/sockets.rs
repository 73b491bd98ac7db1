//! The kernel's lists of its sockets, by `sock_diag`: connections as `ss -M` shows them, and listeners as `ss -tli` does. They
//! say what is, and no event is needed for it.

use super::{
    events::EventsError,
    netlink::{Netlink, address, attributes, messages},
};
use lb_common::ids::Token;
use netlink_packet_core::{
    DefaultNla, Emitable as _, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader,
};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use nix::{errno::Errno, libc};
use std::net::SocketAddr;

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// Bytes of `struct inet_diag_req_v2` and of `struct inet_diag_msg`.
const REQUEST_LEN: usize = 56;
const ANSWER_LEN: usize = 72;
/// Attribute of a request: a protocol above 255.
const PROTOCOL: u16 = 3;
/// Attributes of an answer: `struct mptcp_info`, whether a listener takes IPv6 only, and who else has a part in a TCP socket,
/// by name.
const INFO: u16 = 2;
const ONLY_V6: u16 = 11;
const ULP: u16 = 19;
const ULP_NAME: u16 = 1;
const MPTCP: &[u8] = b"mptcp\0";

const LISTEN: u32 = 1 << 10;
/// Every state but LISTEN.
const STATES: u32 = 0xfff & !LISTEN;
/// States that a socket has which its application has not closed.
const ESTABLISHED: u8 = 1;
const SYN_RECEIVED: u8 = 3;
const CLOSE_WAIT: u8 = 8;

/// In `struct mptcp_info`: the flags, of which the lowest says that it is plain TCP after all, and the token.
const FLAGS_AT: usize = 8;
const TOKEN_AT: usize = 12;
const FALLEN_BACK: u32 = 1;

/// A connection that lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Live {
    pub(super) token: Token,
    /// Its end here.
    pub(super) local: SocketAddr,
}

/// A socket that listens for MPTCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub(super) local: SocketAddr,
    /// Of the unspecified address: that IPv4 is not for it.
    pub(super) only_v6: bool,
    /// Connections that its application has not taken yet, and the most that there may be.
    pub(super) waiting: u32,
    pub(super) waiting_max: u32,
    /// What tells it from a later one.
    pub(super) inode: u32,
}

/// The way to the list.
pub(super) struct Sockets(Netlink);

impl Sockets {
    pub(super) fn open() -> Result<Self, EventsError> {
        Ok(Self(Netlink::open(NETLINK_SOCK_DIAG)?))
    }

    /// Every connection that lives now.
    pub(super) async fn read(&mut self) -> Result<Vec<Live>, EventsError> {
        self.list(libc::IPPROTO_MPTCP, STATES, connection).await
    }

    /// Every socket that listens now: among those of TCP, for the kernel goes through all connections to list the listeners
    /// of MPTCP, and each of these has a TCP socket that listens for it.
    pub(super) async fn listeners(&mut self) -> Result<Vec<Listening>, EventsError> {
        self.list(libc::IPPROTO_TCP, LISTEN, listener).await
    }

    async fn list<T>(
        &mut self,
        protocol: libc::c_int,
        states: u32,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, EventsError> {
        let mut found = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.0.send(&request(family, protocol, states)).await?;
            while self.read_some(&mut found, &read).await? {}
        }
        Ok(found)
    }

    /// Whether there is more.
    async fn read_some<T>(
        &mut self,
        found: &mut Vec<T>,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<bool, EventsError> {
        let datagram = self.0.receive().await?;
        for message in messages(datagram) {
            match message.kind {
                NLMSG_DONE => return Ok(false),
                NLMSG_ERROR => {
                    let code = message.payload.first_chunk().map_or(0, |&code| i32::from_ne_bytes(code));
                    return Err(EventsError::NoList(Errno::from_raw(-code)));
                }
                BY_FAMILY => found.extend(read(message.payload)),
                _ => {}
            }
        }
        Ok(true)
    }
}

fn request(family: libc::c_int, protocol: libc::c_int, states: u32) -> Vec<u8> {
    let protocol = DefaultNla::new(PROTOCOL, protocol.to_ne_bytes().to_vec());
    let mut header = NetlinkHeader::default();
    let at = header.buffer_len();
    let length = at + REQUEST_LEN + protocol.buffer_len();
    header.length = u32::try_from(length).unwrap_or_default();
    header.message_type = BY_FAMILY;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut bytes = vec![0; length];
    header.emit(&mut bytes);
    bytes[at] = u8::try_from(family).unwrap_or_default();
    bytes[at + 1] = u8::MAX;
    bytes[at + 2] = 1 << (INFO - 1);
    bytes[at + 4..at + 8].copy_from_slice(&states.to_ne_bytes());
    protocol.emit(&mut bytes[at + REQUEST_LEN..]);
    bytes
}

/// The end here of a socket.
fn local(socket: &[u8]) -> Option<SocketAddr> {
    let is_v4 = i32::from(socket[0]) == libc::AF_INET;
    let local = address(if is_v4 { &socket[8..12] } else { &socket[8..24] })?;
    Some(SocketAddr::new(local, u16::from_be_bytes([socket[4], socket[5]])))
}

fn listener(payload: &[u8]) -> Option<Listening> {
    let (socket, rest) = payload.split_at_checked(ANSWER_LEN)?;
    let is_mptcp = |value| attributes(value).any(|(kind, name)| kind == ULP_NAME && name == MPTCP);
    if !attributes(rest).any(|(kind, value)| kind == ULP && is_mptcp(value)) {
        return None;
    }
    let word = |at: usize| socket[at..].first_chunk().map_or(0, |&word| u32::from_ne_bytes(word));
    let only_v6 = attributes(rest).any(|(kind, value)| kind == ONLY_V6 && value == [1]);
    let (waiting, waiting_max, inode) = (word(56), word(60), word(68));
    Some(Listening { local: local(socket)?, only_v6, waiting, waiting_max, inode })
}

/// A socket that its application has closed lingers in the list without an inode, and its end was told.
fn connection(payload: &[u8]) -> Option<Live> {
    let (socket, rest) = payload.split_at_checked(ANSWER_LEN)?;
    let state = socket[1];
    let has_owner = socket[68..72] != [0; 4];
    if !has_owner && !matches!(state, ESTABLISHED | SYN_RECEIVED | CLOSE_WAIT) {
        return None;
    }
    let local = local(socket)?;
    let (_, info) = attributes(rest).find(|(kind, _)| *kind == INFO)?;
    let word = |at: usize| info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    if word(FLAGS_AT)? & FALLEN_BACK != 0 {
        return None;
    }
    Some(Live { token: Token::from_wire(word(TOKEN_AT)?.to_be_bytes()), local })
}
