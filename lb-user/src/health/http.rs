//! HTTP checks: one request, and what of its answer is good. The answer is a stranger's: what is read of it is bounded.

use super::Failure;
use crate::config::HttpRequest;
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{CONNECTION, HOST, HeaderValue, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use lb_common::limits::HEALTH_BODY_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};

/// Asks, and judges the answer.
pub(super) async fn ask<S>(stream: S, host: &str, wanted: &HttpRequest) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| Failure::Http(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let response = sender.send_request(request(host, wanted)?).await.map_err(broken)?;
        let got = response.status().as_u16();
        if !wanted.statuses.contains(&got) {
            return Err(Failure::Status { got, wanted: wanted.statuses.clone() });
        }
        match &wanted.body {
            Some(text) if !holds(response.into_body(), text.as_bytes()).await? => Err(Failure::Body(text.clone())),
            _ => Ok(()),
        }
    };
    // The connection is driven beside the exchange, and ends with it.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        judged = &mut exchange => judged,
        _ = connection => exchange.await,
    }
}

fn request(host: &str, wanted: &HttpRequest) -> Result<Request<Empty<Bytes>>, Failure> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = wanted.path.parse().map_err(|_| Failure::Http("the path is none".to_owned()))?;
    let host = HeaderValue::from_str(host).map_err(|_| Failure::Http("the host is none".to_owned()))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static("weir-health"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

/// Whether a body has a text in its first [`HEALTH_BODY_BYTES`].
async fn holds(mut body: Incoming, text: &[u8]) -> Result<bool, Failure> {
    let mut read = Vec::new();
    while read.len() < HEALTH_BODY_BYTES {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(|error| Failure::Http(error.to_string()))?;
        if let Some(data) = frame.data_ref() {
            read.extend_from_slice(data);
        }
    }
    read.truncate(HEALTH_BODY_BYTES);
    Ok(text.is_empty() || read.windows(text.len()).any(|window| window == text))
}
