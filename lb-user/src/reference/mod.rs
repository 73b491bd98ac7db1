//! The reference, for people: pages that are made of what the code says of itself, so that none can say anything else.
//! `cargo xtask docs` writes them.

mod cli;
mod config;
mod example;
mod limits;
mod probe;
mod reasons;

use crate::{
    config::{AgentConfig, Config},
    metrics,
};
use clap::Command;
use probe::Checker;

/// What stands below the title of each.
const GENERATED: &str = "This page is generated: `cargo xtask docs`.\n";

/// Every page, by the name of its file.
pub fn pages(weir: Command) -> Vec<(&'static str, String)> {
    let balancer = Checker { check: |text| Config::parse(text, "").map(drop).map_err(|errors| errors.to_string()) };
    let agent = Checker { check: |text| AgentConfig::parse(text, "").map(drop).map_err(|errors| errors.to_string()) };
    vec![
        ("metrics.md", metrics::reference::page()),
        ("reasons.md", reasons::page()),
        ("limits.md", limits::page()),
        ("cli.md", cli::page(weir)),
        ("config.md", config::page(&config::BALANCER, balancer)),
        ("agent-config.md", config::page(&config::AGENT, agent)),
    ]
}

/// Text as a cell of a table has it.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
