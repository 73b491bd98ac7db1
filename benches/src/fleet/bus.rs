//! The bus of a fleet: `nats-server` with its `JetStream`, on a machine of its own.

use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{LabError, addresses::MANAGEMENT, namespace::Namespace, process::Process};

const PORT: u16 = 4222;
const START_LIMIT: Duration = Duration::from_secs(30);

/// Where balancers and agents find it.
pub(crate) fn url() -> String {
    format!("nats://{}:{PORT}", MANAGEMENT.v4)
}

/// A bus that runs, or has been killed.
#[derive(Debug)]
pub(crate) struct BusServer {
    namespace: Namespace,
    /// For its log and what it keeps.
    directory: PathBuf,
    process: Process,
}

impl BusServer {
    /// Starts it; returns when it listens.
    pub(crate) fn start(namespace: Namespace, directory: &Path) -> Result<Self, LabError> {
        let process = run(&namespace, directory)?;
        Ok(Self { namespace, directory: directory.to_owned(), process })
    }

    pub(crate) fn kill(&mut self) -> Result<(), LabError> {
        self.process.end_by(Signal::SIGKILL)
    }

    /// Starts it with what it had kept.
    pub(crate) fn start_again(&mut self) -> Result<(), LabError> {
        self.process = run(&self.namespace, &self.directory)?;
        Ok(())
    }
}

fn run(namespace: &Namespace, directory: &Path) -> Result<Process, LabError> {
    let store = directory.join("jetstream");
    let port = PORT.to_string();
    let args = ["--addr", "0.0.0.0", "--port", &port, "--jetstream", "--store_dir", &store.to_string_lossy()];
    let mut process = Process::start(namespace, Path::new("nats-server"), &args, directory.join("nats.log"))?;
    process
        .wait_until("listens", START_LIMIT, |_| namespace.run(|| TcpStream::connect(("127.0.0.1", PORT)).is_ok()))?;
    Ok(process)
}
