//! One decision, two worlds: every packet of a test goes through the host's tables and through the loaded XDP program,
//! and both must say the same, send the same bytes and remember the same.
//!
//! What is right is not theirs to say: tests judge by [`oracle`] and by what the RFCs have written.

pub(crate) mod answers;
pub(crate) mod client;
pub(crate) mod frames;
pub(crate) mod host;
pub(crate) mod kernel;
pub(crate) mod mptcp;
pub(crate) mod oracle;
pub(crate) mod packet;
pub(crate) mod setup;
pub(crate) mod wide;

use host::Host;
use kernel::Kernel;
use lb_common::{
    ids::{BackendId, FlowHash, PoolId, Tick, Token, VipId},
    reason::Reason,
    recent::{Bucket, Recent},
    share::Event,
    tables::{Backend, Exception, FlowEntry, Holder, Slot, TokenEntry, TokenKey},
    wire::ip::Family,
};
use packet::Flow;
use setup::Setup;
use std::collections::BTreeMap;

/// What an XDP program answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Transmit,
    Redirect,
    Drop,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) vip: VipId,
    pub(crate) reason: Reason,
    pub(crate) backend: Option<BackendId>,
    pub(crate) verdict: Verdict,
    /// What the packet added to the bytes of its counters.
    pub(crate) counted_bytes: u64,
    /// The frame after the program: what is sent, or what is left.
    pub(crate) bytes: Vec<u8>,
}

/// The tables that strangers can fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Memory {
    Pending,
    Embryonic,
    Closing,
    Datagrams,
    Fragments,
}

impl Memory {
    pub(crate) const ALL: [Self; 5] = [Self::Pending, Self::Embryonic, Self::Closing, Self::Datagrams, Self::Fragments];
}

/// The kinds of a flow's entry.
pub(crate) const KINDS: [Exception; 3] = [Exception::Joined, Exception::Moved, Exception::Pinned];

/// A balancer with all of its tables open to view.
pub(crate) trait World {
    fn send(&mut self, frame: &[u8]) -> Outcome;

    fn tokens(&self) -> Vec<(TokenKey, TokenEntry)>;
    fn entries(&self, kind: Exception) -> Vec<(FlowHash, FlowEntry)>;
    fn memory(&self, memory: Memory) -> Vec<Bucket>;
    fn bucket(&self, memory: Memory, flow: FlowHash) -> Bucket;
    fn write_bucket(&mut self, memory: Memory, flow: FlowHash, bucket: Bucket);

    fn write_backend(&mut self, id: BackendId, backend: Backend);
    fn write_ring(&mut self, pool: PoolId, ring: &[Slot]);
    fn write_token(&mut self, key: TokenKey, entry: TokenEntry);
    fn remove_token(&mut self, key: TokenKey);
    /// Has the last packet of a flow with an entry come so many ticks earlier.
    fn age_entry(&mut self, kind: Exception, flow: FlowHash, ticks: u32);
    /// The kernel's filter learns nothing of it: it fills the table, and steers no packet.
    fn write_entry(&mut self, kind: Exception, flow: FlowHash, entry: FlowEntry);
}

/// What a balancer remembers of its packets, but for the hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) tokens: BTreeMap<(PoolId, Token), [Holder; 2]>,
    pub(crate) joined: BTreeMap<FlowHash, FlowEntry>,
    pub(crate) moved: BTreeMap<FlowHash, FlowEntry>,
    pub(crate) pinned: BTreeMap<FlowHash, FlowEntry>,
    pub(crate) pending: Vec<Vec<Recent>>,
    pub(crate) embryonic: Vec<Vec<Recent>>,
    datagrams: Vec<Vec<Recent>>,
    fragments: Vec<Vec<Recent>>,
}

impl State {
    fn of(world: &dyn World) -> Self {
        Self {
            tokens: tokens(world),
            joined: flows(world, Exception::Joined),
            moved: flows(world, Exception::Moved),
            pinned: flows(world, Exception::Pinned),
            pending: timeless_memory(world, Memory::Pending),
            embryonic: timeless_memory(world, Memory::Embryonic),
            datagrams: timeless_memory(world, Memory::Datagrams),
            fragments: timeless_memory(world, Memory::Fragments),
        }
    }

    /// The backends that hold a token of the web pool.
    pub(crate) fn holders(&self, token: u32) -> Vec<BackendId> {
        let holders = self.tokens.get(&(setup::WEB, Token::from_wire(token.to_be_bytes())));
        holders.into_iter().flatten().filter(|holder| holder.is_some()).map(|holder| holder.backend).collect()
    }

    /// How many entries the tables of pending handshakes and of embryonic flows hold.
    pub(crate) fn recent_count(&self) -> (usize, usize) {
        let count = |buckets: &[Vec<Recent>]| buckets.iter().map(Vec::len).sum();
        (count(&self.pending), count(&self.embryonic))
    }
}

fn tokens(world: &dyn World) -> BTreeMap<(PoolId, Token), [Holder; 2]> {
    let timeless = |holder| Holder { since: Tick(0), ..holder };
    let tokens = world.tokens().into_iter();
    tokens.map(|(key, entry)| ((key.pool, key.token), entry.holders.map(timeless))).collect()
}

fn flows(world: &dyn World, kind: Exception) -> BTreeMap<FlowHash, FlowEntry> {
    let entries = world.entries(kind).into_iter();
    entries.map(|(flow, entry)| (flow, FlowEntry { seen: Tick(0), ..entry })).collect()
}

fn timeless_memory(world: &dyn World, memory: Memory) -> Vec<Vec<Recent>> {
    world.memory(memory).iter().map(|bucket| bucket.entries().map(timeless).collect()).collect()
}

const fn timeless(recent: &Recent) -> Recent {
    let mut recent = *recent;
    recent.at = Tick(0);
    recent
}

/// Both worlds, in step.
pub(crate) struct Worlds {
    setup: Setup,
    host: Host,
    kernel: Kernel,
}

impl Worlds {
    pub(crate) fn new(setup: Setup) -> Self {
        let (host, kernel) = (Host::new(&setup), Kernel::of(&setup));
        Self { setup, host, kernel }
    }

    /// Sends a frame through both worlds: they agree on all of it, and the bytes are right by [`oracle::judge_bytes`].
    pub(crate) fn send(&mut self, frame: &[u8]) -> Outcome {
        let by_kernel = self.kernel.send(frame);
        self.compare(frame, &by_kernel)
    }

    /// The same with a frame of which the kernel has only the first `head` bytes in one piece.
    pub(crate) fn send_with_head(&mut self, frame: &[u8], head: usize) -> Outcome {
        let by_kernel = self.kernel.send_with_head(frame, head);
        self.compare(frame, &by_kernel)
    }

    fn compare(&mut self, frame: &[u8], by_kernel: &Outcome) -> Outcome {
        let outcome = self.host.send(frame);
        assert_eq!(by_kernel, &outcome, "kernel (left) and host (right) differ over {frame:02x?}");
        oracle::judge_bytes(&self.setup, frame, &outcome);
        let told =
            |events: Vec<Event>| events.into_iter().map(|event| Event { at: Tick(0), ..event }).collect::<Vec<_>>();
        let (by_kernel, by_host) = (told(self.kernel.told()), told(std::mem::take(&mut self.host.tables.told)));
        assert_eq!(by_kernel, by_host, "kernel (left) and host (right) tell others different things");
        self.agree_on_tables();
        if let Some(flow) = oracle::flow_of(frame) {
            for memory in [Memory::Pending, Memory::Embryonic, Memory::Closing] {
                self.recent(memory, flow.hash());
            }
        }
        outcome
    }

    fn agree_on_tables(&self) {
        let (kernel, host) = (&self.kernel, &self.host);
        assert_eq!(tokens(kernel), tokens(host), "kernel (left) and host (right) know other tokens");
        for kind in KINDS {
            assert_eq!(flows(kernel, kind), flows(host, kind), "kernel (left) and host (right): flows {kind:?}");
        }
    }

    /// What both remember, of all flows.
    pub(crate) fn state(&self) -> State {
        let state = State::of(&self.host);
        assert_eq!(State::of(&self.kernel), state, "kernel (left) and host (right) remember different things");
        state
    }

    /// What both remember of a flow for a short time.
    pub(crate) fn recent(&self, memory: Memory, flow: FlowHash) -> Option<Recent> {
        let of = |world: &dyn World| world.bucket(memory, flow).of(flow).map(timeless);
        let recent = of(&self.host);
        assert_eq!(of(&self.kernel), recent, "kernel (left) and host (right) differ over {memory:?}");
        recent
    }

    /// Does in both what a controller does.
    pub(crate) fn change(&mut self, change: impl Fn(&mut dyn World)) {
        change(&mut self.host);
        change(&mut self.kernel);
        self.agree_on_tables();
    }

    /// Both agree to the last; the kernel's world is left to another test.
    pub(crate) fn end(self) {
        self.state();
        self.kernel.leave();
    }
}

/// Runs a test over a fresh farm for each IP version.
pub(crate) fn in_both_worlds(test: impl Fn(&mut Worlds, Flow)) {
    in_both_worlds_of(&Setup::farm(), test);
}

/// The same over farms of another setup. The flow that the test gets is the client's first.
pub(crate) fn in_both_worlds_of(setup: &Setup, test: impl Fn(&mut Worlds, Flow)) {
    over(Family::V4, setup, &test);
    over(Family::V6, setup, &test);
}

/// The same over one IP version.
pub(crate) fn over(family: Family, setup: &Setup, test: impl Fn(&mut Worlds, Flow)) {
    println!("over {family:?}:");
    let mut worlds = Worlds::new(setup.clone());
    test(&mut worlds, Flow::new(family));
    worlds.end();
}
