//! The kernel's own account of connections as they come and go: `ip mptcp monitor`, which prints the
//! generic netlink events `mptcp_pm_events`.

use std::{fs, path::Path, time::Duration};

use crate::{Backend, LabError, namespace::Namespace, oracle::Token, process::Process};

const START_LIMIT: Duration = Duration::from_secs(5);

/// A monitor on one backend, from its start to its drop.
#[derive(Debug)]
pub struct Monitor {
    process: Process,
}

impl Monitor {
    /// Starts one; returns when it listens.
    ///
    /// # Errors
    ///
    /// If `ip` cannot be run.
    pub fn start(backend: &Backend) -> Result<Self, LabError> {
        let log = backend.directory.join(format!("monitor-{}.log", backend.name));
        let args = ["mptcp", "monitor"];
        let mut process = Process::start(&backend.namespace, Path::new("ip"), &args, log)?;
        process.wait_until("listens to netlink", START_LIMIT, |_| subscribed(&backend.namespace))?;
        Ok(Self { process })
    }

    /// The tokens of the connections that were created since the start, in order.
    pub fn created(&self) -> Vec<Token> {
        self.tokens_of("CREATED")
    }

    /// The tokens of the connections that were closed since the start, in order.
    pub fn closed(&self) -> Vec<Token> {
        self.tokens_of("CLOSED")
    }

    /// Lines begin with the event in brackets, padded: `[       CREATED] token=3c614612 ...`.
    fn tokens_of(&self, event: &str) -> Vec<Token> {
        let of_event = |line: &&str| {
            let name = line.trim_start_matches('[').split(']').next();
            name.is_some_and(|name| name.trim() == event)
        };
        let log = self.process.log();
        log.lines()
            .filter(of_event)
            .flat_map(str::split_whitespace)
            .filter_map(|word| Token::parse(word.strip_prefix("token=")?))
            .collect()
    }
}

/// Whether some socket in `namespace` is in a generic netlink group (protocol 16): the columns are
/// socket, protocol, port and groups.
fn subscribed(namespace: &Namespace) -> Result<bool, LabError> {
    let sockets = "/proc/thread-self/net/netlink";
    let listing = namespace.run(|| fs::read_to_string(sockets))?.map_err(LabError::file("read", sockets))?;
    Ok(listing.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let protocol = columns.next();
        let groups = columns.nth(1);
        protocol == Some("16") && groups != Some("00000000")
    }))
}
