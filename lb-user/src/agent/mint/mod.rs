//! The agent's part in minting: it has keys ready whose tokens name this backend, and lets them be given out while, and only
//! while, the kernel would take the cookies that they travel with.
//!
//! It must never let a key out whose token is in use, nor one whose token is another backend's. Where it is in doubt, nothing
//! is minted, and connections are plain TCP.

mod listeners;
mod probe;
mod registry;
mod search;
mod settings;
mod stock;

pub use listeners::State;
pub use search::{Candidates, token_of};
pub use settings::{Unfit, restore};

use self::{listeners::Listeners, stock::Stock};
use super::events::EventsError;
use crate::{
    bpf::{MintTables, Pins},
    clock,
    config::{AgentConfig, AgentToken},
};
use aya::maps::MapError;
use lb_common::ids::Token;
use std::{
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::MissedTickBehavior,
};

/// How often listeners are looked at, and keys are put where the kernel takes them. It is how long a cookie may be given out
/// that the kernel does not take: a listener that is replaced has given out none, and an accept queue fills.
const TICK: Duration = Duration::from_millis(50);

/// Why nothing is minted any more.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The kernel does not list its sockets.
    #[error(transparent)]
    Sockets(#[from] EventsError),
    /// A table cannot be used.
    #[error("the tables of minting cannot be used: {0}")]
    Table(#[from] MapError),
    /// The system refuses something.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// What the kernel tells of tokens, whoever's connections they are of.
#[derive(Debug)]
pub(super) enum Heard {
    Created(Token),
    Closed(Token),
    /// All that live.
    All(Vec<Token>),
    /// Nobody knows what else happened.
    Lost,
}

/// What happened so far, and how things stand.
#[derive(Debug, Default)]
pub struct MintCounts {
    /// Keys that were found.
    pub found: AtomicU64,
    /// Keys that were given out in vain, and are used once more.
    pub recycled: AtomicU64,
    /// Keys that are ready.
    pub ready: AtomicU64,
    /// Keys that are out.
    pub out: AtomicU64,
    /// How it stands with each service.
    states: Mutex<Vec<(String, State)>>,
}

impl MintCounts {
    /// The services that may be minted for, and why one is not.
    pub fn states(&self) -> Vec<(String, State)> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Who mints.
pub struct Minter {
    tables: MintTables,
    listeners: Listeners,
    stock: Stock,
    heard: mpsc::UnboundedReceiver<Vec<Heard>>,
    reload: Arc<Notify>,
    counts: Arc<MintCounts>,
}

/// What it takes of the agent to mint.
pub struct Needs {
    /// The programs' tables.
    pub tables: MintTables,
    /// The agent's pins.
    pub pins: Pins,
    /// What the kernel tells.
    pub heard: Feed,
    /// The smallest packet limit of the interfaces.
    pub mtu: u16,
}

/// The way from whoever listens to the kernel.
pub struct Feed(mpsc::UnboundedReceiver<Vec<Heard>>);

/// Its other end.
#[derive(Clone)]
pub struct Teller(mpsc::UnboundedSender<Vec<Heard>>);

impl Feed {
    /// A way, and its beginning.
    pub fn new() -> (Teller, Self) {
        let (teller, heard) = mpsc::unbounded_channel();
        (Teller(teller), Self(heard))
    }
}

impl Teller {
    /// Who minted no more hears nothing.
    pub(super) fn tell(&self, heard: Vec<Heard>) {
        let _ = self.0.send(heard);
    }
}

impl Minter {
    /// Makes ready to mint. Nothing is minted before [`Self::run`].
    ///
    /// # Errors
    /// The secret cannot be read, or the system refuses.
    pub fn start(config: Arc<AgentConfig>, token: &AgentToken, needs: Needs) -> Result<Self, MintError> {
        settings::let_routes_be_asked()?;
        let Needs { tables, pins, heard: Feed(heard), mtu } = needs;
        let counts = Arc::default();
        let stock = Stock::new(token, Arc::clone(&counts), clock::now())?;
        let pins = Arc::new((pins, tables.marker().map_err(io::Error::other)?));
        let listeners = Listeners::new(config, pins, mtu)?;
        Ok(Self { tables, listeners, stock, heard, reload: Arc::default(), counts })
    }

    /// What happens.
    pub fn counts(&self) -> Arc<MintCounts> {
        Arc::clone(&self.counts)
    }

    /// By what it is told to read the secret again.
    pub fn reload(&self) -> Arc<Notify> {
        Arc::clone(&self.reload)
    }

    /// Mints, for ever.
    ///
    /// # Errors
    /// It cannot go on.
    pub async fn run(&mut self) -> Result<Infallible, MintError> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick().await?,
                () = self.reload.notified() => self.stock.reload()?,
                Some(heard) = self.heard.recv() => self.note(heard)?,
            }
        }
    }

    fn note(&mut self, heard: Vec<Heard>) -> Result<(), MintError> {
        let now = clock::now();
        heard.into_iter().try_for_each(|heard| self.stock.note(heard, &mut self.tables, now))?;
        // Whoever used keys up gets others at once.
        self.stock.fill(&mut self.tables, now)
    }

    async fn tick(&mut self) -> Result<(), MintError> {
        self.listeners.look(&mut self.tables).await?;
        self.stock.fill(&mut self.tables, clock::now())?;
        *self.counts.states.lock().unwrap_or_else(PoisonError::into_inner) = self.listeners.states();
        self.counts.ready.store(self.stock.ready() as u64, Relaxed);
        self.counts.out.store(self.stock.out() as u64, Relaxed);
        Ok(())
    }
}
