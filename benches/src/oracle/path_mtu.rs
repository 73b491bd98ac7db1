//! The path MTUs that a kernel's TCP sockets have learned, by `ss -tni`.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{LabError, namespace::Namespace, oracle::flows::end};

/// The path MTU of each established TCP socket in `namespace`, subflows of MPTCP among them, by its own end and the
/// other.
///
/// # Errors
///
/// If `ss` fails or prints what cannot be read.
pub fn path_mtus(namespace: &Namespace) -> Result<BTreeMap<(SocketAddr, SocketAddr), u16>, LabError> {
    let printed = namespace.output("ss", &["-tniHO", "state", "established"])?;
    printed
        .lines()
        .map(|line| parse(line).ok_or_else(|| LabError::Output { program: "ss", line: line.to_owned() }))
        .collect()
}

/// Columns as in [`super::Subflow`], with the word `pmtu:N`.
fn parse(line: &str) -> Option<((SocketAddr, SocketAddr), u16)> {
    let mut columns = line.split_whitespace().skip(2);
    let local = end(columns.next()?)?;
    let peer = end(columns.next()?)?;
    let mtu = columns.find_map(|word| word.strip_prefix("pmtu:"))?.parse().ok()?;
    Some(((local, peer), mtu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_ends_and_a_path_mtu() {
        let line = "0 0 10.71.1.1:51234 192.0.2.10:8000 cubic wscale:7,7 rto:201 mss:1428 pmtu:1480 rcvmss:536";
        let ends = ("10.71.1.1:51234".parse().unwrap(), "192.0.2.10:8000".parse().unwrap());
        assert_eq!(parse(line), Some((ends, 1480)));
        assert_eq!(parse(&line.replace(".1.1:", ".1.1%eth0:")), Some((ends, 1480)));
        assert_eq!(parse(&line.replace("pmtu", "mtu")), None);
    }
}
