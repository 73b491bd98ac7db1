//! Asks a balancer's page `/announce`. Whatever comes back, or nothing, is an answer within a bounded time.

use super::Answer;
use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{HOST, RETRY_AFTER},
};
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// An answer that takes longer is none.
const TIME: Duration = Duration::from_secs(1);
/// Far more than the VIPs and join addresses of the largest configuration take.
const BYTES_MAX: usize = 1 << 20;

/// What the balancer whose metrics are at this address says of itself.
pub async fn ask(address: SocketAddr) -> Answer {
    match timeout(TIME, read(address)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Silent(format!("http://{address}/announce: {error:#}")),
        Err(_) => Answer::Silent(format!("http://{address}/announce does not answer within {} s", TIME.as_secs())),
    }
}

async fn read(address: SocketAddr) -> Result<Answer> {
    let stream =
        TcpStream::connect(address).await.context("is `weir run` running, with this `listen` in [metrics]?")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/announce").header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    understand(sender.send_request(request).await?).await
}

async fn understand(response: Response<Incoming>) -> Result<Answer> {
    let status = response.status();
    let is_starting = response.headers().contains_key(RETRY_AFTER);
    let body = Limited::new(response.into_body(), BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed)?;
    let text = String::from_utf8(body.to_bytes().into())?;
    match status {
        StatusCode::OK => {
            let prefixes = text.lines().map(str::parse).collect::<Result<_, _>>();
            Ok(Answer::Fit(prefixes.with_context(|| format!("{text:?} are no prefixes"))?))
        }
        StatusCode::SERVICE_UNAVAILABLE if !is_starting => Ok(Answer::Unfit(text.trim_end().to_owned())),
        _ => Ok(Answer::Silent(format!("the balancer answers {status}: {}", text.trim_end()))),
    }
}
