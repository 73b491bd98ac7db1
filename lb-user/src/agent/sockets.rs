//! The kernel's list of its MPTCP sockets, by `sock_diag`: what `ss -M` shows. It says what is, and no event is needed for
//! it.

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
/// Attribute of an answer: `struct mptcp_info`.
const INFO: u16 = 2;

/// Every state but LISTEN.
const STATES: u32 = 0xfff & !(1 << 10);
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

/// The way to the list.
pub(super) struct Sockets(Netlink);

impl Sockets {
    pub(super) fn open() -> Result<Self, EventsError> {
        Ok(Self(Netlink::open(NETLINK_SOCK_DIAG)?))
    }

    /// Every connection that lives now.
    pub(super) async fn read(&mut self) -> Result<Vec<Live>, EventsError> {
        let mut live = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            self.0.send(&request(u8::try_from(family).unwrap_or_default())).await?;
            while self.read_some(&mut live).await? {}
        }
        Ok(live)
    }

    /// Whether there is more.
    async fn read_some(&mut self, live: &mut Vec<Live>) -> Result<bool, EventsError> {
        let datagram = self.0.receive().await?;
        for message in messages(&datagram) {
            match message.kind {
                NLMSG_DONE => return Ok(false),
                NLMSG_ERROR => {
                    let code = message.payload.first_chunk().map_or(0, |&code| i32::from_ne_bytes(code));
                    return Err(EventsError::NoList(Errno::from_raw(-code)));
                }
                BY_FAMILY => live.extend(connection(message.payload)),
                _ => {}
            }
        }
        Ok(true)
    }
}

fn request(family: u8) -> Vec<u8> {
    let protocol = DefaultNla::new(PROTOCOL, libc::IPPROTO_MPTCP.to_ne_bytes().to_vec());
    let mut header = NetlinkHeader::default();
    let at = header.buffer_len();
    let length = at + REQUEST_LEN + protocol.buffer_len();
    header.length = u32::try_from(length).unwrap_or_default();
    header.message_type = BY_FAMILY;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut bytes = vec![0; length];
    header.emit(&mut bytes);
    bytes[at] = family;
    bytes[at + 1] = u8::MAX;
    bytes[at + 2] = 1 << (INFO - 1);
    bytes[at + 4..at + 8].copy_from_slice(&STATES.to_ne_bytes());
    protocol.emit(&mut bytes[at + REQUEST_LEN..]);
    bytes
}

/// A socket that its application has closed lingers in the list without an inode, and its end was told.
fn connection(payload: &[u8]) -> Option<Live> {
    let (socket, rest) = payload.split_at_checked(ANSWER_LEN)?;
    let (family, state) = (socket[0], socket[1]);
    let has_owner = socket[68..72] != [0; 4];
    if !has_owner && !matches!(state, ESTABLISHED | SYN_RECEIVED | CLOSE_WAIT) {
        return None;
    }
    let is_v4 = i32::from(family) == libc::AF_INET;
    let local = address(if is_v4 { &socket[8..12] } else { &socket[8..24] })?;
    let port = u16::from_be_bytes([socket[4], socket[5]]);
    let (_, info) = attributes(rest).find(|(kind, _)| *kind == INFO)?;
    let word = |at: usize| info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    if word(FLAGS_AT)? & FALLEN_BACK != 0 {
        return None;
    }
    Some(Live { token: Token::from_wire(word(TOKEN_AT)?.to_be_bytes()), local: SocketAddr::new(local, port) })
}
