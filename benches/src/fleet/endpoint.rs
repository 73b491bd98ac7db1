//! What a backend needs that is joined at a port or an address of its own, by the kernel's own settings: nothing of Weir.

use crate::{
    Backend, LabError,
    addresses::{VIP, join_address, join_port},
};

/// Has clients join `backend` at its own port over IPv4 and at its own address over IPv6, where an announced port does
/// not fit beside the timestamps, and nowhere else.
///
/// # Errors
///
/// If the kernel refuses.
pub fn set_up(backend: &Backend) -> Result<(), LabError> {
    let (port, address) = (join_port(backend.number), join_address(backend.number));
    backend.namespace.write_settings(&[("mptcp/allow_join_initial_addr_port", "0")])?;
    backend.namespace.ip_batch(&format!(
        "mptcp endpoint flush\n\
         mptcp endpoint add {} dev lo signal port {port}\n\
         address add {address}/128 dev lo nodad\n\
         mptcp endpoint add {address} dev lo signal\n",
        VIP.v4
    ))
}
