//! What becomes of frames, and why: each goes in order through the real XDP program or the host's decision, over private
//! tables that are those of a configuration or of the running balancer. Nothing here changes a table that packets are
//! steered by, or one that is pinned.
//!
//! The tables of the running balancer are not copied as a whole: rings, rules and backends are at the beginning, and of what
//! it remembers each frame has copied what it asks for, when it first does. The budgets begin anew.
//!
//! Time is the capture's where the decision asks for it, in ticks since the first frame. The host's clock is moved; the
//! kernel's cannot be, so what a frame looks at there is aged instead.

mod decide;
pub mod flow;
pub mod frames;
mod kernel;
pub mod line;
mod packet;
pub mod plan;
mod story;
pub mod witness;

pub use kernel::KernelError;
pub use plan::Plan;

use aya::maps::MapError;
use frames::Fitted;
use kernel::Kernel;
use lb_common::{
    hash::SipKey,
    host::HostTables,
    ids::{Tick, Token},
    recent::{Bucket, buckets_for},
};
use line::{Line, Told, hex, unhex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use story::Way;
use witness::{Known, Live, Witness};

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The real XDP program, in a test run.
    Kernel,
    /// The same decision, compiled for the host: needs no privilege.
    Host,
}

/// Why a frame could not be explained, and no other can.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The running balancer's tables could not be read.
    #[error("the kernel refused a table of Weir's: {0}")]
    Live(#[from] MapError),
    /// The kernel's engine failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
}

/// Explains frames, one after the other.
pub struct Explainer {
    plan: Plan,
    tables: HostTables,
    live: Option<Box<dyn Live + Send>>,
    known: Known,
    kernel: Option<Kernel>,
    base: Tick,
    first_ns: Option<u64>,
    now: u32,
    number: u64,
}

impl Explainer {
    /// Tables as planned, before the first frame; what the running balancer remembers is read from `live`.
    ///
    /// # Errors
    /// The kernel does not take the program.
    pub fn new(plan: Plan, live: Option<Box<dyn Live + Send>>, engine: Engine) -> Result<Self, KernelError> {
        let kernel = match engine {
            Engine::Kernel => Some(Kernel::load(&plan)?),
            Engine::Host => None,
        };
        let base = crate::clock::tick();
        let tables = host_tables(&plan, base);
        Ok(Self { plan, tables, live, known: Known::default(), kernel, base, first_ns: None, now: 0, number: 0 })
    }

    /// What is not as it is on the wire, in sentences.
    pub fn notes(&self) -> &[String] {
        &self.plan.notes
    }

    /// Explains the next frame.
    ///
    /// # Errors
    /// The kernel refuses something; no further frame can be explained then.
    pub fn explain(&mut self, fitted: &Fitted) -> Result<Told, ExplainError> {
        self.number += 1;
        let number = self.number;
        let (frame, bytes) = match fitted.as_ref().map_err(Clone::clone).and_then(|f| Ok((f, unhex(&f.hex)?))) {
            Ok(fitting) => fitting,
            Err(error) => {
                let story = vec![format!("frame {number}: {error}"), "=> not explained".to_owned()];
                return Ok(Told { line: Line::unfit(number, error), story });
            }
        };
        self.pass_time(frame.time_ns);
        let mut witness = Witness::new(&mut self.tables, self.live.as_deref().map(|live| live as _), &mut self.known);
        let by_host = decide::decide(&bytes, &mut witness);
        let mut asked = witness.asked();
        asked.check()?;
        let decided = match &mut self.kernel {
            Some(kernel) => kernel.send(&bytes, self.now, &asked, &by_host)?,
            None => by_host.clone(),
        };
        let since_ns = frame.time_ns.zip(self.first_ns).map(|(time, first)| time.saturating_sub(first));
        let read = packet::read(&bytes);
        Ok(self.told(&Way { number, frame, bytes: &bytes, since_ns, read, decided, by_host, asked }))
    }

    fn told(&self, way: &Way<'_>) -> Told {
        let Way { frame, read, decided, .. } = way;
        let names = &self.plan.names;
        let vip = names.vips.get(&decided.vip);
        let end = |out: &Vec<u8>| hex(&out[..out.len().saturating_sub(frame.missing)]);
        let line = Line {
            frame: way.number,
            action: Some(decided.action),
            reason: Some(decided.reason.as_str().to_owned()),
            vip: vip.map(|(vip, _)| vip.clone()),
            pool: vip.map(|(_, pool)| pool.clone()),
            backend: decided.backend.map(|id| names.backend(id)),
            token: read.token.filter(|_| vip.is_some()).map(|token: Token| token.to_string()),
            out: decided.out.as_ref().map(end),
            error: None,
        };
        Told { line, story: story::tell(way, &self.tables, names) }
    }

    /// Moves the clock to when a frame came; it never goes back.
    fn pass_time(&mut self, time_ns: Option<u64>) {
        let Some(time_ns) = time_ns else { return };
        let since = time_ns.saturating_sub(*self.first_ns.get_or_insert(time_ns));
        self.now = self.now.max(Tick::from_nanos(since).0);
        self.tables.now = Tick(self.base.0.wrapping_add(self.now));
    }
}

/// The host's tables as planned.
fn host_tables(plan: &Plan, now: Tick) -> HostTables {
    let mut tables = HostTables::new(SipKey::from_bytes([0; 16]));
    let buckets = |entries| vec![Bucket::default(); buckets_for(entries) as usize];
    tables.globals = plan.globals;
    tables.globals.prefixes = u32::try_from(plan.prefixes.len()).unwrap_or(u32::MAX);
    tables.now = now;
    tables.services.clone_from(&plan.services);
    tables.addresses = plan.addresses.iter().copied().collect();
    tables.prefixes = plan.prefixes.iter().map(|&(address, len, services)| ((len, address), services)).collect();
    tables.codecs = plan.codecs.iter().copied().collect();
    let bearers = plan.bearers.iter().flat_map(|(pool, ids)| ids.iter().map(|(&id, &bearer)| ((*pool, id), bearer)));
    tables.bearers = bearers.collect();
    tables.quic_servers = plan.quic_servers.iter().copied().collect();
    tables.entries_max = plan.sizes.joined_flows as usize;
    tables.tokens_max = plan.sizes.tokens as usize;
    tables.pending = buckets(plan.sizes.pending_handshakes);
    tables.embryonic = buckets(plan.sizes.embryonic_flows);
    tables.datagrams = buckets(plan.sizes.datagram_flows);
    tables.fragments = buckets(plan.sizes.fragmented_datagrams);
    for &(id, backend) in &plan.backends {
        let index = usize::from(id.0);
        if tables.backends.len() <= index {
            tables.backends.resize(index + 1, lb_common::tables::Backend::GONE);
        }
        tables.backends[index] = backend;
    }
    for (pool, slots) in &plan.rings {
        let first = HostTables::slot_index(*pool, 0);
        if tables.slots.len() < first + slots.len() {
            tables.slots.resize(first + slots.len(), lb_common::tables::Slot::default());
        }
        tables.slots[first..first + slots.len()].copy_from_slice(slots);
    }
    tables
}
