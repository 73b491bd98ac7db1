//! The lab: network namespaces with the stock kernel's MPTCP at both ends and Weir in the middle.
//!
//! [`Lab::builder`] makes one: a client with two paths, a router, the balancer's namespace and some
//! backends that answer the client directly. [`traffic`] opens real MPTCP connections through it,
//! and [`oracle`] tells what became of them by asking the kernels. The lab never asks Weir where a
//! packet went, never touches the host's own addresses, routes or interfaces, and leaves nothing
//! behind: see [`leftovers`].

pub mod addresses;
pub mod bench;
pub mod churn;
mod command;
pub mod datagrams;
pub mod delay;
pub mod demo;
pub mod drill;
mod error;
pub mod fleet;
pub mod fuzz;
pub mod interrupt;
pub mod leftovers;
mod link_end;
pub mod load;
pub mod namespace;
pub mod oracle;
pub mod owner;
pub mod packets;
pub mod ping;
pub mod process;
mod random;
mod screen;
pub mod server;
pub mod sockets;
pub mod sweeps;
mod ticks;
pub mod topology;
pub mod traffic;
pub mod verifier;
pub mod wait;
pub mod weir;
mod xdp;

pub use error::LabError;
pub use topology::{Backend, BackendCount, Balancer, Client, Lab, LabBuilder, Router};
