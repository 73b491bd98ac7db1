//! `weir agent` on every backend: it takes the tunnels off, and tells the balancers what its kernel says of connections.

use std::{fs, path::Path};

use serde::Serialize;

use super::{Bus, START_LIMIT, carries_xdp, command};
use crate::{Backend, Lab, LabError, addresses::VIP, process::Process, topology::INTERFACE};

/// A configuration file for `weir agent`.
#[derive(Debug, Serialize)]
struct AgentConfig<'a> {
    backend: &'a str,
    interface: &'static str,
    balancers: &'a [&'a str],
    decap: [&'static str; 2],
    vips: [String; 2],
    bus: Bus,
}

/// Runs an agent on every backend of a lab, which takes tunnels from these addresses or prefixes; returns when all do.
/// `bus` is the same for all but the name.
///
/// # Errors
///
/// If there is no `weir` command, or one of them is not ready in time; with its own words.
pub fn run_agents(lab: &Lab, sources: &[&str], bus: &Bus) -> Result<Vec<Process>, LabError> {
    let program = command()?;
    let mut agents =
        lab.backends.iter().map(|backend| start(backend, &program, sources, bus)).collect::<Result<Vec<_>, _>>()?;
    for (agent, backend) in agents.iter_mut().zip(&lab.backends) {
        agent.wait_until("attaches XDP", START_LIMIT, |_| carries_xdp(&backend.namespace))?;
        agent.wait_for_word("ready", START_LIMIT)?;
    }
    Ok(agents)
}

fn start(backend: &Backend, program: &Path, sources: &[&str], bus: &Bus) -> Result<Process, LabError> {
    let config = AgentConfig {
        backend: &backend.name,
        interface: INTERFACE,
        balancers: sources,
        decap: ["ipip", "gue"],
        vips: VIP.both().map(|vip| vip.to_string()),
        bus: Bus { name: backend.name.clone(), ..bus.clone() },
    };
    let file = backend.directory.join(format!("agent-{}.toml", backend.name));
    let text = toml::to_string(&config).expect("plain values only");
    fs::write(&file, text).map_err(LabError::file("write", &file))?;
    let log = backend.directory.join(format!("agent-{}.log", backend.name));
    Process::start(&backend.namespace, program, &["agent", "--config", &file.to_string_lossy()], log)
}
