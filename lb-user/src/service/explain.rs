//! What `weir explain` is told of a running balancer: its tables as a plan, and readers of what it remembers. Nothing is
//! written, and the balancer is held only while rings and rules are copied.

use super::{Service, sizes};
use crate::{
    bpf::{ArrayTable, HashTable},
    explain::{
        Plan,
        plan::{self, ARRIVAL, Names},
        witness::{Live, Memory},
    },
};
use aya::maps::MapError;
use lb_common::{
    ids::FlowHash,
    recent::{Bucket, bucket_of},
    tables::{Backend, Exception, FlowEntry, Globals, TokenEntry, TokenKey},
};

/// The tables that the running balancer remembers in, to be read.
struct Readers {
    joined: HashTable<FlowHash, FlowEntry>,
    moved: HashTable<FlowHash, FlowEntry>,
    pinned: HashTable<FlowHash, FlowEntry>,
    tokens: HashTable<TokenKey, TokenEntry>,
    pending: ArrayTable<Bucket>,
    embryonic: ArrayTable<Bucket>,
    datagrams: ArrayTable<Bucket>,
    fragments: ArrayTable<Bucket>,
    closing: ArrayTable<Bucket>,
}

impl Live for Readers {
    fn entry(&self, kind: Exception, flow: FlowHash) -> Result<Option<FlowEntry>, MapError> {
        match kind {
            Exception::Joined => self.joined.read(flow),
            Exception::Moved => self.moved.read(flow),
            Exception::Pinned => self.pinned.read(flow),
        }
    }

    fn token(&self, key: TokenKey) -> Result<Option<TokenEntry>, MapError> {
        self.tokens.read(key)
    }

    fn bucket(&self, memory: Memory, flow: FlowHash) -> Result<Bucket, MapError> {
        let table = match memory {
            Memory::Pending => &self.pending,
            Memory::Embryonic => &self.embryonic,
            Memory::Datagrams => &self.datagrams,
            Memory::Fragments => &self.fragments,
            Memory::Closing => &self.closing,
        };
        table.read(bucket_of(flow, table.len()))
    }
}

impl Service {
    /// The tables as they are, for private ones to begin with, and what is remembered, to be read.
    ///
    /// # Errors
    /// The kernel refuses to tell.
    pub(crate) fn to_explain(&self) -> Result<(Plan, Box<dyn Live + Send>), MapError> {
        let state = self.state();
        let arrival = state.config.balancer.interfaces[0].as_str().to_owned();
        let arrives_by = nix::net::if_::if_nametoindex(arrival.as_str()).unwrap_or_default();
        let sizes = plan::sizes(sizes(&state.config), state.rings.keys().copied());
        let live: Globals = state.balancer.globals.read(0)?;
        let readers = Readers {
            joined: state.balancer.joined.reader()?,
            moved: state.balancer.moved.reader()?,
            pinned: state.balancer.pinned.reader()?,
            tokens: state.balancer.tokens.reader()?,
            pending: state.balancer.pending.reader()?,
            embryonic: state.balancer.embryonic.reader()?,
            datagrams: state.balancer.datagrams.reader()?,
            fragments: state.balancer.fragments.reader()?,
            closing: state.balancer.closing.reader()?,
        };
        let mut names = Names::of(&state.layout);
        for (&id, known) in &state.backends {
            names.backends.insert(id, (known.row.name.name.clone(), known.row.name.address));
        }
        let servers = state.backends.iter().filter(|(_, known)| known.duty.serves());
        let quic_servers = servers.flat_map(|(&id, known)| known.row.quic_servers.iter().map(move |&key| (key, id)));
        let plan = Plan {
            globals: Globals { rotation: live.rotation, keys: live.keys, ..sizes.globals(*live.key()) },
            sizes,
            services: state.layout.services.clone(),
            addresses: state.layout.addresses.clone(),
            prefixes: state.layout.prefixes.clone(),
            rings: state.rings.iter().map(|(&pool, ring)| (pool, ring.transitions.slots().to_vec())).collect(),
            backends: state.backends.iter().map(|(&id, known)| (id, seen_from(arrives_by, known.written))).collect(),
            quic_servers: quic_servers.collect(),
            codecs: state.codecs().into_iter().collect(),
            bearers: state.codecs().into_keys().map(|pool| (pool, state.bearers(pool))).collect(),
            names,
            notes: vec![format!(
                "as the running balancer would treat the frames if they came by {arrival} now; its tables and counters \
                 stay as they are"
            )],
        };
        Ok((plan, Box::new(readers)))
    }
}

/// A backend, where the interface that frames come by is the one that they come by in a test run.
fn seen_from(arrives_by: u32, backend: Backend) -> Backend {
    match backend.interface {
        interface if interface == arrives_by => Backend { interface: ARRIVAL, ..backend },
        ARRIVAL => Backend { interface: u32::MAX, ..backend },
        _ => backend,
    }
}
