//! Routes in a table of the kernel's that no packet is looked up in: a notice-board, from which BIRD (`learn`) takes
//! what it announces. They lead nowhere, and are marked as Weir's: no others are touched.

use crate::config::Prefix;
use futures_util::TryStreamExt as _;
use nix::errno::Errno;
use rtnetlink::{
    Handle, RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};
use tokio::task::JoinSet;

/// The mark of Weir's routes, `proto 87` to `ip route`: a "W".
const PROTOCOL: RouteProtocol = RouteProtocol::Other(87);

/// Why the kernel's table is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No socket.
    #[error("no netlink socket: {0}; the service's sandbox must allow AF_NETLINK (systemd: RestrictAddressFamilies)")]
    Connect(io::Error),
    /// The kernel does not tell its routes.
    #[error("the kernel does not tell the routes of table {table}: {source}")]
    List {
        /// The table.
        table: u32,
        /// What it says.
        source: rtnetlink::Error,
    },
    /// The kernel refuses a route.
    #[error(
        "the kernel does not {what} {prefix} in table {table}: {source}; `ip route show table {table}` shows what is there, \
         and changes need CAP_NET_ADMIN"
    )]
    Refused {
        /// `add` or `delete`.
        what: &'static str,
        /// The route.
        prefix: Prefix,
        /// The table.
        table: u32,
        /// What the kernel says.
        source: rtnetlink::Error,
    },
}

/// Weir's routes in a table.
#[derive(Debug)]
pub struct Routes {
    netlink: Handle,
    table: u32,
    there: BTreeSet<Prefix>,
    /// Ends the connection with this.
    _tasks: JoinSet<()>,
}

impl Routes {
    /// Those that are there already, as an earlier process has left them.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub async fn find(table: u32) -> Result<Self, KernelError> {
        let (connection, netlink, _) = rtnetlink::new_connection().map_err(KernelError::Connect)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let mut there = BTreeSet::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for question in [v4, v6] {
            let routes =
                netlink.route().get(question).execute().try_filter_map(|route| async move { Ok(ours(&route, table)) });
            let routes: Vec<Prefix> =
                routes.try_collect().await.map_err(|source| KernelError::List { table, source })?;
            there.extend(routes);
        }
        Ok(Self { netlink, table, there, _tasks: tasks })
    }

    /// Has these in the table, and no others of Weir's.
    pub(super) async fn set(&mut self, prefixes: &BTreeSet<Prefix>) -> Result<(), KernelError> {
        let table = self.table;
        for prefix in self.there.difference(prefixes).copied().collect::<Vec<_>>() {
            match self.netlink.route().del(self.route(prefix)).execute().await {
                Err(source) if !is_gone(&source) => {
                    return Err(KernelError::Refused { what: "delete", prefix, table, source });
                }
                _ => self.there.remove(&prefix),
            };
        }
        for prefix in prefixes.difference(&self.there).copied().collect::<Vec<_>>() {
            let added = self.netlink.route().add(self.route(prefix)).replace().execute().await;
            added.map_err(|source| KernelError::Refused { what: "add", prefix, table, source })?;
            self.there.insert(prefix);
        }
        Ok(())
    }

    fn route(&self, prefix: Prefix) -> RouteMessage {
        match prefix.address() {
            IpAddr::V4(address) => {
                self.nowhere(RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, prefix.bits()))
            }
            IpAddr::V6(address) => {
                self.nowhere(RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, prefix.bits()))
            }
        }
    }

    fn nowhere<T>(&self, route: RouteMessageBuilder<T>) -> RouteMessage {
        route.table_id(self.table).protocol(PROTOCOL).kind(RouteType::BlackHole).build()
    }
}

/// Whether somebody else has deleted it before.
fn is_gone(error: &rtnetlink::Error) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -(Errno::ESRCH as i32))
}

/// What a route of Weir's in a table leads to.
fn ours(route: &RouteMessage, table: u32) -> Option<Prefix> {
    let number =
        |attribute: &RouteAttribute| if let RouteAttribute::Table(number) = attribute { Some(*number) } else { None };
    let of_table = route.attributes.iter().find_map(number).unwrap_or_else(|| route.header.table.into());
    if of_table != table || route.header.protocol != PROTOCOL {
        return None;
    }
    let destination = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(IpAddr::V4(*address)),
        RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(IpAddr::V6(*address)),
        _ => None,
    })?;
    format!("{destination}/{}", route.header.destination_prefix_length).parse().ok()
}
