//! The admin API: its schema is current, and a running balancer's answers are as it says, by the word of jsonschema. What
//! `weir flows`, `weir tokens` and `weir explain` tell of it is judged by tshark. Needs root, for the running balancer.

#[path = "../captured/mod.rs"]
mod captured;
mod http;
mod running;
mod schema;
mod stage;
