//! Ends what the data path cannot end itself: tokens whose connection is over, and entries of subflows that are gone.
//!
//! A token outlives its first subflow, for others may live on; it is never ended while it may still be needed, except
//! under pressure, oldest first, and counted. An entry of a flow in use is never ended; one of a moved flow that has shown
//! no second packet may be a stranger's, and gives way under pressure in the same manner.
//!
//! It looks through a table while others use it, notes what seems to be over, and then ends that in pieces, each entry as it
//! is then: nobody waits longer than a piece takes, and what has changed meanwhile is judged anew.

use crate::bpf::{ArrayTable, Balancer, HashTable, Lender};
use aya::maps::MapError;
use hashbrown::{HashMap, HashSet};
use lb_common::{
    ids::{BackendId, FlowHash, PoolId, Tick},
    limits::POOLS_MAX,
    recent::{Bucket, bucket_of},
    tables::{Exception, FlowEntry, Holder, TokenEntry, TokenKey},
};
use std::sync::Arc;

/// How long a token stays after its first subflow has closed: 10 minutes, the longest that a second subflow is likely to
/// be opened late. The kernel itself keeps a connection for 60 s after its last subflow.
const TOKEN_LINGER: u32 = ticks(600);
/// How long an entry stays after a FIN or RST of its subflow: the kernel's `close_timeout` of 60 s, and its `FIN_WAIT2`.
const CLOSED_FLOW_LINGER: u32 = ticks(120);
/// How long a silent subflow keeps its entry: 2 h 15 min, above the usual TCP keepalive of two hours.
const IDLE_FLOW: u32 = ticks(8100);
/// The part of a table, in percent, from which on the oldest entries that may go do, and down to which.
const PRESSURE_PERCENT: (u64, u64) = (95, 90);
/// Entries that are ended, or judged anew, in one piece: it bounds how long others wait for the tables.
pub const PIECE: usize = 512;

const fn ticks(seconds: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "hours")]
    let ticks = (seconds * 1_000_000_000 / Tick::NANOS) as u32;
    ticks
}

/// What remains of one sweep to the next: the first subflows that have closed, and when.
#[derive(Clone, Debug, Default)]
pub struct Sweeper {
    closed: Arc<HashMap<FlowHash, Tick>>,
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

/// The tables that a sweep looks through, by descriptors of its own.
struct Readers {
    closing: ArrayTable<Bucket>,
    tokens: HashTable<TokenKey, TokenEntry>,
    flows: [(Exception, HashTable<FlowHash, FlowEntry>); 3],
}

impl Readers {
    fn of(balancer: &Balancer) -> Result<Self, MapError> {
        Ok(Self {
            closing: balancer.closing.reader()?,
            tokens: balancer.tokens.reader()?,
            flows: [
                (Exception::Joined, balancer.joined.reader()?),
                (Exception::Moved, balancer.moved.reader()?),
                (Exception::Pinned, balancer.pinned.reader()?),
            ],
        })
    }
}

impl Swept {
    /// Entries of flows that remain.
    pub const fn flows(&self) -> u64 {
        self.joined_flows + self.moved_flows + self.pinned_flows
    }

    fn keep_flow(&mut self, kind: Exception, entry: &FlowEntry) {
        let held = self.backends.entry(entry.backend).or_default();
        let (of_backend, of_table) = match kind {
            Exception::Joined => (&mut held.joined_flows, &mut self.joined_flows),
            Exception::Moved => (&mut held.moved_flows, &mut self.moved_flows),
            Exception::Pinned => (&mut held.pinned_flows, &mut self.pinned_flows),
        };
        *of_backend += 1;
        *of_table += 1;
        held.flows_closing += u64::from(is_closed(entry));
    }
}

impl Sweeper {
    /// Goes through the tables once. The tokens of pools that no longer exist end: no packet can ask for them.
    ///
    /// # Errors
    /// The kernel refuses a map operation.
    pub fn sweep(&mut self, tables: &mut impl Lender, now: Tick) -> Result<Swept, MapError> {
        let (readers, gone) = tables.lend(|balancer, exists| (Readers::of(balancer), gone_pools(exists)));
        let readers = readers?;
        let mut swept = Swept::default();
        self.sweep_tokens(tables, &readers, &gone, now, &mut swept)?;
        for (kind, table) in &readers.flows {
            sweep_flows(tables, table, *kind, now, (&mut swept, &mut self.ended))?;
        }
        evict_unproven(tables, &readers.flows[1].1, now, &mut swept)?;
        Ok(swept)
    }

    /// Takes in first subflows that have closed whose packets have not come here.
    pub fn hear(&mut self, closed: HashMap<FlowHash, Tick>) {
        if !closed.is_empty() {
            let known = Arc::make_mut(&mut self.closed);
            for (flow, at) in closed {
                known.entry(flow).or_insert(at);
            }
        }
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
        tables: &mut impl Lender,
        readers: &Readers,
        gone: &HashSet<PoolId>,
        now: Tick,
        swept: &mut Swept,
    ) -> Result<(), MapError> {
        let closing = &readers.closing;
        let signs: Vec<Bucket> = (0..closing.len()).map(|index| closing.read(index)).collect::<Result<_, _>>()?;
        let mut closed = HashMap::new();
        let (mut remaining, mut changed) = (Vec::new(), Vec::new());
        for entry in readers.tokens.entries() {
            let (key, entry) = entry?;
            if !gone.contains(&key.pool) && self.left_of(entry, &signs, now, &mut closed) == Some(entry) {
                remaining.push((key, entry));
            } else {
                changed.push(key);
            }
        }
        for piece in changed.chunks(PIECE) {
            tables.lend(|balancer, exists| {
                for &key in piece {
                    let Some(entry) = balancer.tokens.read(key)? else { continue };
                    let left = self.left_of(entry, &signs, now, &mut closed);
                    let Some(left) = left.filter(|_| exists(key.pool)) else {
                        balancer.tokens.remove(key)?;
                        swept.tokens_ended += 1;
                        continue;
                    };
                    if left != entry {
                        balancer.tokens.write(key, left)?;
                    }
                    remaining.push((key, left));
                }
                Ok::<_, MapError>(())
            })?;
        }
        self.note_ended(&remaining, &closed);
        self.closed = Arc::new(closed);
        swept.tokens_evicted = evict(tables, readers.tokens.limit()?, &mut remaining, now)?;
        self.count_tokens(&remaining, swept);
        Ok(())
    }

    /// Notes the connections whose first subflow has closed since the last sweep, for others to hear of.
    fn note_ended(&mut self, remaining: &[(TokenKey, TokenEntry)], closed: &HashMap<FlowHash, Tick>) {
        for &(key, entry) in remaining {
            let is_new = |holder: &Holder| closed.contains_key(&holder.flow) && !self.closed.contains_key(&holder.flow);
            let new = entry.holders.into_iter().filter(|holder| holder.is_some() && is_new(holder));
            self.ended.extend(new.map(|holder| Ended::Token { key, holder }));
        }
    }

    fn count_tokens(&self, remaining: &[(TokenKey, TokenEntry)], swept: &mut Swept) {
        swept.tokens = remaining.len() as u64;
        for (_, entry) in remaining {
            swept.tokens_ambiguous += u64::from(entry.backend().is_none());
            for holder in entry.holders.iter().filter(|holder| holder.is_some()) {
                let held = swept.backends.entry(holder.backend).or_default();
                held.tokens += 1;
                held.tokens_closing += u64::from(self.has_closed(holder));
            }
        }
    }

    /// What is left of a token's entry now: it without the holders that are over, or nothing. Notes in `closed` which of
    /// those that stay have closed.
    fn left_of(
        &self,
        mut entry: TokenEntry,
        signs: &[Bucket],
        now: Tick,
        closed: &mut HashMap<FlowHash, Tick>,
    ) -> Option<TokenEntry> {
        for holder in entry.holders.iter_mut().filter(|holder| holder.is_some() && holder.state != Holder::CROWD) {
            let Some(at) = self.closed_at(holder, signs) else { continue };
            if now.since(at) > TOKEN_LINGER {
                *holder = Holder::default();
            } else {
                closed.insert(holder.flow, at);
            }
        }
        let is_over = |holder: &Holder| matches!(holder.state, Holder::VACANT | Holder::CROWD);
        (!entry.holders.iter().all(is_over)).then_some(entry)
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

/// The numbers that no pool has.
fn gone_pools(exists: &dyn Fn(PoolId) -> bool) -> HashSet<PoolId> {
    (0..POOLS_MAX).filter_map(|number| number.try_into().ok().map(PoolId)).filter(|&pool| !exists(pool)).collect()
}

/// How long something is ago; what came after `now` was read is the youngest.
const fn age(now: Tick, at: Tick) -> u32 {
    let age = now.since(at);
    if age < u32::MAX / 2 { age } else { 0 }
}

/// Ends the oldest tokens until there is room again; how many.
fn evict(
    tables: &mut impl Lender,
    limit: u32,
    remaining: &mut Vec<(TokenKey, TokenEntry)>,
    now: Tick,
) -> Result<u64, MapError> {
    let excess = excess(remaining.len() as u64, limit);
    if excess == 0 {
        return Ok(0);
    }
    let youngest = |entry: &TokenEntry| {
        let live = entry.holders.iter().filter(|holder| holder.is_some());
        live.map(|holder| age(now, holder.since)).min()
    };
    remaining.sort_by_key(|(_, entry)| youngest(entry));
    let oldest = remaining.split_off(remaining.len().saturating_sub(excess));
    let mut evicted = 0;
    for piece in oldest.chunks(PIECE) {
        tables.lend(|balancer, _| {
            for &(key, entry) in piece {
                match balancer.tokens.read(key)? {
                    Some(same) if same == entry => {
                        balancer.tokens.remove(key)?;
                        evicted += 1;
                    }
                    // Learned anew meanwhile, it is no longer among the oldest.
                    Some(other) => remaining.push((key, other)),
                    None => {}
                }
            }
            Ok::<_, MapError>(())
        })?;
    }
    Ok(evicted)
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

/// Ends the oldest entries of moved flows that no second packet has come for, until there is room again.
fn evict_unproven(
    tables: &mut impl Lender,
    moved: &HashTable<FlowHash, FlowEntry>,
    now: Tick,
    swept: &mut Swept,
) -> Result<(), MapError> {
    let excess = excess(swept.moved_flows, moved.limit()?);
    if excess == 0 {
        return Ok(());
    }
    let is_unproven = |entry: &FlowEntry| entry.state & FlowEntry::UNPROVEN != 0;
    let mut unproven = Vec::new();
    for entry in moved.entries() {
        let (flow, entry) = entry?;
        if is_unproven(&entry) {
            unproven.push((flow, age(now, entry.seen)));
        }
    }
    unproven.sort_by_key(|&(_, age)| std::cmp::Reverse(age));
    unproven.truncate(excess);
    for piece in unproven.chunks(PIECE) {
        tables.lend(|balancer, _| {
            for &(flow, _) in piece {
                let Some(entry) = balancer.moved.read(flow)?.filter(is_unproven) else { continue };
                balancer.moved.remove(flow)?;
                if let Some(held) = swept.backends.get_mut(&entry.backend) {
                    held.moved_flows = held.moved_flows.saturating_sub(1);
                }
                swept.moved_flows -= 1;
                swept.moved_flows_evicted += 1;
            }
            Ok::<_, MapError>(())
        })?;
    }
    Ok(())
}

/// Ends the entries of a table that are over.
fn sweep_flows(
    tables: &mut impl Lender,
    table: &HashTable<FlowHash, FlowEntry>,
    kind: Exception,
    now: Tick,
    (swept, ended): (&mut Swept, &mut Vec<Ended>),
) -> Result<(), MapError> {
    let mut over = Vec::new();
    for entry in table.entries() {
        let (flow, entry) = entry?;
        if is_over(&entry, now) {
            over.push(flow);
        } else {
            swept.keep_flow(kind, &entry);
        }
    }
    for piece in over.chunks(PIECE) {
        tables.lend(|balancer, _| {
            let table = match kind {
                Exception::Joined => &mut balancer.joined,
                Exception::Moved => &mut balancer.moved,
                Exception::Pinned => &mut balancer.pinned,
            };
            for &flow in piece {
                match table.read(flow)? {
                    Some(entry) if is_over(&entry, now) => {
                        table.remove(flow)?;
                        swept.flows_ended += 1;
                        if kind == Exception::Joined {
                            ended.push(Ended::Flow { flow, entry });
                        }
                    }
                    Some(entry) => swept.keep_flow(kind, &entry),
                    None => {}
                }
            }
            Ok::<_, MapError>(())
        })?;
    }
    Ok(())
}

fn is_over(entry: &FlowEntry, now: Tick) -> bool {
    age(now, entry.seen) > if is_closed(entry) { CLOSED_FLOW_LINGER } else { IDLE_FLOW }
}

const fn is_closed(entry: &FlowEntry) -> bool {
    entry.state & FlowEntry::CLOSED != 0
}
