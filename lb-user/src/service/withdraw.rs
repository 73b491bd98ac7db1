//! The operator's order to this balancer to withdraw: `/healthz` answers 503, so that whoever announces the VIPs stops, and
//! packets that still come are steered as ever. It ends with the process.

use super::Service;
use crate::bus::Handover;

impl Service {
    /// Has others be told by this what is handed over.
    pub fn note_handover(&self, handover: Handover) {
        self.state().handover = Some(handover);
    }

    /// The way to hand over to the others, if there are any.
    pub fn handover(&self) -> Option<Handover> {
        self.state().handover.clone()
    }

    /// Whether it has withdrawn.
    pub fn is_withdrawn(&self) -> bool {
        self.state().is_withdrawn
    }

    /// Withdraws, or no longer.
    pub fn withdraw(&self, is_withdrawn: bool) {
        self.state().is_withdrawn = is_withdrawn;
    }
}
