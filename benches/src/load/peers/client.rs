//! What the client asks for in a round: long transfers, short connections, and requests one after the other; and connections
//! that stay open while their joins are counted. Every body is hashed. It knows nothing of what is between.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    interrupt,
    load::{
        client::{CONNECT_LIMIT, connect},
        content::{Content, File},
        http::{Answer, Body, Next, Session},
        tally::Durations,
    },
    sockets::Transport,
    traffic::Mix,
};

/// Requests before those whose time counts.
const WARM_UP: usize = 50;
const AFTER_FAILURE: Duration = Duration::from_millis(50);
/// More failures than these of one worker end it.
const FAILURES_MAX: usize = 5;

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// That did what they were for.
    pub(super) connections: u64,
    pub(super) bytes: u64,
    pub(super) corrupted: u64,
    /// One line for each connection that did not.
    pub(super) failures: Vec<String>,
}

impl Counts {
    fn count(&mut self, answer: &Answer) {
        self.bytes += answer.bytes;
        self.corrupted += u64::from(answer.body == Body::Corrupted);
    }

    fn conclude(&mut self, outcome: &io::Result<()>) {
        match outcome {
            Ok(()) => self.connections += 1,
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.bytes += other.bytes;
        self.corrupted += other.corrupted;
        self.failures.extend(other.failures);
    }
}

/// What connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// One large file after the other.
    Transfer,
    /// One small file.
    Request,
}

/// The file of long transfers, and how large it is.
pub(super) fn large(content: &Content) -> &File {
    &content.large[0]
}

fn small(content: &Content) -> &File {
    &content.small[1]
}

/// Asks for so many files in all, over so many MPTCP connections at a time.
pub(super) fn work(work: Work, content: &Arc<Content>, connections: u16, files: u64) -> io::Result<Counts> {
    runtime()?.block_on(async {
        let left = Arc::new(AtomicU64::new(files));
        let mut workers = JoinSet::new();
        for _ in 0..connections {
            workers.spawn(go_on(work, Arc::clone(content), Arc::clone(&left)));
        }
        let mut counts = Counts::default();
        while let Some(worker) = workers.join_next().await {
            counts.add(worker?);
        }
        Ok(counts)
    })
}

/// One connection after the other, until nothing is left to be asked for.
async fn go_on(work: Work, content: Arc<Content>, left: Arc<AtomicU64>) -> Counts {
    let mut counts = Counts::default();
    while counts.failures.len() < FAILURES_MAX && left.load(Ordering::Relaxed) > 0 && !interrupt::requested() {
        let outcome = match work {
            Work::Transfer => transfer(&content, &left, &mut counts).await,
            Work::Request => request(&content, &left, &mut counts).await,
        };
        counts.conclude(&outcome);
        if outcome.is_err() {
            sleep(AFTER_FAILURE).await;
        }
    }
    counts
}

fn take(left: &AtomicU64) -> bool {
    !interrupt::requested()
        && left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

async fn transfer(content: &Content, left: &AtomicU64, counts: &mut Counts) -> io::Result<()> {
    let (mut session, file) = (open(Mix::V4).await?, large(content));
    while take(left) {
        let answer = session.get(&file.path, &file.digest, Next::Another).await?;
        counts.count(&answer);
    }
    session.end().await
}

async fn request(content: &Content, left: &AtomicU64, counts: &mut Counts) -> io::Result<()> {
    if !take(left) {
        return Ok(());
    }
    let (mut session, file) = (open(Mix::V4).await?, small(content));
    let answer = session.get(&file.path, &file.digest, Next::Close).await?;
    counts.count(&answer);
    session.end().await
}

/// How long so many small requests take, one after the other on one connection.
pub(super) fn ask_in_turn(content: &Content, requests: usize) -> io::Result<(Counts, Durations)> {
    runtime()?.block_on(async {
        let (mut counts, mut durations) = (Counts::default(), Durations::default());
        let (mut session, file) = (open(Mix::V4).await?, small(content));
        for number in 0..WARM_UP + requests {
            let begun = Instant::now();
            let answer = session.get(&file.path, &file.digest, Next::Another).await?;
            if number >= WARM_UP {
                durations.add(begun.elapsed());
            }
            counts.count(&answer);
        }
        session.end().await?;
        Ok((counts, durations))
    })
}

/// Opens so many connections of all kinds, calls `settle` with the number of joins that the client's kernel then tries, and
/// sees that the connections live.
pub(super) fn hold<T>(content: &Content, connections: u16, settle: impl FnOnce(u64) -> T) -> io::Result<(Counts, T)> {
    runtime()?.block_on(async {
        let (mut counts, mut held, file) = (Counts::default(), Vec::new(), small(content));
        let mut joins = 0;
        for mix in (0..connections).map(|number| Mix::alternating(number.into())) {
            match ask_first(mix, file).await {
                Ok((session, answer)) => {
                    counts.count(&answer);
                    joins += mix.joins();
                    held.push(session);
                }
                Err(error) => counts.failures.push(format!("{mix:?}: {error}")),
            }
        }
        let settled = settle(joins);
        for session in held {
            let outcome = ask_last(session, file, &mut counts).await;
            counts.conclude(&outcome);
        }
        Ok((counts, settled))
    })
}

async fn ask_first(mix: Mix, file: &File) -> io::Result<(Session, Answer)> {
    let mut session = open(mix).await?;
    let answer = session.get(&file.path, &file.digest, Next::Another).await?;
    Ok((session, answer))
}

async fn ask_last(mut session: Session, file: &File, counts: &mut Counts) -> io::Result<()> {
    let answer = session.get(&file.path, &file.digest, Next::Close).await?;
    counts.count(&answer);
    session.end().await
}

async fn open(mix: Mix) -> io::Result<Session> {
    let stream = timeout(CONNECT_LIMIT, connect(Transport::Mptcp, mix.destination())).await??;
    Session::begin(stream).await
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
