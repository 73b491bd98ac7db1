//! What really happened, told by the kernels of client and backends: their counters (`nstat`), their
//! sockets (`ss`) and their MPTCP events (`ip mptcp monitor`). Weir's word is never asked here.

pub mod counters;
mod flows;
pub mod joins;
pub mod monitor;
pub mod path_mtu;
mod stateless;
mod subflows;

pub use counters::Counters;
pub use flows::Flow;
pub use joins::{JoinCounts, JoinTally, open_joined};
pub use monitor::Monitor;
pub use path_mtu::path_mtus;
pub use stateless::TokenOracle;
pub use subflows::{Subflow, Token};
