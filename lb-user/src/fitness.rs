//! What `/healthz` says: whether packets are steered here and are to come here. The log says so when that changes.

use crate::{metrics::Readiness, service::Service};
use tokio::sync::watch;
use tracing::{error, info, warn};

/// What is said at present.
#[derive(Clone, Debug)]
pub struct Fitness(watch::Sender<Readiness>);

impl Fitness {
    /// That of a balancer which is starting, and the side of who is asked.
    pub fn starting() -> (Self, watch::Receiver<Readiness>) {
        let (sender, receiver) = watch::channel(Readiness::Starting);
        (Self(sender), receiver)
    }

    /// Says how it is, now that it is up.
    pub fn begin(&self, service: &Service) {
        self.say(service, |_| true);
    }

    /// Says how it is now. Nothing is said before it is up.
    pub fn note(&self, service: &Service) {
        self.say(service, |before| *before != Readiness::Starting);
    }

    fn say(&self, service: &Service, may_follow: fn(&Readiness) -> bool) {
        let now = match service.unfitness() {
            Some(why) => Readiness::Unfit(why),
            None if service.is_withdrawn() => Readiness::Withdrawn,
            None => Readiness::Ready,
        };
        self.0.send_if_modified(|before| {
            if *before == now || !may_follow(before) {
                return false;
            }
            match (&*before, &now) {
                (_, Readiness::Unfit(why)) => error!("no packet is steered: {why}; /healthz answers 503 until one is"),
                (_, Readiness::Withdrawn) => warn!("withdrawn: /healthz answers 503 until `weir drain-self --undo`"),
                (Readiness::Unfit(_), _) => info!("packets are steered again"),
                (Readiness::Withdrawn, _) => info!("no longer withdrawn"),
                _ => {}
            }
            *before = now;
            true
        });
    }
}
