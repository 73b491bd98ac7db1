//! Who reads and forges handshakes on the client's first path. It has an address of its own there, of which no kernel knows,
//! so that nobody resets what it begins.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::frames::{Answer, Forged, Key, answer, echoed_key};
use crate::{
    Lab, LabError,
    addresses::{SERVICE_PORT, VIP},
    link_end::{FRAME_BYTES_MAX, Frames, LinkEnd, ethernet},
};

/// The client's interface on its first path, and the router's.
const INTERFACE: &str = "eth0";
const ROUTER_SIDE: &str = "path1";
/// In the network of that path.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 66);
/// A network that is nowhere.
const SPOOFED_NETWORK: [u8; 3] = [198, 18, 0];
const FIRST_PORT: u16 = 20_000;
/// Of its honest connection.
const OWN_PORT: u16 = FIRST_PORT - 1;
const ISN: u32 = 0x1000;
/// A SYN/ACK is there in this time, or the SYN is sent again.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
const TRIES: usize = 8;
/// So many frames without a pause fit the queues on their way.
const BURST: usize = 64;
const BURST_PAUSE: Duration = Duration::from_millis(2);

/// See above.
pub(in crate::drill) struct Forger {
    link: LinkEnd,
    ethernet: [[u8; 6]; 2],
}

impl Forger {
    /// Places one beside the lab's client.
    pub(in crate::drill) fn place(lab: &Lab) -> Result<Self, LabError> {
        let link = lab.client.namespace.run(|| LinkEnd::open(INTERFACE, Frames::Received))?;
        let link = link.map_err(LabError::system("listen on the client's path"))?;
        let own = link.ethernet().ok_or_else(|| unexpected("no Ethernet address"))?;
        let router = &lab.router.namespace;
        let printed = router.output("ip", &["-json", "link", "show", "dev", ROUTER_SIDE])?;
        let links: serde_json::Value = serde_json::from_str(&printed).map_err(|_| unexpected(&printed))?;
        let address = links[0]["address"].as_str().and_then(ethernet).ok_or_else(|| unexpected(&printed))?;
        let own_text = own.map(|byte| format!("{byte:02x}")).join(":");
        router.ip_batch(&format!("neigh replace {ADDRESS} lladdr {own_text} dev {ROUTER_SIDE}\n"))?;
        Ok(Self { link, ethernet: [own, address] })
    }

    /// Completes a handshake with a backend for each of these keys, and echoes it instead of the backend's. Returns how many
    /// were answered.
    pub(super) fn echo(&self, keys: &[Key]) -> io::Result<usize> {
        let mut answered = 0;
        for (port, key) in (FIRST_PORT..).zip(keys) {
            let forged = self.flow(SocketAddrV4::new(ADDRESS, port));
            if let Some(answer) = self.begin(&forged)? {
                self.link.send(&forged.third(*key, &answer))?;
                answered += 1;
            }
        }
        Ok(answered)
    }

    /// Opens a connection as an honest client does; the client's end, if a backend answered with a key.
    pub(in crate::drill) fn connect(&self) -> io::Result<Option<SocketAddr>> {
        let client = SocketAddrV4::new(ADDRESS, OWN_PORT);
        let forged = self.flow(client);
        let Some(answer @ Answer { key: Some(key), .. }) = self.begin(&forged)? else { return Ok(None) };
        self.link.send(&forged.third(key, &answer))?;
        Ok(Some(client.into()))
    }

    /// Sends a SYN until it is answered.
    fn begin(&self, forged: &Forged) -> io::Result<Option<Answer>> {
        let mut buffer = [0; FRAME_BYTES_MAX];
        for _ in 0..TRIES {
            self.link.send(&forged.syn())?;
            let deadline = Instant::now() + ANSWER_LIMIT;
            while Instant::now() < deadline {
                let Some(length) = self.link.receive(&mut buffer)? else { continue };
                if let Some(answer) = answer(&buffer[..length])
                    && answer.port == forged.client.port()
                {
                    return Ok(Some(answer));
                }
            }
        }
        Ok(None)
    }

    /// Sends third packets of handshakes that never began, from an address that is nowhere.
    pub(super) fn spoof(&self, keys: &[Key], count: usize) -> io::Result<()> {
        self.flood(count, |index, forged| vec![forged.third(keys[index % keys.len()], &Answer::default())])
    }

    /// Sends SYNs, and third packets that go with them, each with a key that nobody has.
    pub(super) fn pretend(&self, count: usize) -> io::Result<()> {
        let key = |index: usize| (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        self.flood(count, |index, forged| vec![forged.syn(), forged.third(key(index), &Answer::default())])
    }

    /// Sends joins with a token from one address, `rate` of them in a second, until `ended`. Returns how many.
    pub(in crate::drill) fn spray(&self, token: u32, rate: u32, ended: &AtomicBool) -> io::Result<u64> {
        let (begun, mut sent) = (Instant::now(), 0_u64);
        while !ended.load(Ordering::Relaxed) {
            let due =
                u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX).saturating_mul(rate.into()) / 1_000_000;
            while sent < due {
                let port = FIRST_PORT + u16::try_from(sent % 40_000).unwrap_or(0);
                self.link.send(&self.flow(SocketAddrV4::new(ADDRESS, port)).join(token))?;
                sent += 1;
            }
            thread::sleep(BURST_PAUSE);
        }
        Ok(sent)
    }

    fn flood(&self, count: usize, frames: impl Fn(usize, &Forged) -> Vec<Vec<u8>>) -> io::Result<()> {
        let [a, b, c] = SPOOFED_NETWORK;
        for index in 0..count {
            // Each has another port, and every 50,000 another address.
            let (host, port) = (index / 50_000 + 1, index % 50_000 + 1024);
            let ip = Ipv4Addr::new(a, b, c, u8::try_from(host).unwrap_or(u8::MAX));
            let client = SocketAddrV4::new(ip, u16::try_from(port).unwrap_or(u16::MAX));
            for frame in frames(index, &self.flow(client)) {
                self.link.send(&frame)?;
            }
            if index % BURST == BURST - 1 {
                thread::sleep(BURST_PAUSE);
            }
        }
        Ok(())
    }

    fn flow(&self, client: SocketAddrV4) -> Forged {
        Forged { ethernet: self.ethernet, client, vip: SocketAddrV4::new(VIP.v4, SERVICE_PORT), isn: ISN }
    }
}

/// Reads the servers' keys in what the lab's client sends, while `work` goes on.
pub(super) fn overhear<T>(
    lab: &Lab,
    work: impl FnOnce() -> Result<T, LabError>,
) -> Result<(T, BTreeSet<Key>), LabError> {
    let link = lab.client.namespace.run(|| LinkEnd::open(INTERFACE, Frames::Sent))?;
    let link = link.map_err(LabError::system("listen to the client"))?;
    let ended = AtomicBool::new(false);
    let listen = || -> io::Result<BTreeSet<Key>> {
        let (mut keys, mut buffer) = (BTreeSet::new(), [0; FRAME_BYTES_MAX]);
        loop {
            // What is still in its queue is heard too.
            let is_over = ended.load(Ordering::Acquire);
            match link.receive(&mut buffer)? {
                Some(length) => keys.extend(echoed_key(&buffer[..length])),
                None if is_over => return Ok(keys),
                None => {}
            }
        }
    };
    thread::scope(|scope| {
        let listener = scope.spawn(listen);
        let done = work();
        ended.store(true, Ordering::Release);
        let keys = listener.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((done?, keys.map_err(LabError::system("listen to the client"))?))
    })
}

fn unexpected(line: &str) -> LabError {
    LabError::Output { program: "ip", line: line.to_owned() }
}
