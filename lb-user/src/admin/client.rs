//! The admin socket's client, for the commands.

use super::fault::ErrorBody;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, StatusCode, Uri,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
};
use tokio::net::UnixStream;

/// Why a running Weir could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
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
        self.ask(Method::GET, path, Bytes::new()).await
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

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
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
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        match serde_json::from_slice::<ErrorBody>(&body) {
            Ok(body) => Err(ClientError::Refused(body.error)),
            Err(_) => Err(ClientError::Unclear(status)),
        }
    }
}
