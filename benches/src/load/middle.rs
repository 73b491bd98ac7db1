//! Who stands in the middle: between the client, whose packets to the VIPs come there, and the backends. Client, servers and
//! measurements know nothing of it but this.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use crate::{
    Lab, LabError,
    churn::script::{Member, Stand},
    fleet::{self, bus::BusServer, endpoint::keep_one},
    process::Process,
    weir::{
        Agent, Join, PoolBackend, Weir, WeirConfig,
        agent::{TOKEN_BACKENDS, token_secret},
    },
};

/// A slot whose owner changes is in transition longer than a run lasts.
const TRANSITION_S: u32 = 900;
const UDP_TRANSITION_S: u32 = 60;
const BALANCER: &str = "lb1";

/// How subflows are kept together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// From tokens that the balancer learns from the client's packets
    Learn,
    /// From tokens that the backends' agents report
    Report,
    /// By a port or an address of each backend's own
    Endpoint,
    /// From the token itself, which the backend's agent has chosen
    Token,
    /// Not at all: shows what that costs
    Off,
}

impl Way {
    const fn join(self) -> Join {
        match self {
            Self::Learn => Join::Learn,
            Self::Report => Join::Report,
            Self::Endpoint => Join::Endpoint,
            Self::Token => Join::Token,
            Self::Off => Join::Off,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Learn => "learn",
            Self::Report => "report",
            Self::Endpoint => "endpoint",
            Self::Token => "token",
            Self::Off => "off",
        })
    }
}

/// What balances, whatever it is.
pub(crate) trait Middle: fmt::Debug {
    /// Gives the pool these members, b1 first.
    ///
    /// # Errors
    ///
    /// If it does not take them.
    fn change(&mut self, lab: &Lab, pool: &[Member]) -> Result<(), LabError>;

    /// The processes whose time is its own.
    fn processes(&self) -> Vec<u32>;

    /// How many packets it has sent to each backend so far, if it counts them.
    ///
    /// # Errors
    ///
    /// If it does not tell.
    fn packets(&self) -> Result<BTreeMap<String, u64>, LabError> {
        Ok(BTreeMap::new())
    }

    /// What it has done with packets so far, in its own words, and how often; if it counts that.
    ///
    /// # Errors
    ///
    /// If it does not tell.
    fn reasons(&self) -> Result<BTreeMap<String, u64>, LabError> {
        Ok(BTreeMap::new())
    }
}

/// Weir, with what its way needs on the backends.
#[derive(Debug)]
pub(crate) struct WeirInTheMiddle {
    way: Way,
    weir: Weir,
    _on_backends: (Vec<Agent>, Vec<Process>),
    _bus: Option<BusServer>,
}

impl WeirInTheMiddle {
    /// Starts it for as many backends as the pool has members, b1 first; returns when it forwards.
    ///
    /// # Errors
    ///
    /// If a command is missing, or a process is not ready in time; with its own words.
    pub(crate) fn start(lab: &Lab, way: Way, pool: &[Member]) -> Result<Self, LabError> {
        let bus = if way == Way::Report { Some(fleet::start_bus(lab)?) } else { None };
        let on_backends = fleet::serve_backends(lab, &lab.backends[..pool.len()], way.join())?;
        let weir = if way == Way::Endpoint {
            set_up_endpoints(lab, pool)?
        } else {
            Weir::start_alone(&lab.balancer, &config(lab, way, pool))?
        };
        Ok(Self { way, weir, _on_backends: on_backends, _bus: bus })
    }

    /// The samples of a metric, added up by a label.
    fn sums(&self, metric: &str, label: &str) -> Result<BTreeMap<String, u64>, LabError> {
        let mut sums = BTreeMap::new();
        for sample in self.weir.metrics()?.iter().filter(|sample| sample.name == metric) {
            let Some(value) = sample.label(label) else { continue };
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
            let count = sample.value as u64;
            *sums.entry(value.to_owned()).or_default() += count;
        }
        Ok(sums)
    }
}

impl Middle for WeirInTheMiddle {
    fn change(&mut self, lab: &Lab, pool: &[Member]) -> Result<(), LabError> {
        self.weir.reload(&config(lab, self.way, pool)).map(drop)
    }

    fn processes(&self) -> Vec<u32> {
        vec![self.weir.process_id()]
    }

    fn packets(&self) -> Result<BTreeMap<String, u64>, LabError> {
        self.sums("weir_backend_packets_total", "backend")
    }

    fn reasons(&self) -> Result<BTreeMap<String, u64>, LabError> {
        self.sums("weir_packets_total", "reason")
    }
}

/// Starts it with clients that join at an endpoint of each backend.
fn set_up_endpoints(lab: &Lab, pool: &[Member]) -> Result<Weir, LabError> {
    let mut weir = Weir::start_alone(&lab.balancer, &config(lab, Way::Endpoint, &everybody(pool)))?;
    // As for a client with the kernel's own limits: it takes one address, and only from such a backend.
    lab.client.namespace.ip_batch("mptcp limits set subflow 8 add_addr_accepted 0\n")?;
    weir.set_up_backends(lab)?;
    lab.backends.iter().try_for_each(keep_one)?;
    weir.reload(&config(lab, Way::Endpoint, pool))?;
    Ok(weir)
}

/// Backends are set up before they are in the pool.
fn everybody(pool: &[Member]) -> Vec<Member> {
    pool.iter().map(|member| Member { stand: Stand::Up, ..*member }).collect()
}

fn config(lab: &Lab, way: Way, pool: &[Member]) -> WeirConfig {
    let members = lab.backends.iter().zip(pool).filter_map(|(backend, member)| {
        Some(PoolBackend { backend, weight: member.weight, state: member.stand.word()? })
    });
    // No slow start: from a change on the shares are those of the weights.
    let config = WeirConfig::for_lab(lab, way.join())
        .with_transition(TRANSITION_S, 0)
        .with_udp(UDP_TRANSITION_S)
        .with_backends(members.collect());
    match way {
        Way::Report => config.with_bus(fleet::member_of_bus(BALANCER)),
        Way::Token => config.with_token_secret(token_secret(lab), TOKEN_BACKENDS),
        Way::Learn | Way::Endpoint | Way::Off => config,
    }
}
