//! The controller of Weir: it owns the tables that the XDP program steers by, and answers the operator.

pub mod admin;
pub mod bpf;
mod clock;
pub mod commands;
pub mod config;
pub mod explain;
pub mod health;
pub mod layout;
pub mod metrics;
pub mod numbering;
pub mod object;
pub mod refilter;
pub mod resolve;
pub mod service;
pub mod sweep;
