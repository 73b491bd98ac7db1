//! The HTTP listener: `/metrics` for Prometheus, `/healthz` for whoever asks whether Weir serves, `/livez` for whoever would
//! start it anew if it hung, `/announce` for whoever announces its VIPs.
//!
//! It reads requests of strangers, so what one connection may cost is bounded: one request, a short time, and a small
//! number of connections at once. It changes nothing.

use super::Source;
use super::collector::Exposition;
use super::vital::{Readiness, Vital};
use crate::connections::{self, Times};
use crate::pulse::Pulse;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

const TIMES: Times = Times { connection: Duration::from_secs(10), request: Duration::from_secs(5) };

const PLAIN_TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const PROMETHEUS_TEXT: HeaderValue = HeaderValue::from_static(prometheus::TEXT_FORMAT);

type Answer = Response<Full<Bytes>>;

/// A page of metrics.
pub trait Page: Send + Sync + 'static {
    /// Its text, with the numbers as they are now. May block for the time of some system calls.
    ///
    /// # Errors
    /// The numbers cannot be had, or contradict each other.
    fn render(&self) -> Result<String, prometheus::Error>;
}

/// An open listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Opens the listener, so that a wrong address is known before anything is attached.
    ///
    /// # Errors
    /// The system will not listen there.
    pub async fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let socket = TcpListener::bind(address).await.map_err(|source| ListenError::Bind { address, source })?;
        Ok(Self { socket })
    }

    /// Where it listens; with the port that the kernel chose if port 0 was asked for.
    ///
    /// # Errors
    /// The system does not know its own socket.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until it is dropped.
    ///
    /// # Errors
    /// The metrics contradict each other: a mistake in Weir.
    pub async fn serve(
        self,
        source: Arc<dyn Source>,
        readiness: watch::Receiver<Readiness>,
        pulse: Pulse,
    ) -> Result<Infallible, ListenError> {
        let vital = Vital { readiness, pulse: Some(pulse) };
        let exposition = Exposition::new(Arc::clone(&source), vital.clone()).map_err(ListenError::Metrics)?;
        Ok(self.serve_all(Pages { page: Arc::new(exposition), vital, announced: Some(source) }).await)
    }

    /// Serves another page of metrics until it is dropped.
    pub async fn serve_page(self, page: Arc<dyn Page>, readiness: watch::Receiver<Readiness>) -> Infallible {
        self.serve_all(Pages { page, vital: Vital { readiness, pulse: None }, announced: None }).await
    }

    async fn serve_all(self, pages: Pages) -> Infallible {
        let answer = move |request| {
            let pages = pages.clone();
            async move { pages.answer(request).await }
        };
        connections::serve(&self.socket, TIMES, answer).await
    }
}

/// What the listener has to show.
#[derive(Clone)]
struct Pages {
    page: Arc<dyn Page>,
    vital: Vital,
    /// Whose destinations are announced, where there are any.
    announced: Option<Arc<dyn Source>>,
}

impl Pages {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let page = request.uri().path();
        let pages: &[&str] = if self.announced.is_some() {
            &["/metrics", "/healthz", "/livez", "/announce"]
        } else {
            &["/metrics", "/healthz", "/livez"]
        };
        if !pages.contains(&page) {
            return text_answer(StatusCode::NOT_FOUND, format!("no such page; there are {}\n", pages.join(", ")));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let text = "this page can only be read; use GET\n";
            let mut answer = text_answer(StatusCode::METHOD_NOT_ALLOWED, text);
            let allowed = HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        match (page, &self.announced) {
            ("/metrics", _) => self.metrics().await,
            ("/livez", _) => self.life(),
            ("/announce", Some(source)) => self.announcement(Arc::clone(source)).await,
            _ => self.fit("ok\n".to_owned()),
        }
    }

    /// Reading the kernel's tables blocks, so it has a thread of its own.
    async fn metrics(&self) -> Answer {
        let page = Arc::clone(&self.page);
        let text = match spawn_blocking(move || page.render()).await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => return unreadable(&error),
            Err(panicked) => return unreadable(&panicked),
        };
        let mut answer = text_answer(StatusCode::OK, text);
        answer.headers_mut().insert(CONTENT_TYPE, PROMETHEUS_TEXT);
        answer
    }

    /// Whether it would help to start it anew: not where nothing can be steered, or is to be.
    fn life(&self) -> Answer {
        self.vital.hang().map_or_else(|| text_answer(StatusCode::OK, "ok\n"), |why| unwell(&why))
    }

    /// A line for each prefix that is to be routed here. While a reload has the tables this waits, so not on the thread that
    /// answers others.
    async fn announcement(&self, source: Arc<dyn Source>) -> Answer {
        match spawn_blocking(move || source.destinations()).await {
            Ok(prefixes) => {
                self.fit(prefixes.iter().flat_map(|prefix| [prefix.to_string(), "\n".to_owned()]).collect())
            }
            Err(panicked) => unreadable(&panicked),
        }
    }

    /// This text if packets are steered and the VIPs to be announced, else why not.
    fn fit(&self, text: String) -> Answer {
        let Some(why) = self.vital.trouble() else { return text_answer(StatusCode::OK, text) };
        let mut answer = unwell(&why);
        if self.vital.is_starting() {
            answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    }
}

fn unwell(why: &str) -> Answer {
    text_answer(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
}

fn unreadable(error: &dyn Error) -> Answer {
    let text = format!("the metrics cannot be read: {error}\n");
    text_answer(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn text_answer(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, PLAIN_TEXT);
    answer
}

/// Why the metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system will not listen at the address.
    #[error("metrics cannot listen on {address}: {source}{}", advice(*address, source.kind()))]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Two families are the same, or a name is none.
    #[error("the metrics contradict each other: {0}; please report it")]
    Metrics(prometheus::Error),
}

fn advice(address: SocketAddr, kind: io::ErrorKind) -> String {
    let port = address.port();
    match kind {
        io::ErrorKind::AddrInUse => format!(
            "; `ss -ltnp sport = :{port}` shows who has it: stop that, or choose another port for listen in [metrics]"
        ),
        io::ErrorKind::AddrNotAvailable => {
            "; no interface has this address: `ip address` shows those that exist, correct listen in [metrics]"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE: choose a higher one for listen in [metrics]"
                .to_owned()
        }
        _ => String::new(),
    }
}
