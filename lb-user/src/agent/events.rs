//! The kernel's events about MPTCP connections: the multicast group `mptcp_pm_events` of generic netlink. What is lost is
//! told as lost.

use super::netlink::{Message, Netlink, address, attributes, messages};
use futures_util::FutureExt as _;
use lb_common::ids::Token;
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_generic::{
    GenlMessage,
    ctrl::{
        GenlCtrl, GenlCtrlCmd,
        nlas::{GenlCtrlAttrs, McastGrpAttrs},
    },
};
use netlink_sys::{AsyncSocket as _, protocols::NETLINK_GENERIC};
use nix::{
    errno::Errno,
    libc,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use socket2::{SockFilter, SockRef};
use std::{collections::VecDeque, io, net::SocketAddr};
use tokio::task::unconstrained;

const FAMILY: &str = "mptcp_pm";
const GROUP: &str = "mptcp_pm_events";
/// Bytes of generic netlink's header: the command first.
const HEADER: usize = 4;

/// Commands (`enum mptcp_event_type`).
const CREATED: u8 = 1;
const CLOSED: u8 = 3;

/// Attributes (`enum mptcp_event_attr`).
const TOKEN: u16 = 1;
const SOURCE_V4: u16 = 5;
const SOURCE_V6: u16 = 6;
const SOURCE_PORT: u16 = 9;

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The kernel has no such family, or not the group.
    #[error(
        "this kernel tells nothing of MPTCP connections (generic netlink has no {GROUP}): it takes Linux 5.12 with \
         CONFIG_MPTCP"
    )]
    NoGroup,
    /// Netlink is out of order.
    #[error("the kernel's events about MPTCP connections cannot be had: {0}")]
    Netlink(#[from] io::Error),
    /// The kernel says no.
    #[error("the kernel does not list its MPTCP sockets: {}; it takes CONFIG_INET_MPTCP_DIAG", .0.desc())]
    NoList(Errno),
}

/// What became of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// It was created. Its end here.
    Created(Token, SocketAddr),
    /// It has ended.
    Closed(Token),
    /// Nobody knows what else happened.
    Lost,
}

/// The events from now on.
pub(super) struct Events {
    netlink: Netlink,
    family: u16,
    ready: VecDeque<Event>,
}

impl Events {
    /// Begins to listen, with room for so many bytes.
    pub(super) async fn subscribe(room: u32) -> Result<Self, EventsError> {
        let mut netlink = Netlink::open(NETLINK_GENERIC)?;
        let (family, group) = find_group(&mut netlink).await?;
        make_room(&netlink, room)?;
        take_only(&[CREATED, CLOSED], &netlink)?;
        netlink.socket.socket_mut().add_membership(group)?;
        Ok(Self { netlink, family, ready: VecDeque::new() })
    }

    /// The next event. A wait that is cancelled loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(event);
            }
            match self.netlink.receive().await {
                Ok(datagram) => self.ready.extend(events(datagram, self.family)),
                Err(error) if is_loss(&error) => return Ok(Event::Lost),
                Err(error) => return Err(error),
            }
        }
    }

    /// The further events that are there already, at most so many datagrams of them.
    pub(super) fn at_hand(&mut self, most: usize) -> io::Result<Vec<Event>> {
        for _ in 0..most {
            match unconstrained(self.netlink.receive()).now_or_never() {
                None => break,
                Some(Ok(datagram)) => self.ready.extend(events(datagram, self.family)),
                Some(Err(error)) if is_loss(&error) => self.ready.push_back(Event::Lost),
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(self.ready.drain(..).collect())
    }

    /// Throws away all events that are there already.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        self.ready.clear();
        loop {
            match unconstrained(self.netlink.receive()).now_or_never() {
                None => return Ok(()),
                Some(Err(error)) if !is_loss(&error) => return Err(error),
                Some(_) => {}
            }
        }
    }
}

fn events(datagram: &[u8], family: u16) -> impl Iterator<Item = Event> {
    messages(datagram).filter(move |message| message.kind == family).filter_map(|message| event(&message))
}

/// The kernel had more events than room for them.
fn is_loss(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

fn event(message: &Message<'_>) -> Option<Event> {
    let (header, rest) = message.payload.split_at_checked(HEADER)?;
    let (mut token, mut source, mut port) = (None, None, None);
    for (kind, value) in attributes(rest) {
        match kind {
            // The kernel's own number, whose digits in network order are the token's bytes.
            TOKEN => token = value.try_into().ok().map(|b| Token::from_wire(u32::from_ne_bytes(b).to_be_bytes())),
            SOURCE_V4 | SOURCE_V6 => source = address(value),
            SOURCE_PORT => port = value.try_into().ok().map(u16::from_be_bytes),
            _ => {}
        }
    }
    match header[0] {
        CREATED => Some(Event::Created(token?, SocketAddr::new(source?, port?))),
        CLOSED => Some(Event::Closed(token?)),
        _ => None,
    }
}

/// The numbers of the family and of its group.
async fn find_group(netlink: &mut Netlink) -> Result<(u16, u32), EventsError> {
    let nlas = vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())];
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas }));
    request.header.flags = NLM_F_REQUEST;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    netlink.send(&bytes).await?;
    let answer = netlink.receive().await?;
    let answer = NetlinkMessage::<GenlMessage<GenlCtrl>>::deserialize(answer).map_err(io::Error::other)?;
    let NetlinkPayload::InnerMessage(answer) = answer.payload else { return Err(EventsError::NoGroup) };
    let (mut family, mut group) = (None, None);
    for attribute in answer.payload.nlas {
        match attribute {
            GenlCtrlAttrs::FamilyId(id) => family = Some(id),
            GenlCtrlAttrs::McastGroups(groups) => group = groups.iter().find_map(|group| number_of(group)),
            _ => {}
        }
    }
    family.zip(group).ok_or(EventsError::NoGroup)
}

fn number_of(group: &[McastGrpAttrs]) -> Option<u32> {
    let is_ours = group.iter().any(|attribute| matches!(attribute, McastGrpAttrs::Name(name) if name == GROUP));
    let id = |attribute: &McastGrpAttrs| if let McastGrpAttrs::Id(id) = attribute { Some(*id) } else { None };
    group.iter().find_map(id).filter(|_| is_ours)
}

/// Has the kernel drop all other events where they arise. Each would wake this process, and most are of subflows.
fn take_only(commands: &[u8], netlink: &Netlink) -> io::Result<()> {
    const NETLINK_HEADER: u32 = 16;
    let step = |code, yes, no, k| SockFilter::new(u16::try_from(code).unwrap_or_default(), yes, no, k);
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, NETLINK_HEADER)];
    for (&command, others) in commands.iter().zip((0..commands.len()).rev()) {
        // Past the commands that follow, and the refusal.
        let yes = u8::try_from(others + 1).unwrap_or_default();
        filter.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, yes, 0, command.into()));
    }
    filter.extend([0, u32::MAX].map(|len| step(libc::BPF_RET | libc::BPF_K, 0, 0, len)));
    SockRef::from(netlink.socket.socket_ref()).attach_filter(&filter)
}

/// Above the limit of ordinary sockets, which is for hundreds of events.
fn make_room(netlink: &Netlink, bytes: u32) -> io::Result<()> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    setsockopt(netlink.socket.socket_ref(), RcvBufForce, &(bytes / 2)).map_err(io::Error::from)
}
