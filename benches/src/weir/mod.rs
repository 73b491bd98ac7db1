//! Runs Weir in a lab: `weir run` in the balancer's namespace and `weir decap` on each backend, as
//! an operator would, by the command. The lab knows Weir's command line, configuration and metrics
//! page and nothing else of it.

mod config;
mod metrics;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use config::{Join, WeirConfig};
pub use metrics::Sample;

use crate::{
    Backend, Balancer, Lab, LabError, addresses::BALANCER, namespace::Namespace, process::Process, topology::INTERFACE,
};

/// Loading and verifying the programs takes most of a start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A running balancer with its decapsulating backends. Dropping it stops them.
#[derive(Debug)]
pub struct Weir {
    balancer: Process,
    namespace: Namespace,
    _decapsulators: Vec<Process>,
}

impl Weir {
    /// Runs Weir in `lab` with `config`; returns when it forwards and every backend decapsulates.
    ///
    /// # Errors
    ///
    /// If there is no `weir` command, or a process ends or is not ready in time; with its own words.
    pub fn start(lab: &Lab, config: &WeirConfig) -> Result<Self, LabError> {
        let program = command()?;
        let mut decapsulators =
            lab.backends.iter().map(|backend| backend.run_decap(&program)).collect::<Result<Vec<_>, _>>()?;
        for (process, backend) in decapsulators.iter_mut().zip(&lab.backends) {
            process.wait_until("attaches XDP", START_LIMIT, |_| carries_xdp(&backend.namespace))?;
        }
        Ok(Self {
            balancer: lab.balancer.run_weir(&program, config)?,
            namespace: lab.balancer.namespace.clone(),
            _decapsulators: decapsulators,
        })
    }

    /// Every sample on the metrics page.
    ///
    /// # Errors
    ///
    /// If the page cannot be had or read.
    pub fn metrics(&self) -> Result<Vec<Sample>, LabError> {
        metrics::scrape(&self.namespace)
    }

    /// What the balancer has logged.
    pub fn log(&self) -> String {
        self.balancer.log()
    }
}

impl Balancer {
    /// Starts `weir run`; returns when it says that it is ready.
    fn run_weir(&self, program: &Path, config: &WeirConfig) -> Result<Process, LabError> {
        let file = self.directory.join("weir.toml");
        fs::write(&file, config.to_toml()).map_err(LabError::file("write", &file))?;
        let file = file.to_string_lossy();
        let log = self.directory.join("weir.log");
        let args = ["run", "--config", &file];
        let mut process = Process::start(&self.namespace, program, &args, log)?;
        process.wait_for_word("ready", START_LIMIT)?;
        Ok(process)
    }
}

impl Backend {
    /// Starts `weir decap`, which accepts tunnels from the balancer alone.
    fn run_decap(&self, program: &Path) -> Result<Process, LabError> {
        let log = self.directory.join(format!("decap-{}.log", self.name));
        let [from_v4, from_v6] = BALANCER.both().map(|address| address.to_string());
        let args = ["decap", "--interface", INTERFACE, "--from", &from_v4, "--from", &from_v6];
        Process::start(&self.namespace, program, &args, log)
    }
}

/// Whether the kernel says that an XDP program is on the interface.
fn carries_xdp(namespace: &Namespace) -> Result<bool, LabError> {
    let link = namespace.output("ip", &["-json", "link", "show", "dev", INTERFACE])?;
    Ok(link.contains("\"xdp\""))
}

/// `WEIR_BIN`, or `weir` where cargo put this program (tests are one directory below).
fn command() -> Result<PathBuf, LabError> {
    if let Some(path) = env::var_os("WEIR_BIN").map(PathBuf::from) {
        return if path.exists() { Ok(path) } else { Err(LabError::NoWeir(path)) };
    }
    let this = env::current_exe().map_err(LabError::system("find this program's file"))?;
    let beside = |levels: usize| this.ancestors().nth(levels).map(|place| place.join("weir"));
    let candidates: Vec<PathBuf> = [1, 2].into_iter().filter_map(beside).collect();
    let found = candidates.iter().find(|candidate| candidate.is_file());
    found.cloned().ok_or_else(|| LabError::NoWeir(candidates[0].clone()))
}
