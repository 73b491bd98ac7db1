//! What backends need that are joined at a port or an address of their own, by the kernel's own settings: nothing of Weir.

use crate::{
    Backend, Lab, LabError,
    addresses::{VIP, join_address, join_port},
};

/// Has clients join each backend at its own port over IPv4, or at its own address over IPv6, where an announced port does
/// not fit beside the timestamps, and nowhere else. The client is one with the kernel's own limits: then it takes one
/// address from such a backend, and joins that from its second path. One that is told to take addresses from anybody
/// (`add_addr_accepted`) would join from its first.
///
/// # Errors
///
/// If the kernel refuses.
pub fn set_up(lab: &Lab) -> Result<(), LabError> {
    lab.client.namespace.ip_batch("mptcp limits set subflow 8 add_addr_accepted 0\n")?;
    lab.backends.iter().try_for_each(set_up_backend)
}

/// The first that a backend announces is what is taken: an address by every other.
fn set_up_backend(backend: &Backend) -> Result<(), LabError> {
    let (port, address) = (join_port(backend.number), join_address(backend.number));
    let mut endpoints = [
        format!("mptcp endpoint add {} dev lo signal port {port}\n", VIP.v4),
        format!("mptcp endpoint add {address} dev lo signal\n"),
    ];
    if backend.number.is_multiple_of(2) {
        endpoints.reverse();
    }
    backend.namespace.write_settings(&[("mptcp/allow_join_initial_addr_port", "0")])?;
    let first = format!("mptcp endpoint flush\naddress add {address}/128 dev lo nodad\n");
    backend.namespace.ip_batch(&(first + &endpoints.concat()))
}
