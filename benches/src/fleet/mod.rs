//! Several balancers at one router, which spreads each flow to one of them by its addresses and ports (ECMP).
//!
//! Each balancer is a machine of its own with a Weir of its own. The router spreads what comes by the client's two paths
//! by other weights, so that most joins come to another balancer than their connection's first subflow. Which balancer a
//! flow goes to is for the router to say: no balancer is asked.

pub(crate) mod bus;
pub(crate) mod endpoint;
mod router;

use std::{fs, time::Duration};

use nix::sys::signal::Signal;

pub use router::TcpFlow;

use crate::{
    Backend, Balancer, Lab, LabError,
    addresses::{self, BALANCERS_MAX, JOIN_PREFIX, MANAGEMENT, VIP},
    namespace::Namespace,
    process::Process,
    topology::links,
    wait,
    weir::{self, Agent, Bus, Join, KeyFile, Weir, WeirConfig},
    xdp::Attached,
};
use bus::BusServer;

/// How soon a balancer says that it has withdrawn.
const WITHDRAWAL_LIMIT: Duration = Duration::from_secs(20);
const CLUSTER: &str = "lab";
/// The management's interface at the router.
const MANAGEMENT_SIDE: &str = "mgmt";
/// More than a drill has connections, and small enough for many balancers on one machine.
const TOKENS: u32 = 1 << 16;

/// A balancer of the fleet.
#[derive(Debug)]
struct Member {
    name: String,
    number: u8,
    /// Its interface at the router.
    router_side: String,
    weir: Weir,
    announced: bool,
    /// Of the first one the lab has it.
    _pass: Option<Attached>,
}

/// A lab with several balancers. Dropping it removes everything that it made.
#[derive(Debug)]
pub struct Fleet {
    join: Join,
    members: Vec<Member>,
    bus: Option<BusServer>,
    key: KeyFile,
    /// Agents, or what takes tunnels off and tells nobody.
    on_backends: (Vec<Agent>, Vec<Process>),
    /// Last, so that all that runs in it is gone before.
    pub lab: Lab,
}

impl Fleet {
    /// Makes a fleet of `balancers` in a new lab with a line, each with a Weir that forwards. `with_bus` gives them a bus.
    ///
    /// # Errors
    ///
    /// If the kernel refuses something, a command is missing, or a process is not ready in time; with its own words.
    ///
    /// # Panics
    ///
    /// If there are no balancers or more than a fleet can have, or the lab has no line ([`crate::LabBuilder::round_trip`]).
    pub fn start(lab: Lab, balancers: u8, join: Join, with_bus: bool) -> Result<Self, LabError> {
        assert!((1..=BALANCERS_MAX).contains(&balancers), "a fleet has 1 to {BALANCERS_MAX} balancers");
        assert!(lab.line.is_some(), "a router cannot spread flows by what is not on the wire");
        fs::create_dir_all(lab.pins()).map_err(LabError::file("create", lab.pins()))?;
        let key = KeyFile::create(lab.directory().join("cluster.key"))?;
        router::set_up(&lab.router.namespace)?;
        let bus = if with_bus { Some(start_bus(&lab)?) } else { None };
        let on_backends = serve_backends(&lab, &lab.backends, join)?;
        let mut fleet = Self { join, members: Vec::new(), bus, key, on_backends, lab };
        for _ in 0..balancers {
            fleet.add()?;
        }
        if join == Join::Endpoint {
            fleet.set_up_endpoints()?;
        }
        Ok(fleet)
    }

    /// Has clients join each backend at a port or an address of its own. The client is one with the kernel's own limits:
    /// it takes one address from such a backend, and joins that from its second path. One that is told to take addresses
    /// from anybody (`add_addr_accepted`) joins from its first.
    fn set_up_endpoints(&self) -> Result<(), LabError> {
        self.lab.client.namespace.ip_batch("mptcp limits set subflow 8 add_addr_accepted 0\n")?;
        for backend in &self.lab.backends {
            self.members[0].weir.set_up_backend(backend)?;
            endpoint::keep_one(backend)?;
        }
        Ok(())
    }

    /// Adds a balancer: it is announced when it forwards. Returns its name.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn add(&mut self) -> Result<String, LabError> {
        let number = self.members.last().map_or(1, |last| last.number + 1);
        let name = format!("lb{number}");
        let (balancer, router_side, pass) = self.place(number, &name)?;
        let mut config = WeirConfig::for_balancer(&self.lab, &balancer, self.join)
            .with_cluster_key(self.key.path().to_owned())
            .with_tokens(TOKENS);
        if self.join == Join::Token {
            config = config.with_token_secret(weir::agent::token_secret(&self.lab), weir::agent::TOKEN_BACKENDS);
        }
        if self.bus.is_some() {
            config = config.with_bus(member_of_bus(&name));
        }
        let weir = Weir::start_alone(&balancer, &config)?;
        self.members.push(Member { name: name.clone(), number, router_side, weir, announced: true, _pass: pass });
        self.announce()?;
        Ok(name)
    }

    /// A machine for a balancer; the first has the lab's own.
    fn place(&self, number: u8, name: &str) -> Result<(Balancer, String, Option<Attached>), LabError> {
        let pins = self.lab.pins().join(name);
        let first = &self.lab.balancer;
        if number == 1 {
            return Ok((Balancer { pins, ..first.clone() }, links::BALANCER_SIDE.to_owned(), None));
        }
        let router = &self.lab.router.namespace;
        let (namespace, address) = (Namespace::of(self.lab.name(), name), addresses::balancer(number));
        links::lay_further(router, &namespace, name, address)?;
        let directory = first.directory.join(name);
        fs::create_dir_all(&directory).map_err(LabError::file("create", &directory))?;
        let pass = Attached::passing(router, name)?;
        Ok((Balancer { namespace, address, directory, pins }, name.to_owned(), Some(pass)))
    }

    /// Cuts the power of the first balancer that is announced: its link goes down, its controller is killed, and the
    /// router sends it nothing more. Returns its name.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or Weir has ended before.
    ///
    /// # Panics
    ///
    /// If none is announced.
    pub fn kill_first(&mut self) -> Result<String, LabError> {
        let member = self.members.iter_mut().find(|member| member.announced).expect("a balancer is announced");
        let name = member.name.clone();
        self.lab.router.namespace.ip_batch(&format!("link set {} down\n", member.router_side))?;
        member.announced = false;
        member.weir.end_by(Signal::SIGKILL)?;
        self.announce()?;
        Ok(name)
    }

    /// Has the first balancer that is announced withdraw itself, as an operator does before maintenance: when it no longer
    /// says that it is well, the router sends it nothing more. Returns its name.
    ///
    /// # Errors
    ///
    /// If it does not hand over to the others, though there is a bus, or still says that it is well.
    ///
    /// # Panics
    ///
    /// If none is announced.
    pub fn drain_first(&mut self) -> Result<String, LabError> {
        let order: &[&str] = if self.has_bus() { &["drain-self"] } else { &["drain-self", "--force"] };
        let member = self.members.iter_mut().find(|member| member.announced).expect("a balancer is announced");
        let (name, weir) = (member.name.clone(), &member.weir);
        weir.ask(order)?;
        wait::until("it is no longer well", WITHDRAWAL_LIMIT, || Ok((!weir.is_well()?).then_some(())))?;
        member.announced = false;
        self.announce()?;
        Ok(name)
    }

    /// Changes the cluster key, one balancer after the other.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or a balancer refuses the key.
    pub fn change_key(&mut self) -> Result<(), LabError> {
        self.key.change()?;
        self.members
            .iter()
            .filter(|member| member.announced)
            .try_for_each(|member| member.weir.ask(&["reload"]).map(drop))
    }

    /// Adds an epoch to the secret of tokens, of which tokens are made after a time such as `3s`, and has balancers and
    /// agents read it.
    ///
    /// # Errors
    ///
    /// If the secret is not rotated, or somebody does not read it.
    pub fn rotate_secret(&mut self, after: &str) -> Result<(), LabError> {
        weir::agent::rotate_secret(&self.lab, after)?;
        for member in self.members.iter().filter(|member| member.announced) {
            member.weir.ask(&["reload"])?;
        }
        self.on_backends.0.iter_mut().try_for_each(|agent| agent.signal(Signal::SIGHUP))
    }

    /// Ends the agents on all backends.
    ///
    /// # Errors
    ///
    /// If one has ended before.
    pub fn end_agents(&mut self, signal: Signal) -> Result<(), LabError> {
        self.on_backends.0.iter_mut().try_for_each(|agent| agent.end_by(signal))
    }

    /// Starts the agents again, and waits until they mint.
    ///
    /// # Errors
    ///
    /// If one does not in time.
    pub fn restart_agents(&mut self) -> Result<(), LabError> {
        for agent in &mut self.on_backends.0 {
            agent.start_again()?;
            agent.wait_until_minting(1)?;
        }
        Ok(())
    }

    /// Kills the bus, if there is one.
    ///
    /// # Errors
    ///
    /// If it has ended before, or does not end.
    pub fn kill_bus(&mut self) -> Result<(), LabError> {
        self.bus.as_mut().map_or(Ok(()), BusServer::kill)
    }

    /// Starts the bus again.
    ///
    /// # Errors
    ///
    /// If it does not listen in time.
    pub fn restart_bus(&mut self) -> Result<(), LabError> {
        self.bus.as_mut().map_or(Ok(()), BusServer::start_again)
    }

    /// Whether it has a bus.
    pub fn has_bus(&self) -> bool {
        self.bus.is_some()
    }

    /// The names of the balancers, dead ones included.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// The Weir of a balancer, for a person or a test that wants to look at it.
    pub fn weir(&self, name: &str) -> Option<&Weir> {
        self.members.iter().find(|member| member.name == name).map(|member| &member.weir)
    }

    /// The same, to do something to it.
    pub fn weir_mut(&mut self, name: &str) -> Option<&mut Weir> {
        self.members.iter_mut().find(|member| member.name == name).map(|member| &mut member.weir)
    }

    /// The Weir of every balancer, dead ones included.
    pub fn weirs(&self) -> impl Iterator<Item = &Weir> {
        self.members.iter().map(|member| &member.weir)
    }

    /// The balancer that the router sends each of these flows to now.
    ///
    /// # Errors
    ///
    /// If the router has no route for one, or `ip` prints what cannot be read.
    pub fn choices(&self, flows: &[TcpFlow]) -> Result<Vec<&str>, LabError> {
        let sides = router::choices(&self.lab.router.namespace, flows)?;
        let name = |side: String| {
            let member = self.members.iter().find(|member| member.router_side == side);
            member.map(|member| member.name.as_str()).ok_or(LabError::Output { program: "ip", line: side })
        };
        sides.into_iter().map(name).collect()
    }

    /// How many tokens the balancers that are announced have in their tables, as of their last sweep.
    ///
    /// # Errors
    ///
    /// If one does not tell.
    pub fn tokens_in_tables(&self) -> Result<u64, LabError> {
        let living = self.members.iter().filter(|member| member.announced);
        living.map(|member| Ok(member.weir.status()?.tokens)).sum()
    }

    fn announce(&self) -> Result<(), LabError> {
        let announced = self.members.iter().filter(|member| member.announced);
        let hops: Vec<_> = announced.map(|member| (member.number, addresses::balancer(member.number))).collect();
        router::announce(&self.lab.router.namespace, &hops)
    }
}

/// The decapsulation on each of these backends, by its agent if joins are to be told of.
pub(crate) fn serve_backends(
    lab: &Lab,
    backends: &[Backend],
    join: Join,
) -> Result<(Vec<Agent>, Vec<Process>), LabError> {
    let sources = (1..=BALANCERS_MAX).flat_map(|number| addresses::balancer(number).both());
    let sources: Vec<String> = sources.map(|address| address.to_string()).collect();
    let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
    match join {
        Join::Report => Ok((weir::agent::run_all(lab, backends, &sources, &member_of_bus(""))?, Vec::new())),
        Join::Token => Ok((weir::agent::run_all_minting(lab, backends, &sources)?, Vec::new())),
        Join::Off | Join::Learn | Join::Endpoint => Ok((Vec::new(), weir::decapsulate(backends, &sources)?)),
    }
}

pub(crate) fn member_of_bus(name: &str) -> Bus {
    Bus { servers: vec![bus::url()], cluster: CLUSTER, name: name.to_owned() }
}

pub(crate) fn start_bus(lab: &Lab) -> Result<BusServer, LabError> {
    let management = Namespace::of(lab.name(), MANAGEMENT_SIDE);
    links::lay_further(&lab.router.namespace, &management, MANAGEMENT_SIDE, MANAGEMENT)?;
    BusServer::start(management, &lab.directory())
}

/// What the router sends to the balancers.
fn destinations() -> [String; 3] {
    [format!("{}/32", VIP.v4), format!("{}/128", VIP.v6), JOIN_PREFIX.to_owned()]
}
