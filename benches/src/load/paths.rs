//! The client's further addresses, from which its kernel joins: as many subflows as were asked for, spread over both paths.

use std::fmt::Write as _;

use serde::Serialize;

use crate::{LabError, namespace::Namespace};

/// A kernel takes no more endpoints in a namespace.
const ENDPOINTS_MAX: u8 = 8;
/// The first of them is on path two in every lab, in both families.
const FIRST: u8 = 1;
const HOST: u8 = 100;
const PATH_TWO_TABLE: &str = "2";

/// How many subflows join a connection of each family, beside those over the other family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Joins {
    /// From IPv4 addresses.
    pub(super) v4: u8,
    /// From IPv6 addresses: fewer if there is no room for more.
    pub(super) v6: u8,
}

impl Joins {
    /// Those of a connection that is to have so many subflows.
    pub(super) const fn for_subflows(subflows: u8) -> Self {
        let v4 = subflows.saturating_sub(1);
        let room = ENDPOINTS_MAX.saturating_sub(v4);
        Self { v4, v6: if v4 < room { v4 } else { room } }
    }
}

/// Gives the client these addresses and endpoints. Its ports are as many as there can be: connections are very many.
pub(super) fn lay(client: &Namespace, joins: Joins) -> Result<(), LabError> {
    client.write_settings(&[("ipv4/ip_local_port_range", "1024 65535")])?;
    let mut commands = String::new();
    for (family, count) in [("-4", joins.v4), ("-6", joins.v6)] {
        for number in FIRST..count {
            // Path one, then path two, and so on.
            let path = 1 + (number + 1) % 2;
            let interface = if path == 1 { "eth0" } else { "eth1" };
            let (address, how) = match family {
                "-4" => (format!("10.71.{path}.{}", HOST + number), "24"),
                // Deprecated: no connection begins from it unless it is asked to.
                _ => (format!("fd71:{path}::{:x}", HOST + number), "64 nodad preferred_lft 0"),
            };
            let _ = writeln!(commands, "address add {address}/{how} dev {interface}");
            let _ = writeln!(commands, "mptcp endpoint add {address} dev {interface} subflow");
            if path == 2 {
                client.output("ip", &[family, "rule", "add", "from", &address, "table", PATH_TWO_TABLE])?;
            }
        }
    }
    client.ip_batch(&commands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_every_number_of_subflows() {
        let joins = |subflows| {
            let Joins { v4, v6 } = Joins::for_subflows(subflows);
            (v4, v6)
        };
        assert_eq!((2..=8).map(joins).collect::<Vec<_>>(), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3), (6, 2), (7, 1)]);
    }
}
