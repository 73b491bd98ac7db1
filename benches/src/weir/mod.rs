//! Runs Weir in a lab: `weir run` in the balancer's namespace and `weir decap` on each backend, as
//! an operator would, by the command. The lab knows Weir's command line, configuration and metrics
//! page and nothing else of it.

pub mod agent;
mod config;
mod key;
mod metrics;
mod status;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Duration,
};

pub use agent::Agent;
pub use config::{Alias, Bus, Join, PoolBackend, Vip, WeirConfig};
pub use key::KeyFile;
pub use metrics::Sample;
pub use status::{BackendStatus, WeirStatus};

use config::METRICS_LISTEN;
use nix::sys::signal::Signal;

use crate::{
    Backend, Balancer, Lab, LabError,
    addresses::{BALANCER, join_address},
    namespace::Namespace,
    process::Process,
    topology::INTERFACE,
};

/// Loading and verifying the programs takes most of a start.
const START_LIMIT: Duration = Duration::from_secs(30);
const RELOAD_LIMIT: Duration = Duration::from_secs(10);
/// The configuration, in the lab's directory.
const CONFIG: &str = "weir.toml";
/// The admin socket, likewise.
const SOCKET: &str = "weir.sock";

/// A running balancer with its decapsulating backends. Dropping it stops them.
#[derive(Debug)]
pub struct Weir {
    balancer: Process,
    program: PathBuf,
    namespace: Namespace,
    /// Where its configuration, log and admin socket are.
    directory: PathBuf,
    decapsulators: Vec<Process>,
}

impl Weir {
    /// Runs Weir in `lab` with `config`; returns when it forwards and every backend decapsulates.
    ///
    /// # Errors
    ///
    /// If there is no `weir` command, or a process ends or is not ready in time; with its own words.
    pub fn start(lab: &Lab, config: &WeirConfig) -> Result<Self, LabError> {
        let decapsulators = decapsulate(&lab.backends, &config.sources())?;
        Ok(Self { decapsulators, ..Self::start_alone(&lab.balancer, config)? })
    }

    /// Runs Weir on one balancer, for backends that decapsulate already; returns when it forwards.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_alone(balancer: &Balancer, config: &WeirConfig) -> Result<Self, LabError> {
        let program = command()?;
        write_config(&balancer.directory, config)?;
        Ok(Self {
            balancer: run(&balancer.namespace, &program, &balancer.directory)?,
            program,
            namespace: balancer.namespace.clone(),
            directory: balancer.directory.clone(),
            decapsulators: Vec::new(),
        })
    }

    /// The controller's process.
    pub fn process_id(&self) -> u32 {
        self.balancer.id()
    }

    /// The machine that it runs on.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The `weir` command that runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Sends the controller a signal.
    ///
    /// # Errors
    ///
    /// If it has ended before.
    pub fn signal(&mut self, signal: Signal) -> Result<(), LabError> {
        self.balancer.signal(signal)
    }

    /// Its configuration file.
    pub fn config(&self) -> PathBuf {
        self.directory.join(CONFIG)
    }

    /// Its admin socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(SOCKET)
    }

    /// Sets the backends up as an operator does: by the script that `weir backend setup` prints for each. The addresses
    /// at which clients join them are routed to the balancer.
    ///
    /// # Errors
    ///
    /// If there is no script, or something in it is refused.
    pub fn set_up_backends(&self, lab: &Lab) -> Result<(), LabError> {
        for backend in &lab.backends {
            self.set_up_backend(backend)?;
            let route = format!("route replace {}/128 via {}\n", join_address(backend.number), BALANCER.v6);
            lab.router.namespace.ip_batch(&route)?;
        }
        Ok(())
    }

    /// The same with one backend, and no route.
    ///
    /// # Errors
    ///
    /// As [`Self::set_up_backends`].
    pub fn set_up_backend(&self, backend: &Backend) -> Result<(), LabError> {
        let (program, config) = (self.program.display().to_string(), self.config().display().to_string());
        // What the lab itself had announced.
        backend.namespace.output("ip", &["mptcp", "endpoint", "flush"])?;
        let script = backend.namespace.output(&program, &["backend", "setup", &backend.name, "--config", &config])?;
        backend.namespace.output("sh", &["-c", &script])?;
        Ok(())
    }

    /// Gives it another configuration, as an operator does: by the file and SIGHUP. Returns when it is in force, with
    /// the number of slots that changed.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or Weir refuses it or says nothing in time.
    pub fn reload(&mut self, config: &WeirConfig) -> Result<usize, LabError> {
        let told_before = self.reloads().len();
        write_config(&self.directory, config)?;
        self.balancer.signal(Signal::SIGHUP)?;
        let mut told = String::new();
        self.balancer.wait_until("reloads", RELOAD_LIMIT, |process| {
            reloads(&process.log()).nth(told_before).unwrap_or_default().clone_into(&mut told);
            Ok(!told.is_empty())
        })?;
        slots_changed(&told).ok_or(LabError::Output { program: "weir", line: told })
    }

    /// Has it begin to reload another configuration, and does not wait.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or Weir has ended.
    pub fn begin_reload(&mut self, config: &WeirConfig) -> Result<(), LabError> {
        write_config(&self.directory, config)?;
        self.balancer.signal(Signal::SIGHUP)
    }

    /// The same as [`Self::reload`] with a text that it is to refuse. Returns why it did.
    ///
    /// # Errors
    ///
    /// As [`Self::reload`]; or if it did not refuse.
    pub fn reload_text(&mut self, text: &str) -> Result<String, LabError> {
        let told_before = self.reloads().len();
        let file = self.config();
        fs::write(&file, text).map_err(LabError::file("write", &file))?;
        self.balancer.signal(Signal::SIGHUP)?;
        let mut told = String::new();
        self.balancer.wait_until("refuses to reload", RELOAD_LIMIT, |process| {
            reloads(&process.log()).nth(told_before).unwrap_or_default().clone_into(&mut told);
            Ok(!told.is_empty())
        })?;
        if told.contains("not reloaded") { Ok(told) } else { Err(LabError::Output { program: "weir", line: told }) }
    }

    /// How many slots another configuration would change, as `weir reload --dry-run` says. The file is as it was
    /// afterwards.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or Weir refuses.
    pub fn dry_run(&self, config: &WeirConfig) -> Result<usize, LabError> {
        let file = self.config();
        let before = fs::read_to_string(&file).map_err(LabError::file("read", &file))?;
        write_config(&self.directory, config)?;
        let printed = self.ask(&["reload", "--dry-run", "--output", "json"]);
        fs::write(&file, before).map_err(LabError::file("write", &file))?;
        let printed = printed?;
        let answer: Result<serde_json::Value, _> = serde_json::from_str(&printed);
        let slots = answer.ok().and_then(|answer| answer["slots_changed"].as_u64());
        let slots = slots.and_then(|slots| usize::try_from(slots).ok());
        slots.ok_or(LabError::Output { program: "weir reload", line: printed })
    }

    /// Starts a command that asks the running balancer and goes on; what it says goes to the file `log`.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start_command(&self, args: &[&str], log: &str) -> Result<Process, LabError> {
        let socket = self.socket();
        let socket = socket.to_string_lossy();
        let args = [args, &["--socket", &socket]].concat();
        Process::start(&self.namespace, &self.program, &args, self.directory.join(log))
    }

    /// Ends the controller by a signal; what steers goes on.
    ///
    /// # Errors
    ///
    /// If it has ended before, or does not end.
    pub fn end_by(&mut self, signal: Signal) -> Result<(), LabError> {
        self.balancer.end_by(signal)
    }

    /// Starts a controller in the place of the one that has ended, with the configuration as it is; returns when it is
    /// ready.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> Result<(), LabError> {
        self.balancer = run(&self.namespace, &self.program, &self.directory)?;
        Ok(())
    }

    /// Writes another configuration, and tells nobody.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn configure(&self, config: &WeirConfig) -> Result<(), LabError> {
        write_config(&self.directory, config)
    }

    /// Takes the data path down by `weir detach`; returns what that says.
    ///
    /// # Errors
    ///
    /// If it refuses.
    pub fn detach(&self) -> Result<String, LabError> {
        let file = self.config();
        self.namespace.output(&self.program.to_string_lossy(), &["detach", "--config", &file.to_string_lossy()])
    }

    /// Runs another controller on the same tables, at a socket and a metrics page of its own. Returns when it has ended.
    ///
    /// # Errors
    ///
    /// With what it says.
    pub fn run_beside(&self) -> Result<String, LabError> {
        let text = fs::read_to_string(self.config()).map_err(LabError::file("read", CONFIG))?;
        let file = self.directory.join("beside.toml");
        let text = text.replace(METRICS_LISTEN, "127.0.0.1:9108");
        fs::write(&file, text).map_err(LabError::file("write", &file))?;
        let (file, socket) = (file.to_string_lossy(), self.directory.join("beside.sock"));
        let args = ["run", "--config", &file, "--socket", &socket.to_string_lossy()];
        self.namespace.output(&self.program.to_string_lossy(), &args)
    }

    /// Puts a program that is not the balancer's on its interface, for as long as this lives. Returns the number of the
    /// process that has it.
    ///
    /// # Errors
    ///
    /// If it is not there in time.
    pub fn occupy(&mut self, lab: &Lab) -> Result<u32, LabError> {
        let log = self.directory.join("occupant.log");
        let args = ["decap", "--interface", INTERFACE, "--from", "127.0.0.1"];
        let mut process = Process::start(&lab.balancer.namespace, &self.program, &args, log)?;
        process.wait_for_word("ready", START_LIMIT)?;
        let id = process.id();
        self.decapsulators.push(process);
        Ok(id)
    }

    /// Has the next controller be another file: a copy under a name in the lab's directory.
    ///
    /// # Errors
    ///
    /// If it cannot be copied.
    pub fn replace_binary(&mut self, name: &str) -> Result<(), LabError> {
        let copy = self.directory.join(name);
        fs::copy(&self.program, &copy).map_err(LabError::file("write", &copy))?;
        self.program = copy;
        Ok(())
    }

    fn reloads(&self) -> Vec<String> {
        reloads(&self.balancer.log()).map(str::to_owned).collect()
    }

    /// What `weir status` says.
    ///
    /// # Errors
    ///
    /// If it does not answer, or not in JSON.
    pub fn status(&self) -> Result<WeirStatus, LabError> {
        status::read(&self.namespace, &self.program, &self.socket())
    }

    /// What a command of `weir` that asks the running one prints, such as `backend list`.
    ///
    /// # Errors
    ///
    /// If it fails; with what it said.
    pub fn ask(&self, command: &[&str]) -> Result<String, LabError> {
        let socket = self.socket();
        let socket = socket.to_string_lossy();
        let args = [command, &["--socket", &socket]].concat();
        self.namespace.output(&self.program.to_string_lossy(), &args)
    }

    /// Every sample on the metrics page.
    ///
    /// # Errors
    ///
    /// If the page cannot be had or read.
    pub fn metrics(&self) -> Result<Vec<Sample>, LabError> {
        metrics::scrape(&self.namespace)
    }

    /// Whether `/healthz` says that packets are steered, and this balancer may be announced.
    ///
    /// # Errors
    ///
    /// If the page cannot be had.
    pub fn is_well(&self) -> Result<bool, LabError> {
        metrics::is_well(&self.namespace)
    }

    /// What the balancer has logged.
    pub fn log(&self) -> String {
        self.balancer.log()
    }
}

/// Starts `weir run`; returns when it says that it is ready.
fn run(namespace: &Namespace, program: &Path, directory: &Path) -> Result<Process, LabError> {
    let (file, socket) = (directory.join(CONFIG), directory.join(SOCKET));
    let args = ["run", "--config", &file.to_string_lossy(), "--socket", &socket.to_string_lossy()];
    let mut process = Process::start(namespace, program, &args, directory.join("weir.log"))?;
    process.wait_for_word("ready", START_LIMIT)?;
    Ok(process)
}

impl Backend {
    /// Starts `weir decap`, which accepts tunnels from these sources alone.
    fn run_decap(&self, program: &Path, sources: &[&str]) -> Result<Process, LabError> {
        let log = self.directory.join(format!("decap-{}.log", self.name));
        let mut args = vec!["decap", "--interface", INTERFACE];
        args.extend(sources.iter().flat_map(|source| ["--from", source]));
        Process::start(&self.namespace, program, &args, log)
    }
}

/// Has each of these backends take tunnels off that come from these addresses or prefixes; returns when all do.
///
/// # Errors
///
/// If there is no `weir` command, or one of them does not start in time; with its own words.
pub fn decapsulate(backends: &[Backend], sources: &[&str]) -> Result<Vec<Process>, LabError> {
    let program = command()?;
    let decapsulators = backends.iter().map(|backend| backend.run_decap(&program, sources));
    let mut decapsulators = decapsulators.collect::<Result<Vec<_>, _>>()?;
    for (process, backend) in decapsulators.iter_mut().zip(backends) {
        process.wait_until("attaches XDP", START_LIMIT, |_| carries_xdp(&backend.namespace))?;
    }
    Ok(decapsulators)
}

fn write_config(directory: &Path, config: &WeirConfig) -> Result<(), LabError> {
    let file = directory.join(CONFIG);
    fs::write(&file, config.to_toml()).map_err(LabError::file("write", &file))
}

/// What Weir has said of its reloads, one line each.
fn reloads(log: &str) -> impl Iterator<Item = &str> {
    // A line that is being written is not over yet.
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter(|line| line.contains("reloaded: ") || line.contains("not reloaded")).map(str::trim_end)
}

fn slots_changed(reloaded: &str) -> Option<usize> {
    let (before, _) = reloaded.split_once(" slots changed")?;
    before.rsplit(' ').next()?.parse().ok()
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
