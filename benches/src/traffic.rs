//! Real MPTCP connections from the client to the VIPs, over the kernel's own sockets. What becomes
//! of them is for [`crate::oracle`] to say; a connection knows only what its own socket sees.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use crate::{
    Client, LabError,
    addresses::{Family, VIP},
    sockets,
};

/// How long each step of opening a connection may take: three SYNs (1 s and 2 s apart) and a bit.
const STEP_LIMIT: Duration = Duration::from_secs(5);
const GREETING_MAX_BYTES: usize = 64;
const LINE: &[u8; 5] = b"ping\n";

/// How a connection comes about: its family, and the family of its joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mix {
    /// IPv4, joined from path two.
    V4,
    /// IPv6, joined from path two.
    V6,
    /// IPv4, joined from path two and, at the IPv6 VIP that the backend announces, over IPv6.
    V4JoinedOverV6,
}

impl Mix {
    /// The mix of the `index`th connection: the families alternate, and every other IPv4 one is
    /// joined over IPv6 too.
    pub const fn alternating(index: usize) -> Self {
        match index % 4 {
            0 => Self::V4,
            2 => Self::V4JoinedOverV6,
            _ => Self::V6,
        }
    }

    /// The family of the first subflow.
    pub const fn family(self) -> Family {
        match self {
            Self::V4 | Self::V4JoinedOverV6 => Family::V4,
            Self::V6 => Family::V6,
        }
    }

    /// How many further subflows the client's kernel will try.
    pub const fn joins(self) -> u64 {
        match self {
            Self::V4 | Self::V6 => 1,
            Self::V4JoinedOverV6 => 2,
        }
    }

    /// Linux joins over IPv6 only what was opened by an IPv6 socket, be it to an IPv4-mapped address.
    pub(crate) fn destination(self) -> SocketAddr {
        let service = VIP.service(self.family());
        match (self, service.ip()) {
            (Self::V4JoinedOverV6, IpAddr::V4(v4)) => (v4.to_ipv6_mapped(), service.port()).into(),
            _ => service,
        }
    }
}

/// An open connection; dropping it resets it.
#[derive(Debug)]
pub struct Connection {
    /// How it came about.
    pub mix: Mix,
    /// The client's end of the first subflow.
    pub client: SocketAddr,
    /// The name of the backend that answered.
    pub backend: String,
    stream: TcpStream,
}

impl Connection {
    /// Opens a connection and exchanges a few bytes on it.
    ///
    /// # Errors
    ///
    /// If it is refused or nothing (or something else) comes back in time.
    pub fn open(client: &Client, mix: Mix) -> Result<Self, LabError> {
        Self::open_to(client, mix, mix.destination())
    }

    /// The same to another destination of the mix's family.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn open_to(client: &Client, mix: Mix, destination: SocketAddr) -> Result<Self, LabError> {
        let opened = client.namespace.run(|| -> io::Result<Self> {
            let stream = sockets::connect(destination, STEP_LIMIT)?;
            let mut connection = Self { mix, client: canonical(stream.local_addr()?), backend: String::new(), stream };
            connection.backend = read_greeting(&mut connection.stream)?;
            connection.exchange()?;
            Ok(connection)
        })?;
        opened.map_err(LabError::system(format!("use a connection to {destination}")))
    }

    /// Sends a line and waits for its echo.
    ///
    /// # Errors
    ///
    /// If the connection has ended, or the echo does not come or is not what was sent.
    pub fn exchange(&mut self) -> io::Result<()> {
        self.say()?;
        self.hear()
    }

    /// Sends a line.
    ///
    /// # Errors
    ///
    /// If the connection has ended.
    pub fn say(&mut self) -> io::Result<()> {
        self.stream.write_all(LINE)
    }

    /// Waits for the echo of a line.
    ///
    /// # Errors
    ///
    /// As [`Self::exchange`].
    pub fn hear(&mut self) -> io::Result<()> {
        let mut received = [0; LINE.len()];
        self.stream.read_exact(&mut received)?;
        if &received == LINE {
            return Ok(());
        }
        Err(io::Error::other("the echo is not what was sent"))
    }

    /// Has the kernel probe its idle subflows.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn keep_alive(&self) -> io::Result<()> {
        sockets::keep_alive(&self.stream)
    }

    /// Lets each further read take so long.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, as it does a limit of nothing.
    pub fn limit_reads(&self, limit: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(limit))
    }

    /// Sends many bytes and waits for their echo, at the same time.
    ///
    /// # Errors
    ///
    /// As [`Self::exchange`].
    pub fn transfer(&mut self, bytes: usize) -> io::Result<()> {
        let sent: Vec<u8> = (0..=250).cycle().take(bytes).collect();
        let mut received = vec![0; bytes];
        let mut writing = self.stream.try_clone()?;
        thread::scope(|scope| {
            let writer = scope.spawn(|| writing.write_all(&sent));
            self.stream.read_exact(&mut received)?;
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        if received == sent {
            return Ok(());
        }
        Err(io::Error::other("the echo is not what was sent"))
    }
}

/// The first line that the service sends: the backend's name.
pub(crate) fn read_greeting(stream: &mut TcpStream) -> io::Result<String> {
    let mut name = String::new();
    let mut byte = [0];
    while name.len() < GREETING_MAX_BYTES {
        stream.read_exact(&mut byte)?;
        match byte[0] {
            b'\n' => return Ok(name),
            other => name.push(char::from(other)),
        }
    }
    Err(io::Error::other("the greeting does not end"))
}

/// IPv4-mapped addresses as the IPv4 that is on the wire.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
