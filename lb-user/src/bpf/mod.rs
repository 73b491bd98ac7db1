//! The kernel side of Weir as the controller holds it: loaded programs, typed maps, attached links.
//!
//! Nothing here knows of configuration or metrics; what stands in the maps is decided in [`crate::layout`].

mod agent;
mod balancer;
mod bearers;
mod decap;
mod error;
mod events;
mod holder;
mod ledger;
mod lender;
mod mint;
mod pins;
mod pod;
mod probe;
mod shape;
mod table;
mod tracer;
mod verify;

pub use agent::{AgentCounters, AgentPrograms};
pub use balancer::{Balancer, Sizes};
pub use bearers::BearerTable;
pub use decap::{Decapsulator, PROGRAM as DECAP_PROGRAM};
pub use error::LoadError;
pub use events::{AwaitedEvents, Events};
pub use holder::Holder;
pub use ledger::{LedgerError, LedgerTable};
pub use lender::Lender;
pub use mint::{Marker, MintCounters, MintTables};
pub use pins::{LostPins, PinError, Pins, Removed, TABLES, detach, noted_moment};
pub use pod::Pod;
pub use table::{ArrayTable, HashTable, PerCpuTable, PrefixTable, QueueTable, RingTable, Value};
pub use tracer::{Told, Tracer};
pub use verify::verified;
