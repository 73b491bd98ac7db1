//! The connection to the NATS servers: made anew for as long as it takes, and known to be there or not.

use super::{BusCounts, wire::Batch};
use crate::config;
use async_nats::{Client, ConnectOptions, Event, ServerAddr, Subject, Subscriber};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tracing::warn;

/// How long the next attempt waits at most.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Why a bus cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The credentials are none.
    #[error("the NATS credentials are malformed: {0}; write them anew with `nsc generate creds`")]
    Credentials(io::Error),
    /// The client refuses.
    #[error("the bus cannot be used: {0}")]
    Client(String),
}

/// The connection, and where members tell what.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    cluster: String,
    name: String,
    connected: watch::Receiver<bool>,
    overruns: Arc<Notify>,
}

/// Notes what becomes of the connection.
struct Watcher {
    /// Which, for people.
    servers: String,
    counts: Arc<BusCounts>,
    tell: watch::Sender<bool>,
    overruns: Arc<Notify>,
    /// The trouble that was last told of: attempts follow each other by the second.
    said: Mutex<String>,
}

impl Watcher {
    fn see(&self, event: &Event) {
        match event {
            Event::Connected => self.note(true),
            Event::Disconnected | Event::Closed => self.note(false),
            Event::SlowConsumer(_) => {
                self.counts.overruns.fetch_add(1, Relaxed);
                self.overruns.notify_one();
            }
            Event::ClientError(error) => self.tell_once(&error.to_string()),
            Event::ServerError(error) => self.tell_once(&error.to_string()),
            _ => {}
        }
    }

    fn note(&self, is_connected: bool) {
        if is_connected {
            self.said().clear();
        }
        self.counts.connected.store(is_connected, Relaxed);
        self.tell.send_replace(is_connected);
    }

    fn tell_once(&self, trouble: &str) {
        let trouble = trouble.strip_prefix("nats: ").unwrap_or(trouble);
        let mut said = self.said();
        if *said != trouble {
            trouble.clone_into(&mut said);
            let servers = &self.servers;
            warn!(
                "the bus at {servers}: {trouble}; is NATS up there, and does it take the credentials and the ca of [bus]?"
            );
        }
    }

    fn said(&self) -> MutexGuard<'_, String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    /// Begins to connect.
    pub(super) async fn begin(settings: &config::Bus, counts: Arc<BusCounts>) -> Result<Self, LinkError> {
        let (tell, connected) = watch::channel(false);
        let overruns = Arc::<Notify>::default();
        let watcher = Watcher {
            servers: settings.servers.join(", "),
            counts,
            tell,
            overruns: Arc::clone(&overruns),
            said: Mutex::default(),
        };
        let mut options = ConnectOptions::new()
            .name(format!("weir {}", settings.name))
            .no_echo()
            .retry_on_initial_connect()
            .max_reconnects(None)
            .reconnect_delay_callback(|attempt| {
                let millis = 50 << attempt.min(5);
                Duration::from_millis(millis).min(RETRY_MAX)
            })
            .event_callback(move |event| {
                watcher.see(&event);
                std::future::ready(())
            });
        if let Some(credentials) = &settings.credentials {
            options = options.credentials(credentials.text()).map_err(LinkError::Credentials)?;
        }
        if let Some(ca) = &settings.ca {
            options = options.add_root_certificates(ca.clone());
        }
        let refused = |error: String| LinkError::Client(error);
        let servers: Result<Vec<ServerAddr>, _> = settings.servers.iter().map(|server| server.parse()).collect();
        let servers = servers.map_err(|error| refused(error.to_string()))?;
        let client = options.connect(servers).await.map_err(|error| refused(error.to_string()))?;
        Ok(Self { client, cluster: settings.cluster.to_string(), name: settings.name.to_string(), connected, overruns })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for the connection.
    pub(super) async fn connected(&self) {
        // Without a sender there is nobody left who would connect.
        let _ = self.connected.clone().wait_for(|connected| *connected).await;
    }

    /// Waits until messages have been missed, because they came faster than they were taken in.
    pub(super) async fn missed(&self) {
        self.overruns.notified().await;
    }

    /// Each time that the connection comes or goes.
    pub(super) fn changes(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }

    pub(super) fn tokens(&self) -> Subject {
        format!("weir.{}.tokens", self.cluster).into()
    }

    pub(super) fn flows(&self) -> Subject {
        format!("weir.{}.flows", self.cluster).into()
    }

    pub(super) fn catch_up(&self) -> Subject {
        format!("weir.{}.catchup", self.cluster).into()
    }

    /// The bucket of the pools' generations.
    pub(super) fn generations(&self) -> String {
        format!("weir_{}_generations", self.cluster)
    }

    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(super) fn handover(&self) -> Subject {
        format!("weir.{}.handover", self.cluster).into()
    }

    /// Tells a batch; false if the connection is given up.
    pub(super) async fn publish(&self, subject: Subject, batch: &Batch) -> bool {
        self.client.publish(subject, batch.encode().into()).await.is_ok()
    }

    /// Listens to a subject, now and after each connection.
    pub(super) async fn listen(&self, subject: Subject) -> Option<Subscriber> {
        self.client.subscribe(subject).await.ok()
    }

    /// Asks all who listen to a subject: where the answers come.
    pub(super) async fn ask(&self, subject: Subject) -> Option<Subscriber> {
        let inbox: Subject = self.client.new_inbox().into();
        let answers = self.listen(inbox.clone()).await?;
        let question = Batch::of(&self.name, &[]).encode();
        self.client.publish_with_reply(subject, inbox, question.into()).await.ok()?;
        Some(answers)
    }
}
