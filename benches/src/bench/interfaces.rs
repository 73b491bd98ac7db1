//! Interfaces that the measured programs are attached to, in a network namespace that ends with this process. No packet
//! comes by any of them.
//!
//! A test run enters its program into the kernel's XDP dispatcher, and takes it out again; for each the kernel waits until
//! no CPU uses the dispatcher any more, which takes longer than the run. A program that is attached somewhere is there
//! already (`bpf_dispatcher_add_prog` in kernel/bpf/dispatcher.c).

use nix::sched::{CloneFlags, unshare};

use crate::{LabError, command};

/// One for each program.
pub(super) const NAMES: [&str; 5] = ["lo", "bench0", "bench1", "bench2", "bench3"];

/// Has the calling thread leave the host's network for one with these interfaces.
pub(crate) fn make() -> Result<(), LabError> {
    unshare(CloneFlags::CLONE_NEWNET)
        .map_err(|errno| LabError::System { action: "make a network namespace".to_owned(), source: errno.into() })?;
    for pair in NAMES[1..].chunks(2) {
        command::output("ip", &["link", "add", pair[0], "type", "veth", "peer", "name", pair[1]], "")?;
    }
    Ok(())
}
