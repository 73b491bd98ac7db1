//! How the process itself is: what its loop has last said, and whether that still turns. `/healthz` and the metrics say the
//! same, from a thread that does not hang with the loop.

use super::families::{Family, Kind, Row};
use crate::pulse::Pulse;
use tokio::sync::watch;

/// Whether packets are being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, or by what an earlier controller has left: `/healthz` answers 503.
    Starting,
    /// They are: `/healthz` answers 200.
    Ready,
    /// They are not, and this is why: `/healthz` answers 503 with it.
    Unfit(String),
    /// They are, but the operator has others take over: `/healthz` answers 503.
    Withdrawn,
}

pub(super) const READY: Family = Family {
    name: "weir_ready",
    help: "Whether `/healthz` answers 200: packets are steered, the loop turns, and this balancer is not withdrawn.",
    kind: Kind::Gauge,
    labels: &[],
};
pub(super) const LOOP_SILENCE: Family = Family {
    name: "weir_loop_silence_seconds",
    help: "How long ago the loop that keeps the tables true has come round, as it does once a second; above 20 it hangs.",
    kind: Kind::Gauge,
    labels: &[],
};

/// What a loop says of itself, and its pulse.
#[derive(Clone)]
pub(super) struct Vital {
    pub(super) readiness: watch::Receiver<Readiness>,
    /// Of the loop that says so, where there is one.
    pub(super) pulse: Option<Pulse>,
}

impl Vital {
    /// Why `/healthz` does not answer 200, if it does not.
    pub(super) fn trouble(&self) -> Option<String> {
        if self.is_starting() {
            return Some("starting".to_owned());
        }
        // What a loop has said that no longer turns, may be so no longer.
        self.hang().or_else(|| match &*self.readiness.borrow() {
            Readiness::Unfit(why) => Some(why.clone()),
            Readiness::Withdrawn => Some("withdrawn, until `weir drain-self --undo`".to_owned()),
            Readiness::Starting | Readiness::Ready => None,
        })
    }

    /// Whether it is not known yet how it is.
    pub(super) fn is_starting(&self) -> bool {
        *self.readiness.borrow() == Readiness::Starting
    }

    /// That the loop hangs, if it does. One that has not begun cannot.
    pub(super) fn hang(&self) -> Option<String> {
        let stopped = self.pulse.as_ref().and_then(Pulse::stopped).filter(|_| !self.is_starting());
        stopped.map(|silence| format!("weir has hung for {} s; restart it", silence.as_secs()))
    }

    /// The rows of the families above.
    pub(super) fn rows(&self) -> [(Family, Vec<Row<'static>>); 2] {
        let alone = |value| vec![Row { labels: Vec::new(), value }];
        let silence = self.pulse.as_ref().map(|pulse| pulse.silence().as_secs());
        [(READY, alone(u64::from(self.trouble().is_none()))), (LOOP_SILENCE, silence.map(alone).unwrap_or_default())]
    }
}
