//! What outlives this process: whether its pins are still there, and what becomes of the data path at its end.

use super::{Service, ServiceError, State};
use crate::{
    bpf::LostPins,
    config::{InterfaceName, OnStop},
};

/// What becomes of the data path when its controller ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is no longer on the interfaces.
    Detached,
    /// It goes on, for the next controller to take over.
    Stays,
    /// Somebody has removed what it needs for that.
    Lost(LostPins),
}

impl Service {
    /// Looks whether the pins are still there. Some if some are gone and that is news.
    pub fn look_at_pins(&self) -> Option<LostPins> {
        let mut state = self.state();
        let lost = state.find_lost_pins();
        let is_news = state.lost_pins != lost;
        state.lost_pins = lost;
        state.lost_pins.clone().filter(|_| is_news)
    }

    /// Removes what was made for nothing, after an error; tables that were there before stay.
    pub fn abandon(&self) {
        let state = self.state();
        if !state.is_resumed {
            // What goes wrong here is no news to who reads of the error.
            let _ = state.pins.remove();
        }
    }

    /// Ends as the configuration says: what steers goes on without this process, or it is removed.
    ///
    /// # Errors
    /// Something could not be removed.
    pub fn end(&self) -> Result<Ending, ServiceError> {
        let mut state = self.state();
        let traced = state.end_tracing();
        if state.config.balancer.on_stop == OnStop::Detach {
            state.pins.remove()?;
            return Ok(Ending::Detached);
        }
        // Where pins are gone the plain program cannot be put back, and that is told.
        match state.find_lost_pins() {
            Some(lost) => Ok(Ending::Lost(lost)),
            None => traced.map(|()| Ending::Stays).map_err(ServiceError::from),
        }
    }
}

impl State {
    fn find_lost_pins(&self) -> Option<LostPins> {
        let interfaces = self.config.balancer.interfaces.iter().map(InterfaceName::as_str);
        self.balancer.lost_pins(interfaces, self.xdp_mode(), &self.pins)
    }
}
