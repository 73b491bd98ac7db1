//! Numbered datagrams through the balancer, one after the other on each of some flows, and who has received which: sent
//! and received by the kernels' sockets. A number that no backend has is a packet lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::{
    Client, Lab, LabError,
    addresses::{Family, VIP},
    wait,
};

/// Flows: every other one over IPv6.
const FLOWS: usize = 48;
/// The time between two datagrams of a flow.
const PACE: Duration = Duration::from_millis(20);
/// How long the last datagrams may be under way on a busy machine.
const ARRIVAL_LIMIT: Duration = Duration::from_secs(10);
/// How often a receiver looks whether it is to end.
const STOP_INTERVAL: Duration = Duration::from_millis(50);
/// A receiver that does not get its turn for a while loses nothing.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;
/// Flow and number.
const LENGTH: usize = 16;

/// What became of the datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sent: u64,
    /// Those that no backend has received.
    pub(super) lost: u64,
    /// Those of them whose flow was at the killed backend.
    pub(super) lost_of_killed: u64,
}

/// What a flow's datagrams were received by.
#[derive(Debug, Default, Clone)]
struct Received {
    numbers: BTreeSet<u64>,
    /// The backend of the first, counted from 0.
    first: Option<usize>,
}

/// A stream that runs until it is ended; dropping it ends it too.
#[derive(Debug)]
pub(super) struct Datagrams {
    stop_sending: Arc<AtomicBool>,
    stop_receiving: Arc<AtomicBool>,
    sender: Option<JoinHandle<io::Result<Vec<u64>>>>,
    receivers: Vec<JoinHandle<()>>,
    received: Arc<Mutex<BTreeMap<u64, Received>>>,
}

impl Datagrams {
    /// Starts receivers on all backends, and then the sender.
    pub(super) fn start(lab: &Lab) -> Result<Self, LabError> {
        let mut stream = Self {
            stop_sending: Arc::default(),
            stop_receiving: Arc::default(),
            sender: None,
            receivers: Vec::new(),
            received: Arc::default(),
        };
        for (index, backend) in lab.backends.iter().enumerate() {
            for family in [Family::V4, Family::V6] {
                let socket = backend.namespace.run(|| receiving(VIP.service(family)))?;
                let socket = socket.map_err(LabError::system(format!("receive datagrams on {}", backend.name)))?;
                let (stop, received) = (Arc::clone(&stream.stop_receiving), Arc::clone(&stream.received));
                stream.receivers.push(thread::spawn(move || receive(&socket, index, &received, &stop)));
            }
        }
        let sockets = open(&lab.client)?;
        let stop = Arc::clone(&stream.stop_sending);
        stream.sender = Some(thread::spawn(move || send(&sockets, &stop)));
        Ok(stream)
    }

    /// Waits until every flow is being received.
    pub(super) fn wait_until_received(&self) -> Result<(), LabError> {
        wait::until("every flow of datagrams arrives", ARRIVAL_LIMIT, || {
            Ok((self.received().len() == FLOWS).then_some(()))
        })
    }

    /// Ends the sender, waits for what is under way, and says what became of all. `killed` is the backend that was
    /// killed, counted from 0.
    pub(super) fn end(mut self, killed: Option<usize>) -> Result<Tally, LabError> {
        self.stop_sending.store(true, Ordering::Relaxed);
        let sent = match self.sender.take().map(JoinHandle::join) {
            Some(Ok(sent)) => sent.map_err(LabError::system("send datagrams"))?,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Vec::new(),
        };
        let tally = || tally(&sent, &self.received(), killed);
        let arrived = wait::until("all datagrams arrive", ARRIVAL_LIMIT, || {
            let Tally { lost, lost_of_killed, .. } = tally();
            Ok((lost == lost_of_killed).then_some(()))
        });
        match arrived {
            Ok(()) | Err(LabError::Deadline { .. }) => Ok(tally()),
            Err(error) => Err(error),
        }
    }

    fn received(&self) -> BTreeMap<u64, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop_sending.store(true, Ordering::Relaxed);
        self.stop_receiving.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let _ = sender.join();
        }
        for receiver in self.receivers.drain(..) {
            let _ = receiver.join();
        }
    }
}

fn tally(sent: &[u64], received: &BTreeMap<u64, Received>, killed: Option<usize>) -> Tally {
    let mut tally = Tally::default();
    for (flow, &count) in (0..).zip(sent) {
        let flow = received.get(&flow).cloned().unwrap_or_default();
        let lost = count - flow.numbers.len() as u64;
        tally.sent += count;
        tally.lost += lost;
        if killed.is_some() && flow.first == killed {
            tally.lost_of_killed += lost;
        }
    }
    tally
}

fn receiving(service: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(service)?;
    socket.set_read_timeout(Some(STOP_INTERVAL))?;
    setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
    Ok(socket)
}

fn receive(socket: &UdpSocket, backend: usize, received: &Mutex<BTreeMap<u64, Received>>, stop: &AtomicBool) {
    let mut datagram = [0; LENGTH];
    while !stop.load(Ordering::Relaxed) {
        let Ok(LENGTH) = socket.recv(&mut datagram) else { continue };
        let (flow, number) = parse(datagram);
        let mut received = received.lock().unwrap_or_else(PoisonError::into_inner);
        let flow = received.entry(flow).or_default();
        flow.numbers.insert(number);
        flow.first.get_or_insert(backend);
    }
}

fn open(client: &Client) -> Result<Vec<UdpSocket>, LabError> {
    let open = |index: usize| -> io::Result<UdpSocket> {
        let (any, family): (SocketAddr, _) = match index % 2 {
            0 => (([0; 4], 0).into(), Family::V4),
            _ => (([0_u16; 8], 0).into(), Family::V6),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(VIP.service(family))?;
        Ok(socket)
    };
    let opened = client.namespace.run(|| (0..FLOWS).map(open).collect::<io::Result<Vec<_>>>())?;
    opened.map_err(LabError::system("send datagrams"))
}

/// Sends on every flow in turn; returns how many on each.
fn send(sockets: &[UdpSocket], stop: &AtomicBool) -> io::Result<Vec<u64>> {
    let mut sent = vec![0; sockets.len()];
    while !stop.load(Ordering::Relaxed) {
        for ((flow, socket), sent) in (0..).zip(sockets).zip(&mut sent) {
            socket.send(&written(flow, *sent))?;
            *sent += 1;
        }
        thread::sleep(PACE);
    }
    Ok(sent)
}

fn written(flow: u64, number: u64) -> [u8; LENGTH] {
    let mut datagram = [0; LENGTH];
    datagram[..8].copy_from_slice(&flow.to_be_bytes());
    datagram[8..].copy_from_slice(&number.to_be_bytes());
    datagram
}

fn parse(datagram: [u8; LENGTH]) -> (u64, u64) {
    let number = u128::from_be_bytes(datagram);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    let halves = ((number >> 64) as u64, number as u64);
    halves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_nobody_has_is_lost_and_one_that_came_twice_is_not() {
        let mut received: BTreeMap<u64, Received> = BTreeMap::new();
        for (flow, number, backend) in [(0, 0, 1), (0, 2, 1), (0, 2, 0), (1, 0, 0)] {
            assert_eq!(parse(written(flow, number)), (flow, number));
            let flow = received.entry(flow).or_default();
            flow.numbers.insert(number);
            flow.first.get_or_insert(backend);
        }
        let tally = |killed| tally(&[3, 2, 1], &received, killed);
        assert_eq!(tally(None), Tally { sent: 6, lost: 3, lost_of_killed: 0 });
        assert_eq!(tally(Some(1)), Tally { sent: 6, lost: 3, lost_of_killed: 1 });
    }
}
