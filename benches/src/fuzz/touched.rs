//! The host's tables, with a note of everything in them that a decision asked for: what to compare after a frame, and what
//! to clear after a sequence.

use super::worlds::Memory;
use lb_common::{
    host::HostTables,
    ids::{BackendId, FlowHash, PoolId, Tick, Token},
    recent::Bucket,
    share::Event,
    stateless::{Bearer, Codec, TokenId},
    tables::{
        Backend, Budget, Exception, FlowEntry, Globals, InsertError, JoinBudget, QuicKey, Service, Services, Slot,
        Tables, TokenEntry, TokenKey,
    },
    wire::ip::Address,
};

/// A place in the tables that a decision may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Touched {
    Recent(Memory, FlowHash),
    Entry(FlowHash),
    Token(TokenKey),
    Network(FlowHash),
    /// What has been spent on joins with a token.
    Joins(Token),
    Errors,
}

/// The tables during one decision.
pub(super) struct Noting<'t> {
    pub(super) tables: &'t mut HostTables,
    pub(super) touched: Vec<Touched>,
}

impl Noting<'_> {
    fn note(&mut self, place: Touched) -> &mut HostTables {
        self.touched.push(place);
        self.tables
    }
}

impl Tables for Noting<'_> {
    fn globals(&self) -> Option<&Globals> {
        self.tables.globals()
    }

    fn now(&self) -> Tick {
        self.tables.now()
    }

    fn services(&self, address: &Address) -> Option<Services> {
        self.tables.services(address)
    }

    fn service(&self, index: u32) -> Option<&Service> {
        self.tables.service(index)
    }

    fn slot(&self, pool: PoolId, slot: u32) -> Option<Slot> {
        self.tables.slot(pool, slot)
    }

    fn backend(&self, id: BackendId) -> Option<&Backend> {
        self.tables.backend(id)
    }

    fn may_have_entry(&self, flow: FlowHash) -> bool {
        self.tables.may_have_entry(flow)
    }

    fn entry(&mut self, flow: FlowHash) -> Option<&mut FlowEntry> {
        self.note(Touched::Entry(flow)).entry(flow)
    }

    fn entry_of(&mut self, kind: Exception, flow: FlowHash) -> Option<FlowEntry> {
        self.note(Touched::Entry(flow)).entry_of(kind, flow)
    }

    fn insert_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry) -> Result<(), InsertError> {
        self.note(Touched::Entry(flow)).insert_entry(kind, flow, entry)
    }

    fn remove_entry(&mut self, flow: FlowHash) {
        self.note(Touched::Entry(flow)).remove_entry(flow);
    }

    fn token(&mut self, key: &TokenKey) -> Option<&mut TokenEntry> {
        self.note(Touched::Token(*key)).token(key)
    }

    fn insert_token(&mut self, key: &TokenKey, entry: TokenEntry) -> Result<(), InsertError> {
        self.note(Touched::Token(*key)).insert_token(key, entry)
    }

    fn pending(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.note(Touched::Recent(Memory::Pending, flow)).pending(flow)
    }

    fn embryonic(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.note(Touched::Recent(Memory::Embryonic, flow)).embryonic(flow)
    }

    fn closing(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.note(Touched::Recent(Memory::Closing, flow)).closing(flow)
    }

    fn datagrams(&mut self, flow: FlowHash) -> Option<&mut Bucket> {
        self.note(Touched::Recent(Memory::Datagrams, flow)).datagrams(flow)
    }

    fn fragments(&mut self, datagram: FlowHash) -> Option<&mut Bucket> {
        self.note(Touched::Recent(Memory::Fragments, datagram)).fragments(datagram)
    }

    fn quic_server(&self, key: &QuicKey) -> Option<BackendId> {
        self.tables.quic_server(key)
    }

    fn codec(&self, pool: PoolId) -> Option<&Codec> {
        self.tables.codec(pool)
    }

    fn bearer(&self, pool: PoolId, id: TokenId) -> Bearer {
        self.tables.bearer(pool, id)
    }

    fn tell(&mut self, event: &Event) {
        self.tables.tell(event);
    }

    fn network_budget(&mut self, network: FlowHash) -> Option<&mut Budget> {
        self.note(Touched::Network(network)).network_budget(network)
    }

    fn join_budget(&mut self, token: Token) -> Option<&mut JoinBudget> {
        self.note(Touched::Joins(token)).join_budget(token)
    }

    fn error_budget(&mut self) -> Option<&mut Budget> {
        self.note(Touched::Errors).error_budget()
    }
}
