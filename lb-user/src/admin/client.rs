//! The admin socket's client, for the commands.

use super::fault::ErrorBody;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::UnixStream, time::timeout};

/// What is only read is there after this time; only a Weir that hangs takes so long.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Why a running Weir could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Somebody listens who does not answer.
    #[error(
        "weir has not answered on {} for {} s: is it stopped, or does it hang? `systemctl restart weir` loses no packet",
        .0.display(), ANSWER_TIME.as_secs()
    )]
    Silent(PathBuf),
    /// Nobody listens.
    #[error("no weir answers on {}: is `weir run` running? ({source})", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket belongs to another user.
    #[error(
        "{} may not be opened: only the user that runs weir may ask it, and the group that `[admin] group` names",
        .0.display()
    )]
    Denied(PathBuf),
    /// The connection broke.
    #[error("the connection to weir broke: {0}")]
    Http(#[from] hyper::Error),
    /// Weir refuses, and says why.
    #[error("weir refuses: {0}")]
    Refused(String),
    /// Weir refuses in no words of this version.
    #[error("weir answered {0}; is it of another version than this command?")]
    Unclear(StatusCode),
    /// The answer is not of this version.
    #[error("weir's answer is not understood; is it of another version than this command? ({0})")]
    Answer(#[from] serde_json::Error),
    /// What was asked is no path.
    #[error("{0} is nothing that can be asked for")]
    Path(String),
}

/// The Weir behind a socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The one behind this socket; nobody is asked yet.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Asks for a path, such as `/v1/status`.
    ///
    /// # Errors
    /// Nobody answers, or Weir refuses, or not in this version's words.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = timeout(ANSWER_TIME, self.ask(Method::GET, path, Bytes::new())).await;
        answer.unwrap_or_else(|_| Err(ClientError::Silent(self.socket.clone())))
    }

    /// Has something done that needs no more words than a path.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::POST, path, Bytes::new()).await
    }

    /// Has something done with what is sent along, as JSON.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn post_with<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.ask(Method::POST, path, serde_json::to_vec(body)?.into()).await
    }

    /// Has something done that is told of line by line.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn lines(&self, path: &str) -> Result<Lines, ClientError> {
        let response = self.send(Method::POST, path, Bytes::new()).await?;
        if response.status().is_success() {
            return Ok(Lines { body: response.into_body(), read: Vec::new() });
        }
        Err(refusal(response).await?)
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        if response.status().is_success() {
            return Ok(serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?);
        }
        Err(refusal(response).await?)
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let uri: Uri = path.parse().map_err(|_| ClientError::Path(path.to_owned()))?;
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::Denied(self.socket.clone()),
            _ => ClientError::Connect { path: self.socket.clone(), source },
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().insert(HOST, HeaderValue::from_static("weir"));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(sender.send_request(request).await?)
    }
}

async fn refusal(response: Response<Incoming>) -> Result<ClientError, ClientError> {
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => ClientError::Refused(body.error),
        Err(_) => ClientError::Unclear(status),
    })
}

/// An answer that comes by lines.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    /// The next, or none where there are no more.
    ///
    /// # Errors
    /// The connection broke, or the line is not of this version.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                if line == b"\n" {
                    continue;
                }
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(frame) => self.read.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_answer_is_not_waited_for_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weir.sock");
        let _mute = UnixListener::bind(&path).expect("a socket");
        let answer: Result<(), _> = Client::new(&path).get("/v1/status").await;
        let said = answer.expect_err("nobody answers").to_string();
        assert!(said.contains("has not answered on") && said.contains("for 30 s"), "{said}");
    }
}
