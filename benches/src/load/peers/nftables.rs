//! The kernel's own address translation in the middle, by nftables: each flow to the backend that a hash of its client's
//! address and port names. It knows nothing of MPTCP. Answers come back through it, for it stands in for the client too.

use std::ops::Range;

use super::{
    Middle,
    place::{Place, up},
};
use crate::{
    Backend, Lab, LabError,
    addresses::{DualAddress, SERVICE_PORT, VIP},
    churn::script::Member,
    command,
};

pub(super) const PROGRAM: &str = "nft";
const FORWARDING: &[(&str, &str)] =
    &[("ipv4/ip_forward", "1"), ("ipv4/conf/all/send_redirects", "0"), ("ipv6/conf/all/forwarding", "1")];
/// Needs of the kernel what the real rules need.
const PROBE: &str = "table inet weir_probe {
    chain before {
        type nat hook prerouting priority dstnat;
        ip daddr 192.0.2.1 tcp dport 1 dnat ip to jhash ip saddr . tcp sport mod 2 map { 0 : 192.0.2.2, 1 : 192.0.2.3 }
    }
    chain after {
        type nat hook postrouting priority srcnat;
        ct status dnat masquerade
    }
}
delete table inet weir_probe
";

/// It, and what it runs on.
#[derive(Debug)]
pub(super) struct Nftables {
    place: Place,
    backends: Range<usize>,
}

impl Nftables {
    /// Why it cannot run here, if the kernel has not what it takes; in the words of `nft`.
    ///
    /// # Errors
    ///
    /// If there is no `nft`.
    pub(super) fn lacks(place: &Place) -> Result<Option<String>, LabError> {
        match feed(place, PROBE) {
            Ok(()) => Ok(None),
            Err(LabError::Command { output, .. }) => {
                let why = output.lines().next().unwrap_or_default();
                Ok(Some(format!("this kernel has no address translation for nftables: {why}")))
            }
            Err(other) => Err(other),
        }
    }

    /// Starts it before these of the lab's backends.
    pub(super) fn start(lab: &Lab, place: Place, backends: Range<usize>, pool: &[Member]) -> Result<Self, LabError> {
        place.namespace.write_settings(FORWARDING)?;
        let mut nftables = Self { place, backends };
        nftables.change(lab, pool)?;
        Ok(nftables)
    }
}

impl Middle for Nftables {
    fn change(&mut self, lab: &Lab, pool: &[Member]) -> Result<(), LabError> {
        feed(&self.place, &rules(&up(&lab.backends[self.backends.clone()], pool)))
    }

    /// It has none: all that it does is done in softirqs.
    fn processes(&self) -> Vec<u32> {
        Vec::new()
    }
}

fn feed(place: &Place, rules: &str) -> Result<(), LabError> {
    place.namespace.run(|| command::output(PROGRAM, &["-f", "-"], rules))?.map(drop)
}

fn rules(backends: &[&Backend]) -> String {
    let count = backends.len();
    let map = |address: &dyn Fn(DualAddress) -> String| {
        let entries =
            backends.iter().enumerate().map(|(number, backend)| format!("{number} : {}", address(backend.address)));
        entries.collect::<Vec<_>>().join(", ")
    };
    let (v4, v6) = (map(&|address| address.v4.to_string()), map(&|address| address.v6.to_string()));
    format!(
        "table inet weir
delete table inet weir
table inet weir {{
    chain before {{
        type nat hook prerouting priority dstnat;
        ip daddr {} tcp dport {SERVICE_PORT} dnat ip to jhash ip saddr . tcp sport mod {count} map {{ {v4} }}
        ip6 daddr {} tcp dport {SERVICE_PORT} dnat ip6 to jhash ip6 saddr . tcp sport mod {count} map {{ {v6} }}
    }}
    chain after {{
        type nat hook postrouting priority srcnat;
        ct status dnat masquerade
    }}
}}
",
        VIP.v4, VIP.v6
    )
}
