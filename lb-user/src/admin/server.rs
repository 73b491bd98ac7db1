//! The admin socket's server. Only the user that runs Weir may connect, and the group that the configuration names.

use super::{
    fault::{ErrorBody, Fault},
    routes::{self, Context, ROUTES, Reply},
};
use crate::{
    config::Name,
    connections::{self, Times},
};
use futures_util::stream;
use http_body_util::{BodyExt as _, Either, Full, Limited, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use lb_common::limits::TRACE_SECONDS_MAX;
use nix::unistd::Group;
use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    pin::Pin,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};

/// What is sent with a request must be there so long after it.
const BODY_TIME: Duration = Duration::from_secs(10);
/// A connection may last as long as a trace, and a minute.
const TIMES: Times =
    Times { connection: Duration::from_secs(TRACE_SECONDS_MAX + 60), request: Duration::from_secs(10) };
/// What is sent with a request may have so many bytes: the frames of a capture that is to be explained.
const BODY_MAX: usize = 16 << 20;
const JSON: &str = "application/json";
const JSON_LINES: &str = "application/jsonl";

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another Weir answers on it.
    #[error("another weir answers on {}: stop it, or give this one its own with --socket", .0.display())]
    InUse(PathBuf),
    /// The system refuses the socket or its directory.
    #[error("no admin socket at {}: {source}; name a path that can be written with --socket", path.display())]
    Bind {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The group that may connect is none of this machine's.
    #[error("there is no group `{0}` for the admin socket: make it with `groupadd {0}`, or correct `[admin] group`")]
    NoGroup(Name),
    /// The socket cannot be given to the group.
    #[error(
        "the admin socket cannot be given to the group `{group}`: {source}; run weir as root or as a member of the group"
    )]
    Group {
        /// The group.
        group: Name,
        /// What the system said.
        source: io::Error,
    },
}

/// An open admin socket. Dropping it removes it from the file system, unless another has its path by then.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
    file: Option<FileId>,
}

/// What tells a file from others: its device and its number there.
type FileId = (u64, u64);

impl AdminSocket {
    /// Opens the socket for the own user and, if one is named, a group; one that a dead process has left behind is
    /// replaced.
    ///
    /// # Errors
    /// Another process listens there, the system refuses, or there is no such group.
    pub async fn bind(path: &Path, group: Option<&Name>) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Bind { path: path.to_owned(), source };
        let group = group.map(|name| Ok((name, id_of(name)?))).transpose()?;
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(AdminError::InUse(path.to_owned())),
            // What a dead Weir left; anything but a socket refuses a connection too, and stays.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
                fs::remove_file(path).map_err(failed)?;
            }
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let socket = Self { listener, path: path.to_owned(), file: file_id(path) };
        let mode = if let Some((name, id)) = group {
            chown(path, None, Some(id)).map_err(|source| AdminError::Group { group: name.clone(), source })?;
            0o660
        } else {
            0o600
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(socket)
    }

    /// Serves until it is dropped.
    pub async fn serve(self, context: Context) {
        let answer = move |request| {
            let context = context.clone();
            async { respond(answer(request, context).await) }
        };
        connections::serve(&self.listener, TIMES, answer).await;
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if file_id(&self.path) == self.file {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> Option<FileId> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

fn id_of(group: &Name) -> Result<u32, AdminError> {
    let found = Group::from_name(&group.to_string()).ok().flatten();
    found.map(|group| group.gid.as_raw()).ok_or_else(|| AdminError::NoGroup(group.clone()))
}

async fn answer(request: Request<Incoming>, context: Context) -> Result<Reply, Fault> {
    let uri = request.uri();
    let (route, mut call) = routes::find(ROUTES, request.method(), uri.path(), uri.query().unwrap_or_default())?;
    let body = timeout(BODY_TIME, Limited::new(request.into_body(), BODY_MAX).collect()).await;
    call.body = match body {
        Ok(Ok(body)) => body.to_bytes(),
        Err(_) => return Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "what was announced has not been sent")),
        Ok(Err(error)) => return Err(Fault::new(StatusCode::PAYLOAD_TOO_LARGE, format!("too much was sent: {error}"))),
    };
    (route.handler)(context, call).await
}

/// A body that is there, or one that comes by lines.
type Content = Either<Full<Bytes>, Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>>>;

fn respond(answer: Result<Reply, Fault>) -> Response<Content> {
    let (content, kind, fault) = match answer {
        Ok(Reply::Document(body)) => (Either::Left(Full::new(body.into())), JSON, None),
        Ok(Reply::Lines(lines)) => (Either::Right(by_lines(lines)), JSON_LINES, None),
        Err(fault) => {
            let body = ErrorBody { error: fault.message.clone() };
            let body = serde_json::to_vec(&body).unwrap_or_default();
            (Either::Left(Full::new(body.into())), JSON, Some(fault))
        }
    };
    let mut response = Response::new(content);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    let Some(Fault { status, allow, .. }) = fault else { return response };
    *response.status_mut() = status;
    let allow: Vec<_> = allow.iter().map(Method::as_str).collect();
    if let (false, Ok(allow)) = (allow.is_empty(), HeaderValue::from_str(&allow.join(", "))) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// Lines as they come. When the client goes away this is dropped, and whoever sends them hears of it.
fn by_lines(lines: mpsc::Receiver<Bytes>) -> Pin<Box<dyn Body<Data = Bytes, Error = Infallible> + Send>> {
    let frames = stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok(Frame::data(line)), lines))
    });
    Box::pin(StreamBody::new(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weir.sock");
        fs::write(&path, "precious").expect("written");
        assert!(matches!(AdminSocket::bind(&path, None).await, Err(AdminError::Bind { .. })));
        assert_eq!(fs::read_to_string(&path).expect("it is still there"), "precious");

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        assert!(AdminSocket::bind(&link, None).await.is_err());
        assert!(link.is_symlink());

        fs::remove_file(&path).expect("it is there");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket whose owner dies"));
        AdminSocket::bind(&path, None).await.expect("it takes its place");
    }

    #[tokio::test]
    async fn a_socket_of_another_that_has_the_path_by_now_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("weir.sock");
        let first = AdminSocket::bind(&path, None).await.expect("it is free");
        fs::rename(&path, folder.path().join("away")).expect("somebody moves it");
        let second = AdminSocket::bind(&path, None).await.expect("it is free again");
        drop(first);
        UnixStream::connect(&path).await.expect("the second still answers");
        drop(second);
        assert!(!path.exists());
    }
}
