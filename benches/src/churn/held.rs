//! The connections that are held open through the changes, and what their own sockets say of them.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::{
    Client, LabError,
    addresses::{Family, VIP},
    sockets::{self, Transport},
    traffic::{canonical, read_greeting},
};

/// Three SYNs (1 s and 2 s apart) and a bit.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// All answers of one round are there in this time, or the connection counts as broken.
const ROUND_LIMIT: Duration = Duration::from_secs(10);
const READ_LIMIT_MIN: Duration = Duration::from_millis(20);
const LINE_BYTES: usize = 9;

/// A connection that answered when it was opened.
#[derive(Debug)]
struct Connection {
    client: SocketAddr,
    backend: String,
    transport: Transport,
    stream: TcpStream,
}

/// Why a connection is no longer held.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) client: SocketAddr,
    pub(crate) backend: String,
    pub(crate) error: io::Error,
}

/// What kind of connection the `index`th is: plain TCP and MPTCP in turn, IPv4 and IPv6.
const fn kind(index: usize) -> (Transport, Family) {
    match index % 4 {
        0 => (Transport::Tcp, Family::V4),
        1 => (Transport::Mptcp, Family::V4),
        2 => (Transport::Tcp, Family::V6),
        _ => (Transport::Mptcp, Family::V6),
    }
}

/// How many of `count` connections are MPTCP, each of which is joined once.
pub(crate) fn joins_of(count: usize) -> u64 {
    (0..count).map(|index| u64::from(matches!(kind(index).0, Transport::Mptcp))).sum()
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Held {
    connections: Vec<Connection>,
    round: u32,
    /// The longest time that a round took.
    pub(crate) longest_round: Duration,
}

impl Held {
    /// How many are held.
    pub(crate) fn count(&self) -> usize {
        self.connections.len()
    }

    /// Opens more; returns how many went to each backend.
    pub(crate) fn open(&mut self, client: &Client, count: usize) -> Result<BTreeMap<String, usize>, LabError> {
        let mut opened = client.namespace.run(|| {
            let open = |index| Connection::open(kind(index)).map_err(LabError::system("open a connection"));
            (0..count).map(open).collect::<Result<Vec<_>, _>>()
        })??;
        let mut distribution = BTreeMap::new();
        for connection in &opened {
            *distribution.entry(connection.backend.clone()).or_default() += 1;
        }
        self.connections.append(&mut opened);
        Ok(distribution)
    }

    /// Holds what others have opened.
    pub(crate) fn take(&mut self, mut others: Self) {
        self.connections.append(&mut others.connections);
    }

    /// How many of them have subflows that can be joined by another of their family.
    pub(crate) fn joinable(&self) -> u64 {
        self.connections.iter().map(|connection| u64::from(connection.transport == Transport::Mptcp)).sum()
    }

    /// Every connection sends a line of its own and waits for its echo. Those that do not get it are held no longer.
    pub(crate) fn exchange(&mut self) -> Vec<Broken> {
        let begun = Instant::now();
        self.round += 1;
        let line = |index: usize| format!("{:08}\n", (index + self.round as usize * 7919) % 100_000_000);
        let mut failures = BTreeMap::new();
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if let Err(error) = connection.stream.write_all(line(index).as_bytes()) {
                failures.insert(index, error);
            }
        }
        for (index, connection) in self.connections.iter_mut().enumerate() {
            if failures.contains_key(&index) {
                continue;
            }
            let limit = ROUND_LIMIT.saturating_sub(begun.elapsed()).max(READ_LIMIT_MIN);
            if let Err(error) = connection.expect(&line(index), limit) {
                failures.insert(index, error);
            }
        }
        self.longest_round = self.longest_round.max(begun.elapsed());
        self.let_go(|index, _| failures.remove(&index))
    }

    /// Lets go of the connections of a backend that was killed. None of them may still be answered: that would be by
    /// another backend. Returns how many there were.
    pub(crate) fn bury(&mut self, backend: &str) -> Result<usize, LabError> {
        let dead = self.let_go(|_, connection| {
            (connection.backend == backend).then(|| connection.last_word().err().unwrap_or_else(answered))
        });
        match dead.iter().find(|broken| broken.error.to_string() == answered().to_string()) {
            Some(broken) => Err(LabError::system(format!("bury the connection from {}", broken.client))(answered())),
            None => Ok(dead.len()),
        }
    }

    fn let_go(&mut self, mut reason: impl FnMut(usize, &mut Connection) -> Option<io::Error>) -> Vec<Broken> {
        let mut broken = Vec::new();
        let mut kept = Vec::with_capacity(self.connections.len());
        for (index, mut connection) in self.connections.drain(..).enumerate() {
            match reason(index, &mut connection) {
                None => kept.push(connection),
                Some(error) => broken.push(Broken { client: connection.client, backend: connection.backend, error }),
            }
        }
        self.connections = kept;
        broken
    }
}

fn answered() -> io::Error {
    io::Error::other("it got an answer though its backend is dead")
}

impl Connection {
    fn open((transport, family): (Transport, Family)) -> io::Result<Self> {
        let mut stream = sockets::connect_by(transport, VIP.service(family), CONNECT_LIMIT)?;
        sockets::keep_alive(&stream)?;
        let backend = read_greeting(&mut stream)?;
        Ok(Self { client: canonical(stream.local_addr()?), backend, transport, stream })
    }

    fn expect(&mut self, line: &str, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))?;
        let mut received = [0; LINE_BYTES];
        self.stream.read_exact(&mut received)?;
        if received == line.as_bytes() { Ok(()) } else { Err(io::Error::other("the echo is not what was sent")) }
    }

    /// Sends a line to a dead backend and looks whether anything has come back yet.
    fn last_word(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        self.stream.write_all(b"anybody?\n")?;
        match self.stream.read(&mut [0; LINE_BYTES])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
