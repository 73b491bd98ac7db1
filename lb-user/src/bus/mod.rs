//! The bus: the members of a cluster, balancers and agents, tell each other over NATS which backend has which connection.
//!
//! What a member knows goes out by the millisecond; what others know comes in by the rules of the data path. Nothing that
//! packets wait for waits for the bus: with it down, each member goes on with what it knows, and tells and asks when it is
//! back. Tokens and flows are never logged.

mod counts;
pub mod generations;
mod handover;
mod link;
mod member;
mod publisher;
pub mod wire;

pub use counts::{BusCounts, BusNumbers, Refusal};
pub use generations::Generations;
pub use handover::{HandedOver, Handover, HandoverError};
pub use link::LinkError;
pub use member::{Bus, Sharer};
pub use publisher::Publisher;

use std::time::Duration;

/// How long what a member has to tell is gathered at most.
const FLUSH: Duration = Duration::from_millis(1);
/// Entries of a message at most.
const BATCH_ENTRIES: usize = 1000;
/// Entries that wait while the bus is down; those beyond are counted, and told when the members catch up.
const QUEUE_ENTRIES: usize = 65_536;
/// How long a balancer that starts waits for a server.
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// How long it waits for the first answer of another member, and then for a further one.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// How long it waits for all that others know.
const CATCH_UP_WAIT: Duration = Duration::from_secs(15);
/// How long a balancer that goes waits for another to take in all that it knows.
const TAKE_WAIT: Duration = Duration::from_secs(30);
