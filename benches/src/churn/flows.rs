//! Which flows there are, by the sockets of client and backends (`ss`): a flow lives as long as the client has it
//! established with the backend that had it first.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use crate::{Lab, LabError, addresses::SERVICE_PORT, namespace::Namespace, traffic::canonical};

/// The flows seen so far, by the client's end, and the backend of each, counted from 0.
#[derive(Debug, Default)]
pub(crate) struct Flows {
    backends: BTreeMap<SocketAddr, usize>,
}

impl Flows {
    /// How many there are, joined subflows included.
    pub(crate) fn count(&self) -> usize {
        self.backends.len()
    }

    /// Takes in every flow that a backend has and the client too.
    pub(crate) fn take_in(&mut self, lab: &Lab) -> Result<(), LabError> {
        let at_client = established(&lab.client.namespace, "dport", Column::Local)?;
        for (index, backend) in lab.backends.iter().enumerate() {
            for peer in established(&backend.namespace, "sport", Column::Peer)? {
                if at_client.contains(&peer) {
                    self.backends.entry(peer).or_insert(index);
                }
            }
        }
        Ok(())
    }

    /// Forgets the flows of a backend that was killed; returns how many there were.
    pub(crate) fn bury(&mut self, backend: usize) -> usize {
        let before = self.backends.len();
        self.backends.retain(|_, at| *at != backend);
        before - self.backends.len()
    }

    /// Forgets the flows that the client or their backend no longer has, and returns them.
    pub(crate) fn lost(&mut self, lab: &Lab) -> Result<Vec<SocketAddr>, LabError> {
        let at_client = established(&lab.client.namespace, "dport", Column::Local)?;
        let at_backends = lab.backends.iter().map(|backend| established(&backend.namespace, "sport", Column::Peer));
        let at_backends = at_backends.collect::<Result<Vec<_>, _>>()?;
        let lives =
            |client: &SocketAddr, backend: usize| at_client.contains(client) && at_backends[backend].contains(client);
        let flows = self.backends.iter();
        let lost: Vec<_> = flows.filter(|(client, at)| !lives(client, **at)).map(|(client, _)| *client).collect();
        for client in &lost {
            self.backends.remove(client);
        }
        Ok(lost)
    }
}

/// Which end of a socket to read.
#[derive(Clone, Copy)]
enum Column {
    Local,
    Peer,
}

/// One end of every established TCP socket of the service in a namespace.
fn established(namespace: &Namespace, port: &str, column: Column) -> Result<BTreeSet<SocketAddr>, LabError> {
    let service = format!(":{SERVICE_PORT}");
    let printed = namespace.output("ss", &["-tnHO", "state", "established", port, "=", &service])?;
    let end = |line: &str| {
        let mut columns = line.split_whitespace().skip(2);
        let (local, peer) = (columns.next()?, columns.next()?);
        let end = match column {
            Column::Local => local,
            Column::Peer => peer,
        };
        without_interface(end).parse().ok().map(canonical)
    };
    let lines = printed.lines();
    lines.map(|line| end(line).ok_or_else(|| LabError::Output { program: "ss", line: line.to_owned() })).collect()
}

/// `ss` names the interface that a joined subflow is bound to: `10.71.2.1%eth1:50605`.
fn without_interface(end: &str) -> String {
    let Some((address, rest)) = end.split_once('%') else { return end.to_owned() };
    let interface_ends = rest.find([':', ']']).unwrap_or(rest.len());
    format!("{address}{}", &rest[interface_ends..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_read_with_and_without_an_interface() {
        for (end, plain) in [
            ("10.71.2.1%eth1:50605", "10.71.2.1:50605"),
            ("[fd71:2::1]%eth1:50605", "[fd71:2::1]:50605"),
            ("[fd71:2::1%eth1]:50605", "[fd71:2::1]:50605"),
            ("192.0.2.10:8000", "192.0.2.10:8000"),
        ] {
            assert_eq!(without_interface(end), plain);
        }
    }
}
