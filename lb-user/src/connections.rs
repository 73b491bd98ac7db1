//! Serving HTTP to the clients of a listener, a request for each connection. These are bounded in number, so that they leave
//! file descriptors for all else that needs some: where one more comes, the one that has waited longest without asking
//! anything makes room. So who only connects keeps nobody out.

use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    collections::VecDeque,
    convert::Infallible,
    error::Error,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;
/// A pause after a failed accept (no file descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// How long clients may take.
#[derive(Clone, Copy)]
pub(crate) struct Times {
    /// A connection may last so long.
    pub(crate) connection: Duration,
    /// A request's header must be there so long after its connection.
    pub(crate) request: Duration,
}

/// A socket that takes connections.
pub(crate) trait Accept: Sync {
    /// One of them.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn accept_one(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept_one(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept_one(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Answers the request of each connection, until it is dropped.
pub(crate) async fn serve<F, B>(
    listener: &impl Accept,
    times: Times,
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
) -> Infallible
where
    F: Future<Output = Response<B>> + Send,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let mut connections = Connections::lasting(times.connection);
    loop {
        let Ok(stream) = listener.accept_one().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        connections.make_room().await;
        let (asked, answer) = (Asked::default(), answer.clone());
        connections.take(asked.clone(), async move {
            let service = service_fn(|request| {
                asked.note();
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered.await) }
            });
            // A connection that breaks is its client's affair.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(times.request)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// The connections, oldest first.
struct Connections {
    /// Each may last so long.
    time: Duration,
    tasks: JoinSet<()>,
    silent: VecDeque<Silent>,
}

/// A connection that may not have asked anything yet.
struct Silent {
    task: AbortHandle,
    asked: Asked,
}

/// Whether a connection has asked something.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicBool>);

impl Asked {
    /// It has.
    fn note(&self) {
        self.0.store(true, Relaxed);
    }
}

impl Connections {
    /// None yet; each may last so long.
    fn lasting(time: Duration) -> Self {
        Self { time, tasks: JoinSet::new(), silent: VecDeque::new() }
    }

    /// Waits until there is room for one more. Where all have asked, the first that is answered makes room.
    async fn make_room(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        while self.tasks.len() >= CONNECTIONS_MAX {
            self.forget_the_heard();
            if let Some(oldest) = self.silent.pop_front() {
                oldest.task.abort();
            }
            self.tasks.join_next().await;
        }
        self.forget_the_heard();
    }

    /// Takes one more, which is to note when it is asked something.
    fn take(&mut self, asked: Asked, connection: impl Future<Output = ()> + Send + 'static) {
        let time = self.time;
        let task = self.tasks.spawn(async move {
            let _ = timeout(time, connection).await;
        });
        self.silent.push_back(Silent { task, asked });
    }

    fn forget_the_heard(&mut self) {
        self.silent.retain(|silent| !silent.task.is_finished() && !silent.asked.0.load(Relaxed));
    }
}
