//! The admin socket's client, for the commands.

use super::status::Status;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
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
    #[error("{} may not be opened: only the user that runs weir may ask it", .0.display())]
    Denied(PathBuf),
    /// The connection broke.
    #[error("the connection to weir broke: {0}")]
    Http(#[from] hyper::Error),
    /// Weir could not answer.
    #[error("weir answered {0}")]
    Refused(hyper::StatusCode),
    /// The answer is not of this version.
    #[error("weir's answer is not understood; is it of another version than this command? ({0})")]
    Answer(#[from] serde_json::Error),
}

/// Asks the Weir behind a socket for its status.
///
/// # Errors
/// Nobody answers, or not in this version's words.
pub async fn fetch_status(socket: &Path) -> Result<Status, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => ClientError::Denied(socket.to_owned()),
        _ => ClientError::Connect { path: socket.to_owned(), source },
    })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = hyper::Uri::from_static("/status");
    request.headers_mut().insert(hyper::header::HOST, hyper::header::HeaderValue::from_static("weir"));
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(ClientError::Refused(response.status()));
    }
    let body = response.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&body)?)
}
