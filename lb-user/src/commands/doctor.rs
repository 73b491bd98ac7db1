//! `weir doctor`: preflight and diagnosis of a balancer or a backend.

use super::{CONFIG, Output, complain, finish_with, say};
use crate::{
    admin,
    config::{AgentConfig, Config, Forward},
    doctor::{BackendQuestions, JoinEndpoint, Links, examine_backend, examine_balancer},
};
use anyhow::Result;
use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

/// The length of a packet on the ways that clients come by.
const CLIENT_MTU: u32 = 1500;

/// What to look at.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The configuration of the balancer.
    #[arg(long, value_name = "FILE", default_value = CONFIG, conflicts_with = "backend")]
    config: PathBuf,
    /// The admin socket of the balancer, which is asked for its status if it runs.
    #[arg(long, value_name = "PATH", default_value = admin::SOCKET, conflicts_with = "backend")]
    socket: PathBuf,
    /// This machine is a backend. So it is where there is no configuration and `weir decap` runs.
    #[arg(long)]
    backend: bool,
    /// On a backend: the interface that packets come in by.
    #[arg(long, value_name = "NAME", requires = "backend")]
    interface: Option<String>,
    /// On a backend: a VIP that it should have; once for each. By default those on `lo`.
    #[arg(long = "vip", value_name = "ADDRESS", requires = "backend")]
    vips: Vec<IpAddr>,
    /// On a backend: where clients are to join it, such as `192.0.2.1:4501` or `2001:db8::1001`; once for each.
    #[arg(long = "join-endpoint", value_name = "ADDRESS[:PORT]", requires = "backend")]
    join_endpoints: Vec<JoinEndpoint>,
    /// On a backend: the configuration of its agent, which says whether it mints.
    #[arg(long, value_name = "FILE", requires = "backend")]
    agent: Option<PathBuf>,
    /// On a backend: how the balancers send.
    #[arg(long, value_enum, default_value_t = Sending::Ipip, requires = "backend")]
    forward: Sending,
    /// The longest packet that clients send, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = CLIENT_MTU, value_parser = clap::value_parser!(u32).range(576..=65535))]
    client_mtu: u32,
    /// How to print it.
    #[arg(long, value_enum, default_value_t = Output::Human)]
    output: Output,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Sending {
    /// In IP tunnels.
    Ipip,
    /// In UDP tunnels.
    Gue,
    /// On the same link, without a tunnel.
    L2,
}

/// Examines this machine, and prints what was found. The exit code is 0 where nothing is wrong, 1 with a fault, 2 where
/// the configuration is bad.
pub fn doctor(args: &Args) -> ExitCode {
    finish_with(examine(args))
}

async fn examine(args: &Args) -> Result<ExitCode> {
    let report = if is_backend(args).await? {
        let agent = match args.agent.as_deref().map(AgentConfig::load).transpose() {
            Ok(agent) => agent.map(Arc::new),
            Err(errors) => {
                complain(&errors);
                return Ok(ExitCode::from(super::BAD_CONFIG));
            }
        };
        examine_backend(&args.questions(agent)).await?
    } else {
        match Config::load(&args.config) {
            Ok(config) => examine_balancer(&config, &args.config, &args.socket, args.client_mtu).await?,
            Err(errors) => {
                complain(&errors);
                if args.config == Path::new(CONFIG) {
                    complain("on a backend: `weir doctor --backend`");
                }
                return Ok(ExitCode::from(super::BAD_CONFIG));
            }
        }
    };
    say(&report, args.output)?;
    Ok(if report.faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn is_backend(args: &Args) -> Result<bool> {
    let is_told = args.backend || args.config != Path::new(CONFIG) || args.config.exists();
    Ok(if is_told { args.backend } else { Links::read().await?.decapsulates() })
}

impl Args {
    fn questions(&self, agent: Option<Arc<AgentConfig>>) -> BackendQuestions {
        BackendQuestions {
            interface: self.interface.clone(),
            vips: self.vips.clone(),
            forward: match self.forward {
                Sending::Ipip => Forward::Ipip,
                Sending::Gue => Forward::Gue,
                Sending::L2 => Forward::L2,
            },
            client_mtu: self.client_mtu,
            join_endpoints: self.join_endpoints.clone(),
            agent,
        }
    }
}
