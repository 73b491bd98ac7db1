//! A line with a length: what it takes at one end leaves at the other a fixed time later, in order.
//!
//! Its ends are two interfaces in a namespace of its own, whose frames threads carry over by packet sockets; the kernel
//! has nothing that delays. Frames are never reordered or changed. What does not fit is lost, and counted.

use std::{
    io,
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    ifaddrs::getifaddrs,
    sys::socket::{LinkAddr, bind, recvfrom, setsockopt, sockopt::RcvBufForce},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{LabError, namespace::Namespace};

/// Frames that are on their way in one direction: with 50 ms and full-sized frames, 15 Gbit/s.
pub const FRAMES_MAX: usize = 1 << 16;
/// What the kernel keeps for a thread that does not run.
const RECEIVE_BUFFER_BYTES: usize = 32 << 20;
/// How soon a thread notices that the line is gone.
const PATIENCE: Duration = Duration::from_millis(100);
/// More than any frame on a client's path.
const FRAME_BYTES_MAX: usize = 4096;
/// The kernel's mark of a frame that this end itself sends (`packet(7)`).
const PACKET_OUTGOING: u8 = 4;
const ETH_P_ALL: u16 = 3;

/// What a line has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineTally {
    /// Frames that left it.
    pub carried: u64,
    /// Frames for which there was no room, here or in the kernel's queue.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Counts {
    carried: AtomicU64,
    lost: AtomicU64,
    ended: AtomicBool,
}

/// Running lines, which end with this.
#[derive(Debug)]
pub struct DelayLine {
    namespace: Namespace,
    counts: Arc<Counts>,
    threads: Vec<JoinHandle<()>>,
}

impl DelayLine {
    /// Joins each pair of interfaces in `namespace`; each direction takes `delay`.
    pub(crate) fn start(namespace: &Namespace, pairs: &[[String; 2]], delay: Duration) -> Result<Self, LabError> {
        let mut line = Self { namespace: namespace.clone(), counts: Arc::default(), threads: Vec::new() };
        for [one, other] in pairs {
            for (from, to) in [(one, other), (other, one)] {
                let cannot = format!("carry frames from {from} to {to} in {}", namespace.name());
                let [from, to] = namespace
                    .run(|| Ok([End::open(from, ETH_P_ALL)?, End::open(to, 0)?]))?
                    .map_err(LabError::system::<io::Error>(cannot))?;
                line.carry(from, to, delay);
            }
        }
        Ok(line)
    }

    fn carry(&mut self, from: End, to: End, delay: Duration) {
        let (sender, receiver) = sync_channel(FRAMES_MAX);
        let counts = Arc::clone(&self.counts);
        self.threads.push(thread::spawn(move || take(&from, &sender, delay, &counts)));
        let counts = Arc::clone(&self.counts);
        self.threads.push(thread::spawn(move || deliver(&to, &receiver, &counts)));
    }

    /// What it has done so far; what the kernel's queues had no room for is told by `ss`.
    ///
    /// # Errors
    ///
    /// If `ss` fails.
    pub fn tally(&self) -> Result<LineTally, LabError> {
        let printed = self.namespace.output("ss", &["-0nmH"])?;
        let dropped = printed.split(|letter: char| !letter.is_ascii_alphanumeric());
        let dropped = dropped.filter_map(|word| word.strip_prefix('d')?.parse::<u64>().ok());
        Ok(LineTally {
            carried: self.counts.carried.load(Ordering::Relaxed),
            lost: self.counts.lost.load(Ordering::Relaxed) + dropped.sum::<u64>(),
        })
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.counts.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A frame, and when it leaves.
struct Held {
    due: Instant,
    frame: Vec<u8>,
}

/// The other thread of a direction has ended.
#[derive(Debug)]
struct Disconnected;

/// One end of a line.
struct End {
    socket: Socket,
    interface: usize,
}

impl End {
    /// Opens a packet socket on an interface of the present namespace that receives `protocol`.
    fn open(interface: &str, protocol: u16) -> io::Result<Self> {
        let address = link_address(interface)?;
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol.to_be()))))?;
        setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER_BYTES)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket, interface: address.ifindex() })
    }

    /// The next frame that comes in by the interface; none if none comes for a while.
    fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), buffer) {
            // Before it was bound, the socket received from every interface.
            Ok((length, Some(from))) if from.ifindex() == self.interface && from.pkttype() != PACKET_OUTGOING => {
                Ok(Some(length))
            }
            Ok(_) => Ok(None),
            Err(errno) => match io::Error::from(errno) {
                error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
                error => Err(error),
            },
        }
    }
}

fn link_address(interface: &str) -> io::Result<LinkAddr> {
    let mut addresses = getifaddrs()?.filter(|entry| entry.interface_name == interface);
    let found = addresses.find_map(|entry| entry.address?.as_link_addr().copied());
    found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no interface {interface}")))
}

fn take(from: &End, sender: &SyncSender<Held>, delay: Duration, counts: &Counts) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while !counts.ended.load(Ordering::Relaxed) {
        let length = match from.receive(&mut buffer) {
            Ok(Some(length)) => length,
            Ok(None) => continue,
            // The interface goes down when its lab goes.
            Err(_) => return,
        };
        let held = Held { due: Instant::now() + delay, frame: buffer[..length].to_vec() };
        if hold(held, sender, counts).is_err() {
            return;
        }
    }
}

/// Lets a frame wait its time, or counts it if there is no room. Fails if nobody delivers any more.
fn hold(held: Held, sender: &SyncSender<Held>, counts: &Counts) -> Result<(), Disconnected> {
    match sender.try_send(held) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_)) => {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Err(TrySendError::Disconnected(_)) => Err(Disconnected),
    }
}

fn deliver(to: &End, receiver: &Receiver<Held>, counts: &Counts) {
    while let Ok(Held { due, frame }) = receiver.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let count = if to.socket.send(&frame).is_ok() { &counts.carried } else { &counts.lost };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_counted() {
        let (counts, (sender, receiver)) = (Counts::default(), sync_channel(2));
        let frame = |number| Held { due: Instant::now(), frame: vec![number] };
        for number in 1..=5 {
            hold(frame(number), &sender, &counts).expect("there is a receiver");
        }
        assert_eq!(receiver.try_iter().map(|held| held.frame).collect::<Vec<_>>(), [[1], [2]]);
        assert_eq!(counts.lost.load(Ordering::Relaxed), 3);
        drop(receiver);
        hold(frame(6), &sender, &counts).expect_err("there is none");
    }
}
