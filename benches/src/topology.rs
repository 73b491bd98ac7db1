//! A lab: its namespaces, links, addresses, routes and MPTCP settings, and the service on each
//! backend.
//!
//! ```text
//!            path 1 .-------.          .------.
//!  client ----------|       |----------| weir |   VIPs are routed here; the balancer
//!         ----------| router|          '------'   sends back out of the same interface
//!            path 2 |       |----- b1 ... bn      VIPs on lo; answers go straight back
//!                   '-------'
//! ```
//!
//! Building either gives a working lab or leaves nothing. The host's own network is never changed.

pub(crate) mod links;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::Uid;

use crate::{
    LabError,
    addresses::{self, BACKENDS_MAX, BALANCER, CORE_MTU, DualAddress},
    delay::DelayLine,
    leftovers,
    namespace::Namespace,
    owner::LabName,
    server::Server,
    xdp::Attached,
};

/// The interface by which the balancer and each backend reach the router.
pub const INTERFACE: &str = "eth0";

/// How many backends a lab has: 1 to 64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackendCount(u8);

impl BackendCount {
    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl Default for BackendCount {
    fn default() -> Self {
        Self(3)
    }
}

impl fmt::Display for BackendCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u8> for BackendCount {
    type Error = LabError;

    fn try_from(asked: u8) -> Result<Self, LabError> {
        if (1..=BACKENDS_MAX).contains(&asked) {
            return Ok(Self(asked));
        }
        Err(LabError::BackendCount { asked })
    }
}

/// What a lab will be.
#[derive(Debug)]
pub struct LabBuilder {
    backends: BackendCount,
    core_mtu: u16,
    round_trip: Option<Duration>,
    duplicates_syns: bool,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self { backends: BackendCount::default(), core_mtu: CORE_MTU, round_trip: None, duplicates_syns: false }
    }
}

impl LabBuilder {
    /// Sets how many backends (3 by default).
    #[must_use]
    pub fn backends(self, backends: BackendCount) -> Self {
        Self { backends, ..self }
    }

    /// Sets the largest packet between router, balancer and backends, in bytes ([`CORE_MTU`] by default).
    #[must_use]
    pub fn core_mtu(self, core_mtu: u16) -> Self {
        Self { core_mtu, ..self }
    }

    /// Puts a line on each of the client's paths, which takes a packet so long from the client to the router and back, at
    /// least. A line of no length is one too: what leaves it is bytes, as on a wire. A packet that comes straight from
    /// another namespace still has the hash of its sender's socket, and the router's kernel would spread flows by that
    /// hash, which is random and changes when a packet is sent again.
    #[must_use]
    pub fn round_trip(self, round_trip: Duration) -> Self {
        Self { round_trip: Some(round_trip), ..self }
    }

    /// Has that line deliver each SYN twice.
    #[must_use]
    pub fn duplicating_syns(self) -> Self {
        Self { duplicates_syns: true, ..self }
    }

    /// Clears what dead labs left, then makes this one.
    ///
    /// # Errors
    ///
    /// If this process is not root, a tool is missing, or the kernel refuses something.
    pub fn build(self) -> Result<Lab, LabError> {
        if !Uid::effective().is_root() {
            return Err(LabError::NotRoot);
        }
        leftovers::clear_dead()?;
        let teardown = Teardown(LabName::unique());
        let lab = teardown.0;
        let directory = leftovers::directory(lab);
        fs::create_dir_all(&directory).map_err(LabError::file("create", &directory))?;

        let client = Client { namespace: Namespace::of(lab, "client") };
        let router = Namespace::of(lab, "router");
        let balancer = Balancer {
            namespace: Namespace::of(lab, "weir"),
            address: BALANCER,
            directory: directory.clone(),
            pins: leftovers::pins(lab),
        };
        let namespaces: Vec<(u8, Namespace)> =
            (1..=self.backends.0).map(|number| (number, Namespace::of(lab, &format!("b{number}")))).collect();
        let line = self.round_trip.map(|round_trip| (Namespace::of(lab, "line"), round_trip));
        let beside = line.as_ref().map(|(line, _)| line);
        links::lay(&client.namespace, &router, &balancer.namespace, &namespaces, beside, self.core_mtu)?;
        let start =
            |(line, round_trip)| DelayLine::start(&line, &links::line_ends(), round_trip / 2, self.duplicates_syns);
        let line = line.map(start).transpose()?;

        Ok(Lab {
            client,
            router: Router {
                beside_balancer: Some(Attached::passing(&router, links::BALANCER_SIDE)?),
                namespace: router,
            },
            balancer,
            backends: namespaces
                .into_iter()
                .map(|(number, namespace)| Backend::start(number, namespace, &directory))
                .collect::<Result<_, _>>()?,
            line,
            teardown,
        })
    }
}

/// A lab. Dropping it removes everything that it made.
#[derive(Debug)]
pub struct Lab {
    /// Where connections begin.
    pub client: Client,
    /// What joins the others.
    pub router: Router,
    /// Where Weir runs.
    pub balancer: Balancer,
    /// Where connections end, b1 first.
    pub backends: Vec<Backend>,
    /// What the client's paths lead through, if there is something.
    pub line: Option<DelayLine>,
    /// Last, so that the servers are gone before their namespaces.
    teardown: Teardown,
}

impl Lab {
    /// Begins to describe a lab.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The lab's name, which the names of all that it makes begin with.
    pub fn name(&self) -> LabName {
        self.teardown.0
    }

    /// Where its files are, which go with it.
    pub fn directory(&self) -> PathBuf {
        leftovers::directory(self.name())
    }

    /// Where Weir's pins are, which go with it.
    pub fn pins(&self) -> PathBuf {
        leftovers::pins(self.name())
    }

    /// Kills a backend, counted from 0, as a power cut does: its link is down, then its service and all its
    /// connections are gone, and no reset of them gets out.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn kill_backend(&mut self, index: usize) -> Result<(), LabError> {
        let backend = &mut self.backends[index];
        self.router.namespace.ip_batch(&format!("link set {} down\n", backend.name))?;
        backend.server = None;
        Ok(())
    }

    /// Brings a killed backend back, without its connections.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn revive_backend(&mut self, index: usize) -> Result<(), LabError> {
        let backend = &mut self.backends[index];
        backend.server = Some(Server::start(&backend.namespace, &backend.name)?);
        // Its resets wait for the router's link address.
        backend.namespace.ip_batch("neigh flush all\n")?;
        self.router.namespace.ip_batch(&format!("link set {} up\n", backend.name))
    }

    /// Ends a backend's service, counted from 0, with all its connections; its machine lives on.
    pub fn stop_server(&mut self, index: usize) {
        self.backends[index].server = None;
    }

    /// Starts a backend's service again.
    ///
    /// # Errors
    ///
    /// If it cannot listen.
    pub fn start_server(&mut self, index: usize) -> Result<(), LabError> {
        let backend = &mut self.backends[index];
        backend.server = Some(Server::start(&backend.namespace, &backend.name)?);
        Ok(())
    }

    /// Every namespace of the lab.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let backends = self.backends.iter().map(|backend| &backend.namespace);
        [&self.client.namespace, &self.router.namespace, &self.balancer.namespace].into_iter().chain(backends)
    }
}

#[derive(Debug)]
struct Teardown(LabName);

impl Drop for Teardown {
    fn drop(&mut self) {
        if let Err(error) = leftovers::clear(self.0) {
            eprintln!("lab {}: {error}; `weir-lab down` tries again", self.0);
        }
    }
}

/// The client: two paths, each with both families.
#[derive(Debug)]
pub struct Client {
    /// Its namespace.
    pub namespace: Namespace,
}

/// The router between all the others.
#[derive(Debug)]
pub struct Router {
    /// Its namespace.
    pub namespace: Namespace,
    /// What the interface towards the balancer carries.
    beside_balancer: Option<Attached>,
}

impl Router {
    /// Has the interface towards the balancer carry another program.
    pub(crate) fn replace_program(&mut self, object: &[u8], program: &'static str) -> Result<(), LabError> {
        self.beside_balancer = None;
        self.beside_balancer = Some(Attached::attach(&self.namespace, links::BALANCER_SIDE, object, program)?);
        Ok(())
    }

    /// Routes the VIPs straight to one backend: no balancer at all, the plainest lab.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn bypass_balancer(&self, backend: &Backend) -> Result<(), LabError> {
        self.send_vips_to(backend.address)
    }

    /// Routes the VIPs to the machine that has this address.
    pub(crate) fn send_vips_to(&self, address: DualAddress) -> Result<(), LabError> {
        self.namespace.ip_batch(&links::vip_routes(address))
    }

    /// Routes the VIPs to the balancer, as in a new lab.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn use_balancer(&self) -> Result<(), LabError> {
        self.send_vips_to(BALANCER)
    }
}

/// A place for Weir; [`crate::weir`] runs it there.
#[derive(Debug, Clone)]
pub struct Balancer {
    /// Its namespace.
    pub namespace: Namespace,
    /// Where its tunnels come from.
    pub address: DualAddress,
    /// For its configuration and log.
    pub(crate) directory: PathBuf,
    /// For its tables and programs.
    pub(crate) pins: PathBuf,
}

/// A backend with the service running.
#[derive(Debug)]
pub struct Backend {
    /// `b1`, `b2` and so on: its name to Weir, and what its service says.
    pub name: String,
    /// Counted from 1.
    pub number: u8,
    /// Where tunnels to it end.
    pub address: DualAddress,
    /// Its namespace.
    pub namespace: Namespace,
    /// For logs.
    pub(crate) directory: PathBuf,
    /// None while it is killed.
    server: Option<Server>,
}

impl Backend {
    fn start(number: u8, namespace: Namespace, directory: &Path) -> Result<Self, LabError> {
        let name = format!("b{number}");
        Ok(Self {
            server: Some(Server::start(&namespace, &name)?),
            address: addresses::backend(number),
            directory: directory.to_owned(),
            name,
            number,
            namespace,
        })
    }
}
