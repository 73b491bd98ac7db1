//! Bare XDP programs in the middle: a tunnel is put on at the balancer's place and taken off at the backend, and nothing is
//! decided. The yardstick: no balancer that tunnels can be faster on these hops. One backend has all connections.

use lb_common::bench::Hop;

use super::{Middle, Peer, place::Place};
use crate::{
    Backend, Lab, LabError, addresses::VIP, bench::OBJECT, churn::script::Member, topology::INTERFACE, xdp::Attached,
};

/// The programs.
#[derive(Debug)]
pub(super) struct Stub {
    _programs: [Attached; 3],
}

impl Stub {
    /// Puts them on the way to a backend.
    pub(super) fn start(lab: &Lab, place: &Place, backend: &Backend) -> Result<Self, LabError> {
        let hop = Hop::new(VIP.v4, VIP.v6, place.address.v4, backend.address.v4);
        Ok(Self {
            _programs: [
                Attached::passing(&lab.router.namespace, Peer::Stub.name())?,
                Attached::attach(&backend.namespace, INTERFACE, OBJECT, "weir_stub_unwrap")?,
                Attached::wrapping(&place.namespace, INTERFACE, hop)?,
            ],
        })
    }
}

impl Middle for Stub {
    /// It has one backend, whatever the pool is.
    fn change(&mut self, _: &Lab, _: &[Member]) -> Result<(), LabError> {
        Ok(())
    }

    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }
}
