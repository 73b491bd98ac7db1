//! The agent of a backend, as far as it tells the balancers which MPTCP connections live here: what the kernel says of them
//! as they come and go, and who is told. It must never print a token, and never holds on to one that the kernel does not
//! have.

mod connections;
mod events;
mod member;
mod netlink;
mod reporter;
mod sockets;

pub use connections::{Known, Op, Report, Sink};
pub use events::EventsError;
pub use member::{Memory, Teller};
pub use reporter::{Counts, Reporter};
