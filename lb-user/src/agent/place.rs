//! Whether the program that takes tunnels off is still on its interfaces. The kernel tells nobody when a link ends, with its
//! interface or with its pin, and an agent without one looks well and serves nothing. Nothing here puts it back.

use crate::{config::InterfaceName, metrics::Readiness, resolve::Resolver};
use nix::net::if_::if_nametoindex;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Who looks, and what `/healthz` is to say.
pub struct Place {
    resolver: Resolver,
    interfaces: Vec<InterfaceName>,
    readiness: watch::Sender<Readiness>,
}

impl Place {
    /// On these interfaces, where it has just been put; and the side of who is asked.
    pub fn new(resolver: Resolver, interfaces: Vec<InterfaceName>) -> (Self, watch::Receiver<Readiness>) {
        let (readiness, asked) = watch::channel(Readiness::Ready);
        (Self { resolver, interfaces, readiness }, asked)
    }

    /// Looks again and again.
    pub async fn follow(self) -> Infallible {
        let mut due = interval(LOOK);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let now = match self.left().await {
                None => Readiness::Ready,
                Some(interface) => Readiness::Unfit(format!("there is no XDP program on {interface}")),
            };
            self.readiness.send_if_modified(|before| {
                let is_news = *before != now;
                match &now {
                    Readiness::Unfit(why) if is_news => error!(
                        "no tunnel is taken off: {why} any more; /healthz answers 503 until there is one: restart the agent"
                    ),
                    _ if is_news => info!("tunnels are taken off again"),
                    _ => {}
                }
                *before = now;
                is_news
            });
        }
    }

    /// An interface that it is on no longer. Where the kernel does not tell, nobody knows.
    async fn left(&self) -> Option<&InterfaceName> {
        for interface in &self.interfaces {
            let is_left = match self.resolver.xdp_program(interface.as_str()).await {
                Ok(program) => program.is_none(),
                Err(_) => if_nametoindex(interface.as_str()).is_err(),
            };
            if is_left {
                return Some(interface);
            }
        }
        None
    }
}
