//! An ICMP echo from the client, by the kernel's own ping socket: it finds the reply that belongs to the request, and
//! drops one whose checksum is wrong.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{Client, LabError};

/// Lets everyone in the namespace have ping sockets, of both families.
const ALLOWED: (&str, &str) = ("ipv4/ping_group_range", "0 2147483647");
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const HEADER_BYTES: usize = 8;
const PAYLOAD: &[u8] = b"is anybody there?";

/// Sends one echo request and waits for the reply to it.
///
/// # Errors
///
/// If none comes in time, or not with what was sent.
pub fn ping(client: &Client, address: IpAddr) -> Result<(), LabError> {
    client.namespace.write_settings(&[ALLOWED])?;
    client.namespace.run(|| exchange(address))?.map_err(LabError::system(format!("ping {address}")))
}

fn exchange(address: IpAddr) -> io::Result<()> {
    let (domain, protocol, request, reply) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
    socket.connect(&SocketAddr::new(address, 0).into())?;
    socket.set_read_timeout(Some(ANSWER_LIMIT))?;
    // The kernel fills in checksum and id.
    let header = [request, 0, 0, 0, 0, 0, 0, 1];
    socket.write_all(&[&header, PAYLOAD].concat())?;
    let mut answer = [0; 256];
    let length = socket.read(&mut answer)?;
    match answer[..length].split_at_checked(HEADER_BYTES) {
        Some((header, PAYLOAD)) if header[0] == reply => Ok(()),
        _ => Err(io::Error::other("the answer is not an echo of what was sent")),
    }
}
