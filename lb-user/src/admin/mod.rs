//! The operator's door: HTTP and JSON over a unix socket, under `/v1`. It never tells a client's address or key; a token only
//! to who asks for tokens.

mod backends;
mod client;
pub mod entries;
pub mod explain;
mod fault;
pub mod reload;
pub mod routes;
pub mod schema;
mod server;
pub mod status;
pub mod trace;
pub mod withdraw;

pub use client::{Client, ClientError};
pub use fault::{ErrorBody, Fault};
pub use server::{AdminError, AdminSocket};

/// Where the socket is unless the operator says otherwise.
pub const SOCKET: &str = "/run/weir/weir.sock";
