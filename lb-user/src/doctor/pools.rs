//! Whether every pool has a backend for new connections: by what the running balancer says, which knows of orders and health
//! checks, or by the configuration where none runs.

use super::Finding;
use crate::{
    admin::{
        Client, ClientError,
        status::{BackendStatus, Status, takes_nobody},
    },
    config::{BackendState, Config, Pool},
};
use std::path::Path;

/// What is to be said of the pools of the balancer behind a socket, or of a configuration.
pub(super) async fn findings(config: &Config, file: &Path, socket: &Path) -> Vec<Finding> {
    match Client::new(socket).get::<Status>("/v1/status").await {
        Ok(status) => as_it_runs(&status, file),
        Err(ClientError::Connect { .. }) => as_configured(config, file),
        Err(error) => {
            let unasked = Finding::warning("pool", format!("the running balancer could not be asked: {error}")).advise(
                format!("its orders to drain and its health checks are not looked at, only {}", file.display()),
            );
            [vec![unasked], as_configured(config, file)].concat()
        }
    }
}

fn as_it_runs(status: &Status, file: &Path) -> Vec<Finding> {
    let idle = status.pools.iter().filter(|pool| pool.takes_nobody);
    let found = idle.map(|pool| {
        let finding = Finding::fault("pool", takes_nobody(&pool.name));
        let backends = status.backends.iter().filter(|backend| backend.pool == pool.name && !backend.leaving);
        remedied(finding, backends, file)
    });
    or_good(found.collect(), status.pools.len())
}

/// With what brings a backend back: its order taken back, its checks passed, or another configuration.
fn remedied<'s>(finding: Finding, backends: impl Iterator<Item = &'s BackendStatus>, file: &Path) -> Finding {
    let mut meant: Vec<_> = backends.filter(|backend| backend.state == "up" && backend.weight > 0).collect();
    // What takes one command comes first.
    meant.sort_by_key(|backend| !backend.drain_ordered);
    match meant.first() {
        Some(BackendStatus { pool, name, drain_ordered: true, .. }) => finding
            .mend(format!("weir backend enable {pool}/{name}"))
            .advise("somebody has ordered it to drain; `weir backend list` shows the others"),
        Some(BackendStatus { pool, name, .. }) => finding.mend(format!("weir backend show {pool}/{name}")).advise(
            "its health checks keep it out, and that shows the last error; `weir backend list` shows the others",
        ),
        None => finding.advise(format!("{}, then `weir reload`", another(file))),
    }
}

fn as_configured(config: &Config, file: &Path) -> Vec<Finding> {
    let takes =
        |pool: &&Pool| pool.backends.iter().any(|backend| backend.state == BackendState::Up && backend.weight > 0);
    let idle = config.pools.iter().filter(|pool| !takes(pool));
    let found = idle.map(|pool| Finding::fault("pool", takes_nobody(pool.name.as_str())).advise(another(file)));
    or_good(found.collect(), config.pools.len())
}

fn another(file: &Path) -> String {
    format!("give one of its backends `state = \"up\"` and a weight above 0 in {}", file.display())
}

fn or_good(found: Vec<Finding>, pools: usize) -> Vec<Finding> {
    if found.is_empty() {
        return vec![Finding::good("pool", format!("{pools} of {pools} pools have a backend for new connections"))];
    }
    found
}
