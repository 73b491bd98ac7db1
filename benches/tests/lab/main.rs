//! Real connections between real kernels, and the commands of `weir-lab`. One program, so that tests that wait and tests that
//! compute share the processors. Needs root and the `weir` command (`cargo test --workspace` builds it).

mod agent;
mod bare_lab;
mod bench;
mod bgp;
mod churn;
mod commands;
mod datagrams;
mod demo;
mod drill;
mod endpoints;
mod fleet;
mod fuzz;
mod health;
mod interfaces;
mod load;
mod mint;
mod monitoring;
mod packets;
mod page;
mod path_mtu;
mod reload;
mod stateless;
mod states;
mod survival;
mod sweeps;
mod tokens;
mod trace;
mod tunnels;
mod verifier;
