//! The admin socket's server. Only the user that runs Weir may connect.

use crate::service::Service;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    task::spawn_blocking,
    time::timeout,
};

/// A connection may last so long.
const CONNECTION_TIME: Duration = Duration::from_secs(10);

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
}

/// An open admin socket. Dropping it removes it from the file system.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket; one that a dead process has left behind is replaced.
    ///
    /// # Errors
    /// Another process listens there, or the system refuses.
    pub async fn bind(path: &Path) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Bind { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed)?;
        }
        match UnixStream::connect(path).await {
            Ok(_) => return Err(AdminError::InUse(path.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves until it is dropped.
    pub async fn serve(self, service: Arc<Service>) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            let service = Arc::clone(&service);
            let answer = service_fn(move |request| {
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(answer(&request, service).await) }
            });
            let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(timeout(CONNECTION_TIME, connection));
        }
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(request: &Request<Incoming>, service: Arc<Service>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n");
    }
    if request.uri().path() != "/status" {
        return plain(StatusCode::NOT_FOUND, "there is /status\n");
    }
    let status = spawn_blocking(move || service.status()).await;
    match status.map(|status| status.map(|status| serde_json::to_vec(&status))) {
        Ok(Ok(Ok(body))) => {
            let mut response = Response::new(Full::new(body.into()));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Ok(Ok(Err(error))) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        Ok(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response
}
