//! A line with a length: what it takes at one end leaves at the other a fixed time later, in order.
//!
//! Its ends are two interfaces in a namespace of its own, whose frames threads carry over by packet sockets; the kernel
//! has nothing that delays. Frames are never reordered or changed. What does not fit is lost, and counted.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use etherparse::{SlicedPacket, TransportSlice};
use nix::errno::Errno;

use crate::{
    LabError,
    link_end::{FRAME_BYTES_MAX, Frames, LinkEnd},
    namespace::Namespace,
};

/// Frames that are on their way in one direction: with 50 ms and full-sized frames, 15 Gbit/s.
pub const FRAMES_MAX: usize = 1 << 16;

/// How often, and after how long, a frame is sent again for which the kernel had no room: for a tenth of a second.
const NO_ROOM_ATTEMPTS: usize = 1000;
const NO_ROOM_PAUSE: Duration = Duration::from_micros(100);

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
    /// Joins each pair of interfaces in `namespace`; each direction takes `delay`. SYNs without ACK come twice, if
    /// `duplicates_syns`.
    pub(crate) fn start(
        namespace: &Namespace,
        pairs: &[[String; 2]],
        delay: Duration,
        duplicates_syns: bool,
    ) -> Result<Self, LabError> {
        let mut line = Self { namespace: namespace.clone(), counts: Arc::default(), threads: Vec::new() };
        for [one, other] in pairs {
            for (from, to) in [(one, other), (other, one)] {
                let cannot = format!("carry frames from {from} to {to} in {}", namespace.name());
                let [from, to] = namespace
                    .run(|| Ok([LinkEnd::open(from, Frames::Received)?, LinkEnd::open(to, Frames::None)?]))?
                    .map_err(LabError::system::<io::Error>(cannot))?;
                line.carry(from, to, delay, duplicates_syns);
            }
        }
        Ok(line)
    }

    fn carry(&mut self, from: LinkEnd, to: LinkEnd, delay: Duration, duplicates_syns: bool) {
        let (sender, receiver) = sync_channel(FRAMES_MAX);
        let counts = Arc::clone(&self.counts);
        self.threads.push(thread::spawn(move || take(&from, &sender, delay, duplicates_syns, &counts)));
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

fn take(from: &LinkEnd, sender: &SyncSender<Held>, delay: Duration, duplicates_syns: bool, counts: &Counts) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    while !counts.ended.load(Ordering::Relaxed) {
        let length = match from.receive(&mut buffer) {
            Ok(Some(length)) => length,
            Ok(None) => continue,
            // The interface goes down when its lab goes.
            Err(_) => return,
        };
        let (due, frame) = (Instant::now() + delay, &buffer[..length]);
        let copies = if duplicates_syns && opens(frame) { 2 } else { 1 };
        for _ in 0..copies {
            if hold(Held { due, frame: frame.to_vec() }, sender, counts).is_err() {
                return;
            }
        }
    }
}

/// Whether a frame opens a TCP connection or a subflow.
fn opens(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.transport);
    matches!(packet, Some(TransportSlice::Tcp(tcp)) if tcp.syn() && !tcp.ack())
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

fn deliver(to: &LinkEnd, receiver: &Receiver<Held>, counts: &Counts) {
    while let Ok(Held { due, frame }) = receiver.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let count = if sent(to, &frame) { &counts.carried } else { &counts.lost };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a frame has left. One that the kernel has no room for waits a while: what is at the other end had no time.
fn sent(to: &LinkEnd, frame: &[u8]) -> bool {
    for _ in 0..NO_ROOM_ATTEMPTS {
        match to.send(frame) {
            Ok(()) => return true,
            Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => thread::sleep(NO_ROOM_PAUSE),
            Err(_) => return false,
        }
    }
    false
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
