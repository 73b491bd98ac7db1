//! The client: so many connections at a time, each of which does what it is for and is followed by another. One thread in
//! the client's namespace; it opens sockets and counts what they say, and knows nothing of what is between.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::Domain;
use tokio::{
    net::{TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    content::{Content, File},
    http::{Answer, Body, Next, Session},
    plan::{DATAGRAM_INTERVAL, Part, Plan, Scenario, Size},
    tally::{Echo, Tally},
};
use crate::{
    addresses::VIP,
    sockets::{self, Transport},
};

/// The first connections begin over this time, not all at once.
const RAMP: Duration = Duration::from_secs(1);
/// Three SYNs (1 s, 2 s and 4 s apart) and a bit.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// After a failure: what refuses everybody is not asked a thousand times a second.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// What has begun is done in this time.
const FINISH_LIMIT: Duration = Duration::from_secs(40);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// A datagram's echo is there in this time, or it is lost.
const ECHO_LIMIT: Duration = Duration::from_secs(3);
const DATAGRAM_BYTES: usize = 600;
const NAME_BYTES_MAX: usize = 64;

/// What the client is to do.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) scenario: Scenario,
    /// At a time.
    pub(super) connections: usize,
    pub(super) seed: u64,
    pub(super) content: Arc<Content>,
    pub(super) tally: Arc<Tally>,
    /// No further connection begins.
    pub(super) closing: AtomicBool,
    /// Whatever is open is dropped.
    pub(super) aborted: AtomicBool,
    pub(super) next: AtomicU64,
    pub(super) begun: Instant,
}

/// Runs until `closing`, and until what has begun is done.
pub(super) fn run(task: &Arc<Task>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut slots = JoinSet::new();
        for slot in 0..task.connections {
            slots.spawn(fill(Arc::clone(task), slot));
        }
        tokio::select! {
            () = async { while slots.join_next().await.is_some() {} } => {}
            () = overdue(task) => task.tally.give_up(),
        }
    });
    Ok(())
}

/// One connection after the other.
async fn fill(task: Arc<Task>, slot: usize) {
    let shares = u32::try_from(task.connections).unwrap_or(u32::MAX);
    sleep(RAMP / shares * u32::try_from(slot).unwrap_or(0)).await;
    while !task.closing.load(Ordering::Relaxed) {
        let number = task.next.fetch_add(1, Ordering::Relaxed);
        let plan = task.scenario.plan(task.seed, number);
        let (kind, mix, begun) = (plan.kind(), plan.mix, Instant::now());
        task.tally.opens(kind);
        let (mut owner, at_s) = (None, (begun - task.begun).as_secs_f64());
        let outcome = task.play(plan, slot, &mut owner).await;
        let failed = outcome.is_err();
        task.tally.closed(outcome.map_err(|error| {
            let (after_s, owner) = (begun.elapsed().as_secs_f64(), owner.as_deref().unwrap_or("nobody"));
            format!(
                "connection {number} ({kind:?}, {mix:?}), opened at {at_s:.2} s and answered by {owner}, failed after \
                 {after_s:.2} s: {error}"
            )
        }));
        if failed {
            sleep(AFTER_FAILURE).await;
        }
    }
}

/// Returns when what is still open must be dropped.
async fn overdue(task: &Task) {
    let mut closing_since = None;
    loop {
        sleep(LOOK_INTERVAL).await;
        if task.closing.load(Ordering::Relaxed) {
            let since = *closing_since.get_or_insert_with(Instant::now);
            if since.elapsed() > FINISH_LIMIT {
                return;
            }
        }
        if task.aborted.load(Ordering::Relaxed) {
            return;
        }
    }
}

impl Task {
    /// Does what the plan says; `owner` is the backend that answered first.
    async fn play(&self, plan: Plan, slot: usize, owner: &mut Option<String>) -> io::Result<()> {
        match plan.part {
            Part::Short(transport) => self.ask(plan, transport, owner).await,
            Part::Long { rounds, size } => self.transfer(plan, rounds, size, slot, owner).await,
            Part::Datagrams { count } => self.send_datagrams(&plan, count, owner).await,
        }
    }

    /// A few small requests.
    async fn ask(&self, mut plan: Plan, transport: Transport, owner: &mut Option<String>) -> io::Result<()> {
        let mut session = self.open(&plan, transport).await?;
        for number in 1..=Plan::requests() {
            let file = &self.content.small[plan.random.below(self.content.small.len())];
            let next = if number == Plan::requests() { Next::Close } else { Next::Another };
            let begun = Instant::now();
            let answer = session.get(&file.path, &file.digest, next).await?;
            self.count(&answer, owner);
            self.tally.counts().requested(begun.elapsed());
            if next == Next::Another {
                sleep(plan.pause()).await;
            }
        }
        session.end().await
    }

    /// Large files, there and back.
    async fn transfer(
        &self,
        mut plan: Plan,
        rounds: usize,
        size: Size,
        slot: usize,
        owner: &mut Option<String>,
    ) -> io::Result<()> {
        let files = match size {
            Size::Medium => &self.content.medium,
            Size::Large => &self.content.large,
        };
        let path = format!("/up/{slot}");
        let mut session = self.open(&plan, Transport::Mptcp).await?;
        for round in 1..=rounds {
            let begun = Instant::now();
            let file = &files[plan.random.below(files.len())];
            let answer = session.get(&file.path, &file.digest, Next::Another).await?;
            self.count(&answer, owner);
            self.tally.counts().transferred(begun.elapsed());
            sleep(plan.pause()).await;
            let next = if round == rounds { Next::Close } else { Next::Another };
            self.put(&mut session, &files[0], &path).await?;
            sleep(plan.pause()).await;
            let begun = Instant::now();
            let answer = session.get(&path, &files[0].digest, next).await?;
            self.tally.counts().transferred(begun.elapsed());
            self.count(&answer, owner);
        }
        session.end().await
    }

    /// Stores a file. What comes back when it is asked for is what the server got.
    async fn put(&self, session: &mut Session, file: &File, path: &str) -> io::Result<()> {
        let begun = Instant::now();
        session.put(path, file).await?;
        let mut counts = self.tally.counts();
        counts.transferred(begun.elapsed());
        counts.bytes += file.bytes.len() as u64;
        Ok(())
    }

    fn count(&self, answer: &Answer, owner: &mut Option<String>) {
        if owner.is_none() {
            self.tally.answered_by(&answer.backend);
            *owner = Some(answer.backend.clone());
        }
        let mut counts = self.tally.counts();
        counts.transfers += 1;
        counts.bytes += answer.bytes;
        counts.corrupted += u64::from(answer.body == Body::Corrupted);
    }

    async fn open(&self, plan: &Plan, transport: Transport) -> io::Result<Session> {
        let destination = match transport {
            Transport::Mptcp => plan.mix.destination(),
            Transport::Tcp => VIP.service(plan.family()),
        };
        let begun = Instant::now();
        let stream = timeout(CONNECT_LIMIT, connect(transport, destination)).await??;
        self.tally.connected(begun.elapsed());
        Session::begin(stream).await
    }

    /// A flow of numbered datagrams. Those that have no echo are lost; one that another backend answers was moved.
    async fn send_datagrams(&self, plan: &Plan, count: usize, owner: &mut Option<String>) -> io::Result<()> {
        let service = VIP.service(plan.family());
        let any: SocketAddr = if service.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(service).await?;
        for number in 0..count as u64 {
            let mut sent = number.to_be_bytes().to_vec();
            sent.resize(DATAGRAM_BYTES, number.to_be_bytes()[7]);
            match echo(&socket, &sent).await? {
                None => self.tally.counts().sent(Echo::Lost),
                Some(backend) if *owner.get_or_insert_with(|| backend.clone()) == backend => {
                    self.tally.counts().sent(Echo::Expected);
                }
                Some(_) => self.tally.counts().sent(Echo::Moved),
            }
            sleep(DATAGRAM_INTERVAL).await;
        }
        Ok(())
    }
}

/// Closes in order, if it is not dropped before it is connected.
pub(super) async fn connect(transport: Transport, destination: SocketAddr) -> io::Result<TcpStream> {
    let socket = sockets::orderly(transport, Domain::for_address(destination))?;
    socket.set_nonblocking(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(destination).await
}

/// Sends a datagram, and returns who echoed it; nobody if no echo comes in time. Late echoes of earlier ones are passed over.
async fn echo(socket: &UdpSocket, sent: &[u8]) -> io::Result<Option<String>> {
    socket.send(sent).await?;
    let mut buffer = vec![0; NAME_BYTES_MAX + DATAGRAM_BYTES];
    let receive = async {
        loop {
            let length = socket.recv(&mut buffer).await?;
            let line = buffer[..length].iter().position(|byte| *byte == b'\n');
            let Some((name, echo)) = line.and_then(|end| buffer[..length].split_at_checked(end)) else { continue };
            if &echo[1..] == sent {
                return Ok(String::from_utf8_lossy(name).into_owned());
            }
        }
    };
    match timeout(ECHO_LIMIT, receive).await {
        Ok(received) => received.map(Some),
        Err(_) => Ok(None),
    }
}
