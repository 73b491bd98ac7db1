//! What an MPTCP client sends in the course of a connection, and what becomes of it, in the words of the cases.

use super::{
    Outcome, Worlds,
    mptcp::{
        CLIENT_KEY, DSS, Key, SERVER_KEY, SYN_OPTIONS, TIMESTAMPS, TOKEN, V1, capable_ack, capable_data, capable_syn,
        join_ack, join_syn,
    },
    packet::{Flow, Segment},
};
use lb_common::{ids::BackendId, reason::Reason};

/// A client's first sequence number, for its SYN.
pub(crate) const ISN: u32 = 1000;

impl Flow {
    /// The SYN of an MPTCP connection.
    pub(crate) fn capable_syn(self, isn: u32) -> Segment {
        self.syn(isn).options(&[&SYN_OPTIONS[..], &capable_syn()].concat())
    }

    /// The SYN of a TCP connection.
    pub(crate) fn plain_syn(self, isn: u32) -> Segment {
        self.syn(isn).options(&SYN_OPTIONS)
    }

    /// The third packet, which echoes the server's key.
    pub(crate) fn third_ack(self, isn: u32, server: Key) -> Segment {
        self.capable_ack(isn, V1, CLIENT_KEY, server)
    }

    /// The same in any version and with any keys.
    pub(crate) fn capable_ack(self, isn: u32, version: u8, client: Key, server: Key) -> Segment {
        let option = capable_ack(version, client, server);
        self.ack(isn.wrapping_add(1)).options(&[&TIMESTAMPS[..], &option].concat())
    }

    /// The first data, which echoes the server's key once more.
    pub(crate) fn first_data(self, isn: u32, server: Key) -> Segment {
        let option = capable_data(CLIENT_KEY, server);
        self.ack(isn.wrapping_add(1)).options(&[&TIMESTAMPS[..], &option].concat()).payload(100)
    }

    /// Data in the course of a connection or subflow.
    pub(crate) fn data(self, isn: u32) -> Segment {
        self.ack(isn.wrapping_add(101)).options(&[&TIMESTAMPS[..], &DSS].concat()).payload(100)
    }

    /// The SYN of a further subflow.
    pub(crate) fn join(self, isn: u32, token: u32) -> Segment {
        self.syn(isn).options(&[&SYN_OPTIONS[..], &join_syn(token)].concat())
    }

    /// The third packet of a further subflow.
    pub(crate) fn join_ack(self, isn: u32) -> Segment {
        self.ack(isn.wrapping_add(1)).options(&[&TIMESTAMPS[..], &join_ack()].concat())
    }
}

impl Worlds {
    /// Sends a segment, which goes to this backend for this reason.
    #[track_caller]
    pub(crate) fn sends(&mut self, segment: &Segment, reason: Reason, backend: BackendId) -> Outcome {
        let outcome = self.send(&segment.frame());
        assert_eq!((outcome.reason, outcome.backend), (reason, Some(backend)), "{segment:?}");
        outcome
    }

    /// Sends a segment, which goes to no backend for this reason.
    #[track_caller]
    pub(crate) fn refuses(&mut self, segment: &Segment, reason: Reason) -> Outcome {
        let outcome = self.send(&segment.frame());
        assert_eq!((outcome.reason, outcome.backend), (reason, None), "{segment:?}");
        outcome
    }

    /// Sends a frame, which goes to this backend, or to none, for this reason.
    #[track_caller]
    pub(crate) fn gets(&mut self, frame: &[u8], reason: Reason, backend: impl Into<Option<BackendId>>) -> Outcome {
        let outcome = self.send(frame);
        assert_eq!((outcome.reason, outcome.backend), (reason, backend.into()), "{frame:02x?}");
        outcome
    }

    /// Opens an MPTCP connection, whose token is learned.
    #[track_caller]
    pub(crate) fn connect(&mut self, flow: Flow, server: Key) {
        self.sends(&flow.capable_syn(ISN), Reason::RingNew, flow.owner());
        self.sends(&flow.third_ack(ISN, server), Reason::Learned, flow.owner());
    }

    /// Opens the connection of [`TOKEN`] at this backend, and returns its first subflow.
    #[track_caller]
    pub(crate) fn connect_at(&mut self, flow: Flow, backend: BackendId) -> Flow {
        let flow = flow.owned_by(backend);
        self.connect(flow, SERVER_KEY);
        assert_eq!(self.state().holders(TOKEN), [backend]);
        flow
    }

    /// Joins a subflow to the connection of [`TOKEN`] at `backend`, which the ring does not name for it.
    #[track_caller]
    pub(crate) fn join(&mut self, subflow: Flow, backend: BackendId) {
        assert_ne!(subflow.owner(), backend);
        self.sends(&subflow.join(ISN, TOKEN), Reason::JoinToken, backend);
        self.sends(&subflow.join_ack(ISN), Reason::Joined, backend);
    }
}
