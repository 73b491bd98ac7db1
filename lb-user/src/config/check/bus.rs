//! Checks of the `[bus]` table.

use super::super::{Bus, Name, Problem, Trust, bus::Credentials, file};
use super::Findings;
use std::fs;

#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn bus(written: Option<&file::Bus>, findings: &mut Findings<'_>) -> Option<Option<Bus>> {
    let Some(written) = written else { return Some(None) };
    let servers = written.servers.get_ref();
    if servers.is_empty() {
        findings.problem(written.servers.span(), Problem::NoBusServer);
    }
    let servers: Vec<_> = servers.iter().map(|url| findings.parse(url, server)).collect();
    let cluster = findings.parse(&written.cluster, cluster);
    let name = match &written.name {
        Some(name) => findings.parse(name, str::parse),
        None => findings.parse_at(&host_name(), written.cluster.span(), str::parse),
    };
    let credentials = match &written.credentials {
        None => Some(None),
        Some(path) => Credentials::load(path.get_ref())
            .map_err(|error| findings.problem(path.span(), Problem::Credentials(error)))
            .map(Some)
            .ok(),
    };
    let ca = match &written.ca {
        None => Some(None),
        // The connection reads it again whenever it is made.
        Some(path) => Trust::load(path.get_ref())
            .map_err(|error| findings.problem(path.span(), Problem::Trust(error)))
            .map(|_| Some(path.get_ref().clone()))
            .ok(),
    };
    let servers: Option<Vec<_>> = servers.into_iter().collect();
    Some(Some(Bus {
        servers: servers.filter(|servers| !servers.is_empty())?,
        cluster: cluster?,
        name: name?,
        credentials: credentials?,
        ca: ca?,
    }))
}

fn server(text: &str) -> Result<String, Problem> {
    let host = text.strip_prefix("nats://").or_else(|| text.strip_prefix("tls://"));
    let is_one = host.is_some_and(|host| !host.is_empty()) && text.parse::<async_nats::ServerAddr>().is_ok();
    // What stands in front of an @ is a secret, and belongs into the credentials' file.
    if is_one && !text.contains('@') { Ok(text.to_owned()) } else { Err(Problem::BusServer) }
}

fn cluster(text: &str) -> Result<Name, Problem> {
    if text.contains('.') { Err(Problem::BusCluster(text.to_owned())) } else { text.parse() }
}

fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
