//! The controller of Weir: it owns the tables that the XDP program steers by, and answers the operator.

pub mod admin;
pub mod agent;
pub mod announce;
pub mod bpf;
pub mod bus;
mod clock;
pub mod commands;
pub mod config;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod joins;
pub mod layout;
pub mod logging;
pub mod metrics;
pub mod numbering;
pub mod object;
pub mod privilege;
pub mod pulse;
pub mod reference;
pub mod refilter;
pub mod resolve;
pub mod service;
pub mod setup;
pub mod supervisor;
pub mod sweep;
pub mod top;
