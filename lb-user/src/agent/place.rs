//! Whether the program that takes tunnels off is still on its interfaces. The kernel tells nobody when a link ends, with its
//! interface or with its pin, and an agent without one looks well and serves nothing. Nothing here puts it back.

use crate::{
    config::InterfaceName,
    metrics::{Attachment, Readiness},
    resolve::Resolver,
};
use nix::net::if_::if_nametoindex;
use std::{convert::Infallible, time::Duration};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info};

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Who looks, and what `/healthz` and the metrics are to say.
pub struct Place {
    resolver: Resolver,
    interfaces: Vec<InterfaceName>,
    readiness: watch::Sender<Readiness>,
    attachments: watch::Sender<Vec<Attachment>>,
}

impl Place {
    /// On these interfaces, where it has just been put.
    pub fn new(resolver: Resolver, interfaces: Vec<InterfaceName>) -> Self {
        let (readiness, _) = watch::channel(Readiness::Ready);
        let (attachments, _) = watch::channel(Vec::new());
        Self { resolver, interfaces, readiness, attachments }
    }

    /// What `/healthz` is to say.
    pub fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// How it is attached to each interface, once that has been looked at.
    pub fn attachments(&self) -> watch::Receiver<Vec<Attachment>> {
        self.attachments.subscribe()
    }

    /// Looks again and again.
    pub async fn follow(self) -> Infallible {
        let mut due = interval(LOOK);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let attachments = self.look().await;
            self.tell(&attachments);
            self.attachments.send_replace(attachments);
        }
    }

    /// How it is attached. Where the kernel does not tell, nobody knows, and it is taken for what it was.
    async fn look(&self) -> Vec<Attachment> {
        let before = self.attachments.borrow().clone();
        let mut now = Vec::new();
        for interface in &self.interfaces {
            let mode = match self.resolver.xdp_program(interface.as_str()).await {
                Ok(xdp) => Some(xdp.map_or("none", |xdp| xdp.mode)),
                Err(_) if if_nametoindex(interface.as_str()).is_err() => Some("none"),
                Err(_) => before.iter().find(|there| there.interface == interface.as_str()).map(|there| there.mode),
            };
            now.extend(mode.map(|mode| Attachment { interface: interface.to_string(), mode }));
        }
        now
    }

    /// Says it in the log where it is news, and for `/healthz`.
    fn tell(&self, attachments: &[Attachment]) {
        let now = match attachments.iter().find(|there| there.mode == "none") {
            None => Readiness::Ready,
            Some(left) => Readiness::Unfit(format!("there is no XDP program on {}", left.interface)),
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
