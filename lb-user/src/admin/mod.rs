//! The operator's door: HTTP and JSON over a unix socket. It shows and changes nothing that the configuration does not
//! already say, and never a client's address, key or token.

mod client;
mod server;
pub mod status;

pub use client::{ClientError, fetch_status};
pub use server::{AdminError, AdminSocket};

/// Where the socket is unless the operator says otherwise.
pub const SOCKET: &str = "/run/weir/weir.sock";
