//! HTTP/1.1 over one connection, whatever it is made of, and whether each body is what it should be. A body is hashed as it
//! comes and never kept.

use std::{io, time::Duration};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{CONNECTION, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, task, time::timeout};

use super::content::{Digested, File};

/// The header by which a server says who it is.
pub(super) const BACKEND: &str = "x-backend";
/// An answer, headers or the next piece of its body, is there in this time.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a body turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// What was meant.
    Right,
    /// Other bytes.
    Corrupted,
}

/// An answer that has come whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) backend: String,
    pub(super) bytes: u64,
    pub(super) body: Body,
}

/// Whether more is to follow on the same connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Another,
    Close,
}

/// A connection that speaks HTTP. The server closes it after the request that says so.
#[derive(Debug)]
pub(super) struct Session {
    requests: SendRequest<Full<Bytes>>,
    connection: task::JoinHandle<hyper::Result<()>>,
}

impl Session {
    /// Begins on an open connection.
    pub(super) async fn begin(stream: TcpStream) -> io::Result<Self> {
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { requests, connection: task::spawn(connection) })
    }

    /// Asks for a file.
    pub(super) async fn get(&mut self, path: &str, expected: &Digested, next: Next) -> io::Result<Answer> {
        let answer = self.request("GET", path, Bytes::new(), next).await?;
        if answer.status() != StatusCode::OK {
            return Err(refused("GET", path, answer.status()));
        }
        read(answer, expected).await
    }

    /// Stores a file. What the server got is told by asking for it.
    pub(super) async fn put(&mut self, path: &str, file: &File) -> io::Result<()> {
        let answer = self.request("PUT", path, file.bytes.clone(), Next::Another).await?;
        let status = answer.status();
        if !status.is_success() {
            return Err(refused("PUT", path, status));
        }
        timeout(PATIENCE, answer.into_body().collect()).await?.map_err(io::Error::other)?;
        Ok(())
    }

    /// Waits until the server has closed.
    pub(super) async fn end(self) -> io::Result<()> {
        drop(self.requests);
        timeout(PATIENCE, self.connection).await??.map_err(io::Error::other)
    }

    async fn request(
        &mut self,
        method: &'static str,
        path: &str,
        body: Bytes,
        next: Next,
    ) -> io::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "lab").body(Full::new(body));
        if let (Ok(request), Next::Close) = (&mut request, next) {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        timeout(PATIENCE, self.requests.ready()).await?.map_err(io::Error::other)?;
        let answer = self.requests.send_request(request.map_err(io::Error::other)?);
        timeout(PATIENCE, answer).await?.map_err(io::Error::other)
    }
}

async fn read(answer: Response<Incoming>, expected: &Digested) -> io::Result<Answer> {
    let backend = answer.headers().get(BACKEND).and_then(|name| name.to_str().ok()).unwrap_or_default().to_owned();
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut body = answer.into_body();
    while let Some(frame) = timeout(PATIENCE, body.frame()).await? {
        if let Some(data) = frame.map_err(io::Error::other)?.data_ref() {
            hash.update(data);
            bytes += data.len() as u64;
        }
    }
    let body = if Digested::from(hash.finalize()) == *expected { Body::Right } else { Body::Corrupted };
    Ok(Answer { backend, bytes, body })
}

fn refused(method: &str, path: &str, status: StatusCode) -> io::Error {
    io::Error::other(format!("{method} {path} was answered {status}"))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// What a client makes of this body.
    async fn read_from_server(body: &'static str) -> Body {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = task::spawn(async move {
            let (mut client, _) = listener.accept().await.expect("the client comes");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(client.read_u8().await.expect("the client asks"));
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nx-backend: b7\r\n\r\n", body.len());
            client.write_all(head.as_bytes()).await.expect("the client listens");
            client.write_all(body.as_bytes()).await.expect("the client listens");
        });
        let stream = TcpStream::connect(address).await.expect("the server listens");
        let mut session = Session::begin(stream).await.expect("it is connected");
        let meant: Digested = Sha256::digest("what was meant").into();
        let answer = session.get("/file", &meant, Next::Close).await.expect("a whole answer");
        server.await.expect("the server ends");
        assert_eq!((answer.backend.as_str(), answer.bytes), ("b7", body.len() as u64));
        answer.body
    }

    #[tokio::test]
    async fn one_other_byte_is_noticed() {
        assert_eq!(read_from_server("what was meant").await, Body::Right);
        assert_eq!(read_from_server("what was neant").await, Body::Corrupted);
    }
}
