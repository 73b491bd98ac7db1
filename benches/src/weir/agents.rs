//! `weir agent` on every backend: it takes the tunnels off, and tells the balancers what its kernel says of connections.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{
    Bus, START_LIMIT, carries_xdp, command,
    config::{METRICS_LISTEN, MetricsTable, POOL},
};
use crate::{
    Backend, Lab, LabError,
    addresses::{SERVICE_PORT, VIP},
    process::Process,
    topology::INTERFACE,
};

/// A configuration file for `weir agent`.
#[derive(Debug, Serialize)]
struct AgentConfig<'a> {
    agent: AgentTable<'a>,
    metrics: MetricsTable,
    bus: Bus,
    vip: [VipTable; 2],
}

#[derive(Debug, Serialize)]
struct AgentTable<'a> {
    backend: &'a str,
    interface: &'static str,
    balancers: &'a [&'a str],
    pins: PathBuf,
}

#[derive(Debug, Serialize)]
struct VipTable {
    address: String,
    port: u16,
    pool: &'static str,
}

/// Runs an agent on every backend of a lab, which takes tunnels from these addresses or prefixes; returns when all do.
/// `bus` is the same for all but the name.
///
/// # Errors
///
/// If there is no `weir` command, or one of them is not ready in time; with its own words.
pub fn run_agents(lab: &Lab, sources: &[&str], bus: &Bus) -> Result<Vec<Process>, LabError> {
    let program = command()?;
    let agents = lab.backends.iter().map(|backend| start(lab, backend, &program, sources, bus));
    let mut agents = agents.collect::<Result<Vec<_>, _>>()?;
    for (agent, backend) in agents.iter_mut().zip(&lab.backends) {
        agent.wait_for_word("ready", START_LIMIT)?;
        agent.wait_until("attaches XDP", START_LIMIT, |_| carries_xdp(&backend.namespace))?;
    }
    Ok(agents)
}

fn start(lab: &Lab, backend: &Backend, program: &Path, sources: &[&str], bus: &Bus) -> Result<Process, LabError> {
    let vip = |address: std::net::IpAddr| VipTable { address: address.to_string(), port: SERVICE_PORT, pool: POOL };
    let config = AgentConfig {
        agent: AgentTable {
            backend: &backend.name,
            interface: INTERFACE,
            balancers: sources,
            pins: lab.pins().join(format!("agent-{}", backend.name)),
        },
        metrics: MetricsTable { listen: METRICS_LISTEN },
        bus: Bus { name: backend.name.clone(), ..bus.clone() },
        vip: VIP.both().map(vip),
    };
    let file = backend.directory.join(format!("agent-{}.toml", backend.name));
    let text = toml::to_string(&config).expect("plain values only");
    fs::write(&file, text).map_err(LabError::file("write", &file))?;
    let log = backend.directory.join(format!("agent-{}.log", backend.name));
    Process::start(&backend.namespace, program, &["agent", "--config", &file.to_string_lossy()], log)
}
