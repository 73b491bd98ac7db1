//! UDP through the lab: a service that echoes each datagram behind its name, and flows of a client. Kernel sockets at both
//! ends; nothing here knows what a balancer does.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{Client, LabError, namespace::Namespace};

/// How long a flow waits for an echo. A datagram that is lost is not sent again.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often a service looks whether it is to end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
const DATAGRAM_MAX_BYTES: usize = 65_536;

/// A running UDP service. Dropping it ends it.
#[derive(Debug)]
pub struct UdpEcho {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl UdpEcho {
    /// Serves on `addresses` inside `namespace`: each answers as itself.
    ///
    /// # Errors
    ///
    /// If it cannot have one of them.
    pub fn start(namespace: &Namespace, name: &str, addresses: &[SocketAddr]) -> Result<Self, LabError> {
        let mut service = Self { stop: Arc::default(), threads: Vec::new() };
        for &address in addresses {
            let cannot = || format!("serve UDP on {address} in {}", namespace.name());
            let socket = namespace.run(|| UdpSocket::bind(address))?.map_err(LabError::system(cannot()))?;
            socket.set_read_timeout(Some(STOP_INTERVAL)).map_err(LabError::system(cannot()))?;
            let (stop, greeting) = (Arc::clone(&service.stop), format!("{name}\n"));
            let thread = thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || echo(&socket, greeting.as_bytes(), &stop))
                .map_err(LabError::system(cannot()))?;
            service.threads.push(thread);
        }
        Ok(service)
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A datagram that cannot be read or answered is lost, as on any network.
fn echo(socket: &UdpSocket, greeting: &[u8], stop: &AtomicBool) {
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[greeting, &buffer[..length]].concat(), client);
        }
    }
}

/// A client's flow: one socket, one service.
#[derive(Debug)]
pub struct UdpFlow {
    socket: UdpSocket,
    /// Of the datagrams sent so far.
    count: u64,
}

impl UdpFlow {
    /// A flow to `service`. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If the client has no way there.
    pub fn new(client: &Client, service: SocketAddr) -> Result<Self, LabError> {
        let any: SocketAddr = if service.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = client.namespace.run(|| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(any)?;
            socket.connect(service)?;
            socket.set_read_timeout(Some(ANSWER_LIMIT))?;
            Ok(socket)
        })?;
        Ok(Self { socket: socket.map_err(LabError::system(format!("send to {service}")))?, count: 0 })
    }

    /// Where it goes.
    ///
    /// # Panics
    ///
    /// Never: the socket is connected.
    pub fn service(&self) -> SocketAddr {
        self.socket.peer_addr().expect("the socket is connected")
    }

    /// Sends a datagram of `length` bytes (8 at least), and returns the name of the backend that echoed it.
    ///
    /// # Errors
    ///
    /// If no echo comes in time, or it is not what was sent.
    pub fn exchange(&mut self, length: usize) -> io::Result<String> {
        self.count += 1;
        let mut sent = self.count.to_be_bytes().to_vec();
        sent.extend((0..=250).cycle().take(length.saturating_sub(sent.len())));
        self.exchange_bytes(&sent)
    }

    /// Sends a datagram of these bytes, likewise.
    ///
    /// # Errors
    ///
    /// As [`Self::exchange`].
    pub fn exchange_bytes(&mut self, sent: &[u8]) -> io::Result<String> {
        self.socket.send(sent)?;
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        let length = self.socket.recv(&mut buffer)?;
        let wrong = || io::Error::other("the echo is not what was sent");
        let (name, echo) = buffer[..length]
            .split_at_checked(buffer.iter().position(|&b| b == b'\n').ok_or_else(wrong)?)
            .ok_or_else(wrong)?;
        if &echo[1..] != sent {
            return Err(wrong());
        }
        String::from_utf8(name.to_vec()).map_err(io::Error::other)
    }
}
