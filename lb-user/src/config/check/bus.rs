//! Checks of the `[bus]` table.

use super::super::{Bus, Name, Problem, Trust, bus::Credentials, file};
use super::Findings;
use std::{fs, ops::Range};
use toml::Spanned;

#[expect(clippy::option_option, reason = "absent and wrong are different")]
pub(super) fn bus(written: Option<&file::Bus>, findings: &mut Findings<'_>) -> Option<Option<Bus>> {
    let Some(written) = written else { return Some(None) };
    let servers = written.servers.get_ref();
    if servers.is_empty() {
        findings.problem(written.servers.span(), Problem::NoBusServer);
    }
    let servers: Vec<_> = servers.iter().map(|url| findings.parse(url, server)).collect();
    let cluster = findings.parse(&written.cluster, cluster);
    let name = own_name(written.name.as_ref(), written.cluster.span(), findings);
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

/// The name of this machine: as written, or else the host's, about which there is something to say at `place`.
pub(super) fn own_name(
    written: Option<&Spanned<String>>,
    place: Range<usize>,
    findings: &mut Findings<'_>,
) -> Option<Name> {
    if let Some(name) = written {
        return findings.parse(name, str::parse);
    }
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    findings.parse_at(host.trim(), place, str::parse)
}
