//! Multipath TCP on the wire: version 1 (RFC 8684) and version 0 (RFC 6824), as far as a balancer reads it.

pub mod options;
pub mod token;

pub use options::{Capable, Join, Options};
pub use token::Version;
