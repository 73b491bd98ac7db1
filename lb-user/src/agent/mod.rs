//! The agent of a backend, as far as it knows of the MPTCP connections that live here: what the kernel says of them as they
//! come and go, who is told, and which keys new ones are given. It must never print a token, nor tell of one that the kernel
//! does not have.

mod connections;
mod events;
mod member;
pub mod mint;
mod netlink;
mod place;
mod reporter;
mod sockets;

pub use connections::{Known, Op, Report, Sink};
pub use events::EventsError;
pub use member::{Memory, Teller};
pub use place::Place;
pub use reporter::{Counts, Reporter};
