//! `HAProxy` in the middle, as it serves MPTCP today: in TCP mode under `mptcpize`. Connections end there, joins with them,
//! and each goes on to a backend as a connection of its own.

use std::{fmt::Write as _, ops::Range};

use super::{
    Middle,
    place::{Place, up},
};
use crate::{Backend, Lab, LabError, addresses::SERVICE_PORT, churn::script::Member, process::Process};

pub(super) const PROGRAM: &str = "haproxy";

/// It, and what it runs on.
#[derive(Debug)]
pub(super) struct Haproxy {
    place: Place,
    backends: Range<usize>,
    process: Process,
}

impl Haproxy {
    /// Starts it before these of the lab's backends.
    pub(super) fn start(lab: &Lab, place: Place, backends: Range<usize>, pool: &[Member]) -> Result<Self, LabError> {
        place.take_vips()?;
        let process = serve(&place, &up(&lab.backends[backends.clone()], pool))?;
        Ok(Self { place, backends, process })
    }
}

impl Middle for Haproxy {
    fn change(&mut self, lab: &Lab, pool: &[Member]) -> Result<(), LabError> {
        self.process.stop();
        self.process = serve(&self.place, &up(&lab.backends[self.backends.clone()], pool))?;
        Ok(())
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.process.id()]
    }
}

fn serve(place: &Place, backends: &[&Backend]) -> Result<Process, LabError> {
    place.serve(PROGRAM, &["-db", "-f"], &configuration(backends))
}

/// As it comes, but for what a benchmark must not meet: limits of connections and of time.
fn configuration(backends: &[&Backend]) -> String {
    let mut text = format!(
        "global
    maxconn 4096
defaults
    mode tcp
    balance roundrobin
    timeout connect 10s
    timeout client 10m
    timeout server 10m
listen service
    bind :::{SERVICE_PORT} v4v6
"
    );
    for Backend { name, address, .. } in backends {
        let _ = writeln!(text, "    server {name} {}:{SERVICE_PORT}", address.v4);
    }
    text
}
