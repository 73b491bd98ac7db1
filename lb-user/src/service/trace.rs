//! A trace: for its time, and no longer, the programs that tell what they decide stand in the place of those that do not,
//! over the same tables. Whatever ends it, the plain program is put back.

use super::{Service, State, sizes};
use crate::{
    bpf::{LoadError, Told, Tracer},
    config::{self, Forward},
};
use aya::maps::MapError;
use lb_common::{
    limits::TRACE_LINES_PER_CPU,
    trace::{Counts, Plan},
};
use std::sync::Arc;
use tracing::error;

/// Whether the programs that tell are on the interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracing {
    /// They are not in the kernel.
    Off,
    /// They are, or are being brought there.
    On,
    /// They are not, and will not be: the balancer ends.
    Over,
}

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// There is one.
    #[error("somebody traces already: one trace at a time, wait for its end")]
    Busy,
    /// The balancer ends.
    #[error("weir is ending")]
    Ending,
    /// The kernel refuses.
    #[error(transparent)]
    Load(#[from] LoadError),
}

/// What a packet was, in names of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// What the program told.
    pub told: Told,
    /// The VIP.
    pub vip: Option<String>,
    /// The pool of the VIP or, better, of the backend.
    pub pool: Option<String>,
    /// The backend.
    pub backend: Option<String>,
    /// How it is reached.
    pub forward: Option<Forward>,
}

/// A trace that goes on until it is dropped.
pub struct Trace {
    service: Arc<Service>,
    tracer: Tracer,
    /// Whether this one still has the data path: another may have it afterwards.
    goes_on: bool,
}

impl Service {
    /// Begins to trace one packet in so many.
    ///
    /// # Errors
    /// There is a trace already, or the kernel refuses.
    pub fn trace(self: &Arc<Self>, one_in: u32) -> Result<Trace, TraceError> {
        let (sizes, pins) = {
            let mut state = self.state();
            match state.tracing {
                Tracing::Off => state.tracing = Tracing::On,
                Tracing::On => return Err(TraceError::Busy),
                Tracing::Over => return Err(TraceError::Ending),
            }
            (sizes(&state.config), Arc::clone(&state.pins))
        };
        // The verifier takes a second or two, in which the service goes on.
        let loaded = Tracer::load(&sizes, &pins, Plan::new(one_in, TRACE_LINES_PER_CPU));
        let mut state = self.state();
        let begun = loaded.map_err(TraceError::from).and_then(|mut tracer| {
            if state.tracing == Tracing::Over {
                return Err(TraceError::Ending);
            }
            let mode = state.xdp_mode();
            let interfaces = state.config.balancer.interfaces.iter().map(config::InterfaceName::as_str);
            tracer.attach(interfaces, mode, &pins)?;
            Ok(tracer)
        });
        match begun {
            Ok(tracer) => Ok(Trace { service: Arc::clone(self), tracer, goes_on: true }),
            Err(error) => {
                state.end_trace();
                Err(error)
            }
        }
    }

    fn name(&self, told: Vec<Told>) -> Vec<Named> {
        let state = self.state();
        told.into_iter().map(|told| state.name(told)).collect()
    }
}

impl Trace {
    /// The packets that were told of since this was last asked.
    pub fn read(&mut self) -> Vec<Named> {
        let told = self.tracer.read();
        self.service.name(told)
    }

    /// How many packets there were.
    ///
    /// # Errors
    /// The kernel refuses the call.
    pub fn counts(&self) -> Result<Counts, MapError> {
        self.tracer.counts()
    }

    /// Puts the plain program back; what was told before can still be read.
    pub fn stop(&mut self) {
        if std::mem::take(&mut self.goes_on) {
            self.service.state().end_trace();
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.stop();
    }
}

impl State {
    /// Puts the plain program back, if it is not there.
    fn end_trace(&mut self) {
        if self.tracing != Tracing::On {
            return;
        }
        match self.attach() {
            Ok(()) => self.tracing = Tracing::Off,
            Err(error) => {
                error!("the program that traces is still attached: {error}; restart weir, which takes it off");
            }
        }
    }

    /// The same at the end of the balancer: nobody traces any more.
    pub(super) fn end_tracing(&mut self) -> Result<(), LoadError> {
        let was = std::mem::replace(&mut self.tracing, Tracing::Over);
        if was == Tracing::On { self.attach() } else { Ok(()) }
    }

    fn name(&self, told: Told) -> Named {
        let vip = self.layout.vips.iter().find(|row| row.id == told.vip);
        let backend = self.backends.get(&told.backend).map(|known| &known.row);
        let pool = backend.map(|row| &row.name.pool).or(vip.map(|row| &row.pool));
        Named {
            told,
            vip: vip.map(|row| row.name.clone()),
            pool: pool.cloned(),
            backend: backend.map(|row| row.name.name.clone()),
            forward: backend.map(|row| row.forward),
        }
    }
}
