//! Runs `weir agent` on a backend, as an operator would, by the command and its own file.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde::Serialize;

use super::{Bus, METRICS_LISTEN, START_LIMIT, Sample, command, metrics};
use crate::{
    Backend, Lab, LabError,
    addresses::{BALANCER, SERVICE_PORT, VIP},
    namespace::Namespace,
    process::Process,
    topology::INTERFACE,
    wait,
};

/// Ids that tokens have room for: more than a lab has backends.
pub const TOKEN_BACKENDS: u32 = 128;
/// Keys that an agent keeps ready: a burst of connections is not to find none.
pub(crate) const KEYS: u32 = 4096;

/// The pool of the lab's VIPs, as the agent names it.
pub const POOL: &str = "web";

/// A running agent. Dropping it ends it; what it has put on the interface goes with the lab.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    program: PathBuf,
    namespace: Namespace,
    config: PathBuf,
    log: PathBuf,
}

impl Agent {
    /// Runs one on a backend; returns when it is ready. `more` are further lines of its `[agent]` table.
    ///
    /// # Errors
    ///
    /// If there is no `weir` command, or it ends or is not ready in time; with its own words.
    pub fn start(lab: &Lab, backend: &Backend, more: &str) -> Result<Self, LabError> {
        Self::start_from(lab, backend, &text(lab, backend, more))
    }

    /// The same with another configuration.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_from(lab: &Lab, backend: &Backend, text: &str) -> Result<Self, LabError> {
        let program = command()?;
        let config = lab.directory().join(format!("agent-{}.toml", backend.name));
        fs::create_dir_all(lab.pins()).map_err(LabError::file("make", lab.pins()))?;
        fs::write(&config, text).map_err(LabError::file("write", &config))?;
        let log = lab.directory().join(format!("agent-{}.log", backend.name));
        let namespace = backend.namespace.clone();
        let process = run(&namespace, &program, &config, &log)?;
        Ok(Self { process, program, namespace, config, log })
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// If it has ended before.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        self.process.signal(signal)
    }

    /// Ends it by a signal; what is on the interface goes on.
    ///
    /// # Errors
    ///
    /// If it has ended before, or does not end.
    pub fn end_by(&mut self, signal: Signal) -> Result<(), LabError> {
        self.process.end_by(signal)
    }

    /// Starts another in the place of the one that has ended.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<(), LabError> {
        self.process = run(&self.namespace, &self.program, &self.config, &self.log)?;
        Ok(())
    }

    /// Waits until it has begun to mint for every VIP so many times.
    ///
    /// # Errors
    ///
    /// If it does not in time.
    pub fn wait_until_minting(&self, times: usize) -> Result<(), LabError> {
        let wanted = times * VIP.both().len();
        wait::until("the agent mints", START_LIMIT, || {
            Ok((self.log().matches("minting for").count() >= wanted).then_some(()))
        })
    }

    /// Takes away what it has put on the interface; returns what `weir agent --detach` says.
    ///
    /// # Errors
    ///
    /// If it refuses.
    pub fn detach(&self) -> Result<String, LabError> {
        let args = ["agent", "--detach", "--config", &self.config.to_string_lossy()];
        self.namespace.output(&self.program.to_string_lossy(), &args)
    }

    /// Every sample on its metrics page.
    ///
    /// # Errors
    ///
    /// If the page cannot be had or read.
    pub fn metrics(&self) -> Result<Vec<Sample>, LabError> {
        metrics::scrape(&self.namespace)
    }

    /// The process, for who asks the system about it.
    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Runs an agent on each of these backends of a lab, which takes tunnels from these addresses or prefixes; returns when all do.
/// `bus` is the same for all but the name.
///
/// # Errors
///
/// As [`Agent::start`].
pub fn run_all(lab: &Lab, backends: &[Backend], sources: &[&str], bus: &Bus) -> Result<Vec<Agent>, LabError> {
    let start = |backend: &Backend| {
        let bus = bus_text(Bus { name: backend.name.clone(), ..bus.clone() });
        Agent::start_from(lab, backend, &format!("{}{bus}", text_for(lab, backend, sources, "")))
    };
    backends.iter().map(start).collect()
}

/// The same for agents that choose keys whose tokens name their backend; without a bus, for there is nothing to tell. Returns
/// when all of them do.
///
/// # Errors
///
/// As [`Agent::start`], or if one does not begin to mint in time.
pub fn run_all_minting(lab: &Lab, backends: &[Backend], sources: &[&str]) -> Result<Vec<Agent>, LabError> {
    make_secret(lab)?;
    backends.iter().map(|backend| run_minting(lab, backend, sources, TOKEN_BACKENDS)).collect()
}

/// The same for one backend, with room for so many ids; there is a secret.
pub(crate) fn run_minting(
    lab: &Lab,
    backend: &Backend,
    sources: &[&str],
    max_backends: u32,
) -> Result<Agent, LabError> {
    // The kernel's cookies need timestamps without an offset of each connection's own.
    backend.namespace.output("sysctl", &["-q", "-w", "net.ipv4.tcp_timestamps=2"])?;
    let token = format!(
        "[token]\nsecret = \"{}\"\nid = {}\nmax_backends = {max_backends}\nkeys = {KEYS}\n",
        token_secret(lab).display(),
        backend.number,
    );
    let agent = Agent::start_from(lab, backend, &format!("{}{token}", text_for(lab, backend, sources, "")))?;
    agent.wait_until_minting(1)?;
    Ok(agent)
}

/// Makes the secret of tokens.
pub(crate) fn make_secret(lab: &Lab) -> Result<(), LabError> {
    let secret = token_secret(lab);
    let args = ["secret", "new", &secret.to_string_lossy()];
    lab.backends[0].namespace.output(&command()?.to_string_lossy(), &args).map(drop)
}

/// Adds an epoch to that secret.
///
/// # Errors
///
/// If `weir secret rotate` refuses.
pub fn rotate_secret(lab: &Lab, after: &str) -> Result<(), LabError> {
    let (program, secret) = (command()?, token_secret(lab));
    let args = ["secret", "rotate", "--after", after, &secret.to_string_lossy()];
    lab.backends[0].namespace.output(&program.to_string_lossy(), &args).map(drop)
}

/// Where the secret of tokens is that those agents share with the balancers.
pub fn token_secret(lab: &Lab) -> PathBuf {
    lab.directory().join("token.secret")
}

fn bus_text(bus: Bus) -> String {
    #[derive(Serialize)]
    struct Table {
        bus: Bus,
    }
    toml::to_string(&Table { bus }).expect("plain values only")
}

/// The configuration of an agent of the lab.
pub fn text(lab: &Lab, backend: &Backend, more: &str) -> String {
    let [v4, v6] = BALANCER.both().map(|address| address.to_string());
    text_for(lab, backend, &[&v4, &v6], more)
}

fn text_for(lab: &Lab, backend: &Backend, sources: &[&str], more: &str) -> String {
    let (name, pins) = (&backend.name, lab.pins().join(format!("agent-{}", backend.name)));
    let mut text = format!(
        "[agent]\nbackend = {name:?}\ninterface = {INTERFACE:?}\nbalancers = {sources:?}\npins = \"{}\"\n{more}\n\
         [metrics]\nlisten = {METRICS_LISTEN:?}\n",
        pins.display()
    );
    for vip in VIP.both() {
        let _ = writeln!(text, "[[vip]]\naddress = \"{vip}\"\nport = {SERVICE_PORT}\npool = {POOL:?}");
    }
    text
}

fn run(namespace: &Namespace, program: &Path, config: &Path, log: &Path) -> Result<Process, LabError> {
    let args = ["agent", "--config", &config.to_string_lossy()];
    let mut process = Process::start(namespace, program, &args, log.to_owned())?;
    process.wait_for_word("ready", START_LIMIT)?;
    Ok(process)
}
