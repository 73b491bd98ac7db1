//! What `weir reload` asks for and is told: the JSON of the admin socket, and the same for people. Whoever keeps the tables
//! does it, one at a time.

use super::{
    Fault,
    routes::{Answer, Call, Context, Reply},
};
use hyper::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the one under way.
const WAITING_MAX: usize = 16;

/// A request for a reload.
#[derive(Debug)]
pub struct Request {
    /// Nothing is to be changed.
    pub dry_run: bool,
    /// Where the answer is waited for.
    pub answer: oneshot::Sender<Result<Reload, Fault>>,
}

/// The way to whoever reloads.
#[derive(Clone, Debug)]
pub struct Requests(mpsc::Sender<Request>);

impl Requests {
    /// A way, and its other end.
    pub fn channel() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    async fn ask(&self, dry_run: bool) -> Result<Reload, Fault> {
        let ending = || Fault::new(StatusCode::SERVICE_UNAVAILABLE, "weir is ending");
        let (answer, answered) = oneshot::channel();
        self.0.send(Request { dry_run, answer }).await.map_err(|_| ending())?;
        answered.await.map_err(|_| ending())?
    }
}

pub(super) fn handle(context: Context, call: Call) -> Answer {
    Box::pin(async move {
        let dry_run = call.parameter("dry_run")?.unwrap_or(false);
        Ok(Reply::Document(serde_json::to_vec(&context.reloads.ask(dry_run).await?)?))
    })
}

/// What a reload has changed, or would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reload {
    /// Nothing was changed: this only says what would be.
    pub dry_run: bool,
    /// Fields of `[balancer]` that have another value.
    pub settings: Vec<String>,
    /// VIPs, by their names.
    pub vips: Changes,
    /// Pools.
    pub pools: Changes,
    /// Backends, as POOL/NAME.
    pub backends: Changes,
    /// Slots of all rings that change: they have another owner, or other connections to remember.
    pub slots_changed: usize,
    /// Slots of all rings.
    pub slots: usize,
    /// What is in the tables of that; only a dry run counts it.
    pub touched: Option<Touched>,
    /// What is allowed, and hardly meant.
    pub warnings: Vec<String>,
    /// What loses packets now: backends that cannot be reached, and pools none of whose backends takes new connections. A dry
    /// run looks for new backends alone.
    #[serde(default)]
    pub losses: Vec<String>,
}

/// Things of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Changes {
    /// They are new.
    pub added: Vec<String>,
    /// They are no longer in the configuration.
    pub removed: Vec<String>,
    /// They are not what they were.
    pub changed: Vec<Change>,
}

/// A thing that is not what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// What is different, such as `weight 100 -> 200`.
    pub what: String,
}

/// What is in the tables of the slots and backends that change. Flows without an entry are not known to Weir.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Touched {
    /// Flows with an entry in a slot that changes; they stay at their backends.
    pub flows: u64,
    /// Flows with an entry at a backend that is to be down; they end.
    pub flows_ended: u64,
    /// Tokens of connections at a backend that is to be down; nothing can join them.
    pub tokens_ended: u64,
}

impl Changes {
    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        for name in &self.added {
            writeln!(f, "+ {kind} {name}")?;
        }
        for name in &self.removed {
            writeln!(f, "- {kind} {name}")?;
        }
        for Change { name, what } in &self.changed {
            writeln!(f, "~ {kind} {name}: {what}")?;
        }
        Ok(())
    }
}

impl Reload {
    /// The line for the log.
    pub fn line(&self) -> String {
        let (added, removed) = (self.backends.added.len(), self.backends.removed.len());
        let backends = format!("{added} backends joined, {removed} left, {} slots changed", self.slots_changed);
        let Changes { added, removed, changed } = &self.vips;
        match (added.len(), removed.len(), changed.len()) {
            (0, 0, 0) => backends,
            (added, removed, changed) => {
                format!("{backends}; {added} VIPs added, {removed} removed, {changed} changed")
            }
        }
    }
}

impl fmt::Display for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in self.warnings.iter().chain(&self.losses) {
            writeln!(f, "warning: {warning}")?;
        }
        for setting in &self.settings {
            writeln!(f, "~ {setting}")?;
        }
        self.vips.write(f, "vip")?;
        self.pools.write(f, "pool")?;
        self.backends.write(f, "backend")?;
        let verb = if self.dry_run { "would change" } else { "changed" };
        writeln!(f, "{} of {} slots {verb}", self.slots_changed, self.slots)?;
        if let Some(Touched { flows, flows_ended, tokens_ended }) = self.touched {
            writeln!(f, "{flows} flows with an entry are in those, and stay where they are")?;
            if flows_ended + tokens_ended > 0 {
                writeln!(f, "{flows_ended} flows and {tokens_ended} tokens of backends that are down would end")?;
            }
        }
        if self.dry_run { writeln!(f, "nothing has been changed") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_the_log_tells_of_vips_where_one_is_another() {
        let mut reload = Reload { slots_changed: 7, ..Reload::default() };
        assert_eq!(reload.line(), "0 backends joined, 0 left, 7 slots changed");
        reload.vips.added.push("shop".to_owned());
        assert_eq!(reload.line(), "0 backends joined, 0 left, 7 slots changed; 1 VIPs added, 0 removed, 0 changed");
    }
}
