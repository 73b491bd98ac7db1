//! What `weir flows` and `weir tokens` tell: the JSON of the admin socket, and the same for people. A flow is named by its keyed
//! hash, from which nobody gets to an address; a client's key is nowhere.

use super::{
    fault::Fault,
    routes::{Answer, Call, Context, Parameter, blocking},
    status::TableStatus,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Entries that one request may look at: two calls to the kernel each.
pub const SAMPLES_MAX: usize = 1000;

/// The parameter of both routes.
pub(super) const SAMPLE: &[Parameter] =
    &[Parameter { name: "sample", kind: "integer", about: "How many entries to show, 1000 at most; none by default." }];

/// The flows that have an entry: those that the ring does not answer.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct Flows {
    /// Seconds since they were counted.
    pub counted_s_ago: u64,
    /// The tables: `joined_flows`, `moved_flows`, `pinned_flows`.
    pub tables: Vec<TableStatus>,
    /// The backends that entries name.
    pub backends: Vec<FlowCount>,
    /// Some entries, as they are now.
    pub samples: Vec<FlowSample>,
}

/// The entries that name a backend.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct FlowCount {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Joined subflows.
    pub joined: u64,
    /// Flows that began in a slot in transition.
    pub moved: u64,
    /// Flows that outlive the transition of their slot.
    pub pinned: u64,
    /// Those of them that have closed, and are kept for late packets.
    pub closing: u64,
}

/// A flow that has an entry.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct FlowSample {
    /// The table that it is in.
    pub table: String,
    /// The keyed hash of its 5-tuple, in hexadecimal.
    pub flow: String,
    /// The backend's pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// Seconds since its last packet.
    pub silent_s: u64,
    /// It has closed.
    pub closing: bool,
    /// No packet has come since the one that made the entry.
    pub unproven: bool,
    /// A SYN has come for the same 5-tuple.
    pub contested: bool,
}

/// The tokens that are known.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct Tokens {
    /// Seconds since they were counted.
    pub counted_s_ago: u64,
    /// How many there are.
    pub entries: u64,
    /// How many there is room for.
    pub limit: u64,
    /// How many connections on two backends hold: their joins are dropped.
    pub ambiguous: u64,
    /// The backends that tokens name.
    pub backends: Vec<TokenCount>,
    /// Some tokens, as they are now.
    pub samples: Vec<TokenSample>,
}

/// The tokens that name a backend.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct TokenCount {
    /// Its pool.
    pub pool: String,
    /// Its name.
    pub backend: String,
    /// Connections with a token.
    pub tokens: u64,
    /// Those of them whose first subflow has closed.
    pub closing: u64,
}

/// A token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct TokenSample {
    /// The token, in hexadecimal, as `ss -M` prints it.
    pub token: String,
    /// The pool whose connections it names.
    pub pool: String,
    /// Two backends have a connection of this name.
    pub ambiguous: bool,
    /// Who holds it.
    pub holders: Vec<TokenHolder>,
}

/// A connection that holds a token.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema, PartialEq, Eq)]
pub struct TokenHolder {
    /// Where it lives.
    pub backend: String,
    /// Seconds since it was learned.
    pub age_s: u64,
    /// Its first subflow has closed; others may live on.
    pub closing: bool,
}

pub(super) fn flows(context: Context, call: Call) -> Answer {
    blocking(move || Ok(context.service.flows(samples(&call)?)?))
}

pub(super) fn tokens(context: Context, call: Call) -> Answer {
    blocking(move || Ok(context.service.tokens(samples(&call)?)?))
}

fn samples(call: &Call) -> Result<usize, Fault> {
    match call.parameter("sample")?.unwrap_or(0) {
        samples if samples <= SAMPLES_MAX => Ok(samples),
        samples => Err(Fault::bad_request(format!("{samples} samples are more than {SAMPLES_MAX}"))),
    }
}

impl fmt::Display for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "flows that the ring does not answer, counted {} s ago", self.counted_s_ago)?;
        writeln!(f, "\n{:<24} {:>12} {:>12}", "TABLE", "ENTRIES", "LIMIT")?;
        for table in &self.tables {
            writeln!(f, "{:<24} {:>12} {:>12}", table.name, table.entries, table.limit)?;
        }
        let (joined, moved) = ("JOINED", "MOVED");
        writeln!(f, "\n{:<24} {:<24} {joined:>10} {moved:>10} {:>10} {:>10}", "POOL", "BACKEND", "PINNED", "CLOSING")?;
        for FlowCount { pool, backend, joined, moved, pinned, closing } in &self.backends {
            writeln!(f, "{pool:<24} {backend:<24} {joined:>10} {moved:>10} {pinned:>10} {closing:>10}")?;
        }
        if !self.samples.is_empty() {
            writeln!(f, "\n{:<17} {:<13} {:<24} {:<24} {:>10}  STATE", "FLOW", "TABLE", "POOL", "BACKEND", "SILENT")?;
        }
        for sample in &self.samples {
            let FlowSample { table, flow, pool, backend, silent_s, .. } = sample;
            let silent = format!("{silent_s} s");
            writeln!(f, "{flow:<17} {table:<13} {pool:<24} {backend:<24} {silent:>10}  {}", sample.state())?;
        }
        Ok(())
    }
}

impl FlowSample {
    fn state(&self) -> String {
        let open = if self.closing { "closing" } else { "open" };
        let unproven = if self.unproven { ", unproven" } else { "" };
        let contested = if self.contested { ", contested" } else { "" };
        format!("{open}{unproven}{contested}")
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { counted_s_ago, entries, limit, ambiguous, .. } = self;
        writeln!(f, "{entries} tokens of {limit}, {ambiguous} of them ambiguous, counted {counted_s_ago} s ago")?;
        writeln!(f, "\n{:<24} {:<24} {:>12} {:>12}", "POOL", "BACKEND", "TOKENS", "CLOSING")?;
        for TokenCount { pool, backend, tokens, closing } in &self.backends {
            writeln!(f, "{pool:<24} {backend:<24} {tokens:>12} {closing:>12}")?;
        }
        if !self.samples.is_empty() {
            writeln!(f, "\n{:<9} {:<24} {:<24} {:>10}  STATE", "TOKEN", "POOL", "BACKEND", "AGE")?;
        }
        for TokenSample { token, pool, ambiguous, holders } in &self.samples {
            for TokenHolder { backend, age_s, closing } in holders {
                let age = format!("{age_s} s");
                let state = if *closing { "closing" } else { "open" };
                let ambiguous = if *ambiguous { ", ambiguous" } else { "" };
                writeln!(f, "{token:<9} {pool:<24} {backend:<24} {age:>10}  {state}{ambiguous}")?;
            }
        }
        Ok(())
    }
}
