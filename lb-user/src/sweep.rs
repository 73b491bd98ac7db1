//! Ends what the data path cannot end itself: tokens whose connection is over, and entries of subflows that are gone.
//!
//! A token outlives its first subflow, for others may live on; it is never ended while it may still be needed, except
//! under pressure, oldest first, and counted. An entry of a flow in use is never ended; one of a moved flow that has shown
//! no second packet may be a stranger's, and gives way under pressure in the same manner.

use crate::bpf::{Balancer, HashTable};
use aya::maps::MapError;
use hashbrown::HashMap;
use lb_common::{
    ids::{BackendId, FlowHash, PoolId, Tick},
    recent::{Bucket, bucket_of},
    tables::{Exception, FlowEntry, Holder, TokenEntry, TokenKey},
};

/// How long a token stays after its first subflow has closed: 10 minutes, the longest that a second subflow is likely to
/// be opened late. The kernel itself keeps a connection for 60 s after its last subflow.
const TOKEN_LINGER: u32 = ticks(600);
/// How long an entry stays after a FIN or RST of its subflow: the kernel's `close_timeout` of 60 s, and its `FIN_WAIT2`.
const CLOSED_FLOW_LINGER: u32 = ticks(120);
/// How long a silent subflow keeps its entry: 2 h 15 min, above the usual TCP keepalive of two hours.
const IDLE_FLOW: u32 = ticks(8100);
/// The part of a table, in percent, from which on the oldest entries that may go do, and down to which.
const PRESSURE_PERCENT: (u64, u64) = (95, 90);

const fn ticks(seconds: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "hours")]
    let ticks = (seconds * 1_000_000_000 / Tick::NANOS) as u32;
    ticks
}

/// What remains of one sweep to the next: the first subflows that have closed, and when.
#[derive(Debug, Default)]
pub struct Sweeper {
    closed: HashMap<FlowHash, Tick>,
    ended: Vec<Ended>,
}

/// What others are to hear of.
#[derive(Clone, Copy, Debug)]
pub enum Ended {
    /// The first subflow of a connection has closed.
    Token {
        /// The connection's name.
        key: TokenKey,
        /// Who holds it.
        holder: Holder,
    },
    /// A joined flow has ended.
    Flow {
        /// The flow.
        flow: FlowHash,
        /// Its entry.
        entry: FlowEntry,
    },
}

/// What a sweep found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Tokens that remain.
    pub tokens: u64,
    /// Tokens that ended because their connection did.
    pub tokens_ended: u64,
    /// Tokens that ended because the table was nearly full.
    pub tokens_evicted: u64,
    /// Joined flows that remain.
    pub joined_flows: u64,
    /// Moved flows that remain.
    pub moved_flows: u64,
    /// Pinned flows that remain.
    pub pinned_flows: u64,
    /// Moved flows that ended because their table was nearly full.
    pub moved_flows_evicted: u64,
    /// Flows of these three kinds that ended.
    pub flows_ended: u64,
    /// Tokens that connections on two backends hold.
    pub tokens_ambiguous: u64,
    /// The backends that a token or a flow's entry names, and how many do.
    pub backends: HashMap<BackendId, Held>,
}

/// How many entries name a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Connections whose token is known.
    pub tokens: u64,
    /// Those of them whose first subflow has closed.
    pub tokens_closing: u64,
    /// Joined flows.
    pub joined_flows: u64,
    /// Moved flows.
    pub moved_flows: u64,
    /// Pinned flows.
    pub pinned_flows: u64,
    /// Flows of these three kinds that have closed.
    pub flows_closing: u64,
}

impl Sweeper {
    /// Goes through the tables once. The tokens of pools that no longer exist end: no packet can ask for them.
    ///
    /// # Errors
    /// The kernel refuses a map operation.
    pub fn sweep(
        &mut self,
        balancer: &mut Balancer,
        now: Tick,
        exists: impl Fn(PoolId) -> bool,
    ) -> Result<Swept, MapError> {
        let mut swept = Swept::default();
        self.sweep_tokens(balancer, now, exists, &mut swept)?;
        let Swept { flows_ended, backends, .. } = &mut swept;
        let ended = &mut self.ended;
        let mut sweep = |table, kind| sweep_flows(table, now, kind, (flows_ended, ended), backends);
        let joined_flows = sweep(&mut balancer.joined, Exception::Joined)?;
        let moved_flows = sweep(&mut balancer.moved, Exception::Moved)?;
        let pinned_flows = sweep(&mut balancer.pinned, Exception::Pinned)?;
        let moved_flows_evicted = evict_unproven(&mut balancer.moved, moved_flows, now, backends)?;
        let moved_flows = moved_flows - moved_flows_evicted;
        Ok(Swept { joined_flows, moved_flows, pinned_flows, moved_flows_evicted, ..swept })
    }

    /// Notes that a first subflow has closed whose packets have not come here.
    pub fn note_closed(&mut self, flow: FlowHash, at: Tick) {
        self.closed.entry(flow).or_insert(at);
    }

    /// What has ended since this was last asked, by packets that came here.
    pub fn take_ended(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ended)
    }

    /// Whether a connection's first subflow has closed, as of the last sweep.
    pub fn has_closed(&self, holder: &Holder) -> bool {
        self.closed.contains_key(&holder.flow)
    }

    fn sweep_tokens(
        &mut self,
        balancer: &mut Balancer,
        now: Tick,
        exists: impl Fn(PoolId) -> bool,
        swept: &mut Swept,
    ) -> Result<(), MapError> {
        let signs: Vec<Bucket> =
            (0..balancer.closing.len()).map(|i| balancer.closing.read(i)).collect::<Result<_, _>>()?;
        let mut closed = HashMap::new();
        let mut remaining = Vec::new();
        for entry in balancer.tokens.entries().collect::<Vec<_>>() {
            let (key, mut entry) = entry?;
            let before = entry;
            for holder in entry.holders.iter_mut().filter(|holder| holder.is_some() && holder.state != Holder::CROWD) {
                let Some(at) = self.closed_at(holder, &signs) else { continue };
                if !self.closed.contains_key(&holder.flow) {
                    self.ended.push(Ended::Token { key, holder: *holder });
                }
                if now.since(at) > TOKEN_LINGER {
                    *holder = Holder::default();
                } else {
                    closed.insert(holder.flow, at);
                }
            }
            let over = entry.holders.iter().all(|holder| matches!(holder.state, Holder::VACANT | Holder::CROWD));
            if over || !exists(key.pool) {
                balancer.tokens.remove(key)?;
                swept.tokens_ended += 1;
                continue;
            }
            if entry != before {
                balancer.tokens.write(key, entry)?;
            }
            remaining.push((key, entry));
        }
        self.closed = closed;
        swept.tokens_evicted = evict(&mut balancer.tokens, &mut remaining, now)?;
        swept.tokens = remaining.len() as u64;
        for (_, entry) in &remaining {
            swept.tokens_ambiguous += u64::from(entry.backend().is_none());
            for holder in entry.holders.iter().filter(|holder| holder.is_some()) {
                let held = swept.backends.entry(holder.backend).or_default();
                held.tokens += 1;
                held.tokens_closing += u64::from(self.has_closed(holder));
            }
        }
        Ok(())
    }

    /// When the first subflow of a holder closed, if it has, by a sign of now or one remembered. A sign from before the
    /// token was learned is of an older connection on the same 5-tuple.
    fn closed_at(&self, holder: &Holder, signs: &[Bucket]) -> Option<Tick> {
        if holder.flow == FlowHash(0) {
            return None;
        }
        let buckets = u32::try_from(signs.len()).unwrap_or(u32::MAX);
        let sign = signs[bucket_of(holder.flow, buckets) as usize].of(holder.flow).map(|sign| sign.at);
        let remembered = self.closed.get(&holder.flow).copied();
        sign.or(remembered).filter(|at| at.since(holder.since) < u32::MAX / 2)
    }
}

/// Ends the oldest tokens until there is room again.
fn evict(
    tokens: &mut HashTable<TokenKey, TokenEntry>,
    remaining: &mut Vec<(TokenKey, TokenEntry)>,
    now: Tick,
) -> Result<u64, MapError> {
    let excess = excess(remaining.len() as u64, tokens.limit()?);
    if excess == 0 {
        return Ok(0);
    }
    let age = |entry: &TokenEntry| {
        let live = entry.holders.iter().filter(|holder| holder.is_some());
        live.map(|holder| now.since(holder.since)).min()
    };
    remaining.sort_by_key(|(_, entry)| age(entry));
    let oldest = remaining.split_off(remaining.len().saturating_sub(excess));
    for (key, _) in &oldest {
        tokens.remove(*key)?;
    }
    Ok(oldest.len() as u64)
}

/// How many of a table's entries are too many.
fn excess(entries: u64, limit: u32) -> usize {
    let (start, stop) = PRESSURE_PERCENT;
    let limit = u64::from(limit);
    if entries * 100 < limit * start {
        return 0;
    }
    usize::try_from(entries - limit * stop / 100).unwrap_or(usize::MAX)
}

/// Ends the oldest entries that no second packet has come for, until there is room again; how many.
fn evict_unproven(
    table: &mut HashTable<FlowHash, FlowEntry>,
    entries: u64,
    now: Tick,
    backends: &mut HashMap<BackendId, Held>,
) -> Result<u64, MapError> {
    let excess = excess(entries, table.limit()?);
    if excess == 0 {
        return Ok(0);
    }
    let is_unproven = |entry: &FlowEntry| entry.state & FlowEntry::UNPROVEN != 0;
    let mut unproven = Vec::new();
    for entry in table.entries() {
        let (flow, entry) = entry?;
        if is_unproven(&entry) {
            unproven.push((flow, now.since(entry.seen)));
        }
    }
    // One that came after `now` was read is the youngest.
    unproven.sort_by_key(|&(_, age)| std::cmp::Reverse(if age < u32::MAX / 2 { age } else { 0 }));
    let mut evicted = 0;
    for (flow, _) in unproven.into_iter().take(excess) {
        if let Some(entry) = table.read(flow)?.filter(is_unproven) {
            table.remove(flow)?;
            if let Some(held) = backends.get_mut(&entry.backend) {
                held.moved_flows = held.moved_flows.saturating_sub(1);
            }
            evicted += 1;
        }
    }
    Ok(evicted)
}

/// Ends the entries of a table that are over; how many remain.
fn sweep_flows(
    table: &mut HashTable<FlowHash, FlowEntry>,
    now: Tick,
    kind: Exception,
    (count, ended): (&mut u64, &mut Vec<Ended>),
    backends: &mut HashMap<BackendId, Held>,
) -> Result<u64, MapError> {
    let mut remaining = 0;
    for entry in table.entries().collect::<Vec<_>>() {
        let (flow, entry) = entry?;
        let silence = now.since(entry.seen);
        let closed = entry.state & FlowEntry::CLOSED != 0;
        // A packet that came after `now` was read is no silence at all.
        if silence < u32::MAX / 2 && silence > if closed { CLOSED_FLOW_LINGER } else { IDLE_FLOW } {
            table.remove(flow)?;
            *count += 1;
            if kind == Exception::Joined {
                ended.push(Ended::Flow { flow, entry });
            }
        } else {
            let held = backends.entry(entry.backend).or_default();
            match kind {
                Exception::Joined => held.joined_flows += 1,
                Exception::Moved => held.moved_flows += 1,
                Exception::Pinned => held.pinned_flows += 1,
            }
            held.flows_closing += u64::from(closed);
            remaining += 1;
        }
    }
    Ok(remaining)
}
