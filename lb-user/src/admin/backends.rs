//! What the admin socket answers about single backends: what each does, and the orders to drain and to serve again.

use super::{
    fault::Fault,
    routes::{Route, blocking, type_of},
    status::BackendStatus,
};
use crate::service::{OrderError, Service};
use hyper::{Method, StatusCode};
use lb_common::ids::BackendId;

/// All of them.
pub(super) const LIST: Route = Route {
    method: Method::GET,
    path: "/v1/backends",
    about: "What every backend does, those that are leaving too.",
    query: &[],
    body: None,
    answer: type_of::<Vec<BackendStatus>>,
    handler: |context, _| blocking(move || Ok(context.service.status()?.backends)),
};

/// One.
pub(super) const SHOW: Route = Route {
    method: Method::GET,
    path: "/v1/backends/{name}",
    about: "What a backend does: its health, its connections in the tables, and how long its drain lasts.",
    query: &[],
    body: None,
    answer: type_of::<BackendStatus>,
    handler: |context, call| {
        blocking(move || {
            let id = context.service.backend_named(&name(call.name("name")))?;
            status_of(&context.service, id)
        })
    },
};

/// Begins a drain.
pub(super) const DRAIN: Route = Route {
    method: Method::POST,
    path: "/v1/backends/{name}/drain",
    about: "Has a backend take no new connection and keep those that it has, for its pool's drain timeout.",
    query: &[],
    body: None,
    answer: type_of::<BackendStatus>,
    handler: |context, call| {
        blocking(move || {
            let id = context.service.drain_backend(&name(call.name("name")))?;
            status_of(&context.service, id)
        })
    },
};

/// Ends it.
pub(super) const ENABLE: Route = Route {
    method: Method::POST,
    path: "/v1/backends/{name}/enable",
    about: "Takes the order to drain back: the backend takes new connections again.",
    query: &[],
    body: None,
    answer: type_of::<BackendStatus>,
    handler: |context, call| {
        blocking(move || {
            let id = context.service.enable_backend(&name(call.name("name")))?;
            status_of(&context.service, id)
        })
    },
};

/// A name as it stands in a path, where `POOL:NAME` is `POOL/NAME`: no name has either character.
fn name(part: &str) -> String {
    part.replace(':', "/")
}

fn status_of(service: &Service, id: BackendId) -> Result<BackendStatus, Fault> {
    service.backend_status(id)?.ok_or_else(|| Fault::not_found("the backend has just left the configuration"))
}

impl From<OrderError> for Fault {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Unknown { .. } => Self::not_found(error.to_string()),
            OrderError::Ambiguous { .. } => Self::bad_request(error.to_string()),
            OrderError::Configured { .. } => Self::conflict(error.to_string()),
            OrderError::Service(error) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }
}
