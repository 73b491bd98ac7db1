//! Why the admin socket refuses a request: an HTTP status and a sentence, sent as `{"error": "..."}`.

use aya::maps::MapError;
use hyper::{Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::task::JoinError;

/// A refused request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of which kind.
    pub status: StatusCode,
    /// What, and what to do.
    pub message: String,
    /// What the path does answer to, where the method was wrong.
    pub allow: Vec<Method>,
}

/// The JSON of a refusal.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// What is wrong, and what to do.
    pub error: String,
}

impl Fault {
    /// A refusal of a kind.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), allow: Vec::new() }
    }

    /// The request does not hold.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// The request does not fit what the balancer is doing.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn method(path: &str, allow: Vec<Method>) -> Self {
        let names: Vec<_> = allow.iter().map(Method::as_str).collect();
        let message = format!("{path} answers to {} only", names.join(" and "));
        Self { allow, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, message) }
    }
}

impl From<MapError> for Fault {
    fn from(error: MapError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the kernel refused a table of Weir's: {error}"))
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written as JSON: {error}"))
    }
}

impl From<JoinError> for Fault {
    fn from(error: JoinError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, format!("nobody finished the answer: {error}"))
    }
}
