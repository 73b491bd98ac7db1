//! Who joins at a backend's own port, and who at its own address.

use crate::{Backend, LabError};

/// Leaves a backend one of the two endpoints that it was set up with: the port, by which it is joined over IPv4, or, every
/// other, the address, by which it is over IPv6. A client with the kernel's own limits takes only one.
pub(crate) fn keep_one(backend: &Backend) -> Result<(), LabError> {
    let keeps_port = !backend.number.is_multiple_of(2);
    let printed = backend.namespace.output("ip", &["mptcp", "endpoint", "show"])?;
    for line in printed.lines().filter(|line| line.contains(" port ") != keeps_port) {
        let (_, rest) = line.split_once(" id ").ok_or_else(|| unexpected(line))?;
        let id = rest.split(' ').next().ok_or_else(|| unexpected(line))?;
        backend.namespace.output("ip", &["mptcp", "endpoint", "delete", "id", id])?;
    }
    Ok(())
}

fn unexpected(line: &str) -> LabError {
    LabError::Output { program: "ip", line: line.to_owned() }
}
