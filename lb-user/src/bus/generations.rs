//! The generations of pools in the key-value store of the bus (`JetStream`): who owns the slots of a ring, and who owned those
//! in transition before. Who starts in the middle of a change takes that over, for flows that come to it are old ones.
//!
//! Whoever changes a pool writes, and the last one holds. Nothing that packets wait for waits for it; without
//! `JetStream` everything else goes on.

use super::{CONNECT_WAIT, link::Link, wire::Illegible};
use crate::config::{BackendState, Forward};
use async_nats::jetstream::{self, kv::Store, stream};
use lb_common::tables::RING_SLOTS;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, convert::Infallible, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::{info, warn};

/// The version of what follows it, as the first byte of each value.
const VERSION: u8 = 1;
/// How long a request to the store may take.
const STORE_WAIT: Duration = Duration::from_secs(3);
/// Changes within this time are written together.
const GATHER: Duration = Duration::from_millis(100);
/// When what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// A pool's ring, as one member has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Who tells it.
    pub from: String,
    /// What the cluster key makes of a constant: under another key its slots are other flows'.
    pub key_mark: u64,
    /// The backends that are meant below by their place here.
    pub backends: Vec<Backend>,
    /// Those of the pool's configuration: backend, weight and state.
    pub configured: Vec<(u16, u16, BackendState)>,
    /// What the owners of the slots follow from: backend, and weight at that time.
    pub members: Vec<(u16, u32)>,
    /// The slots in transition, in their order.
    pub previous: Vec<Previous>,
    /// When that ends.
    pub window: Window,
}

/// A backend, as its member of the cluster has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name in the pool.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// How packets reach it.
    pub forward: Forward,
}

/// A slot in transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// How many settled slots lie between the one before and it.
    pub gap: u32,
    /// Its previous owner.
    pub backend: u16,
    /// Whether unknown datagrams are still the previous owner's.
    pub keeps_datagrams: bool,
}

/// The last times of the slots in transition, in milliseconds of Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// How long the longest was to be, in milliseconds.
    pub length_ms: u64,
    /// When survivors begin to be pinned.
    pub pins_at_ms: u64,
    /// When it ends.
    pub ends_at_ms: u64,
    /// When datagrams of unknown flows begin to be the owner's.
    pub moves_datagrams_at_ms: u64,
    /// It lasts longer than it was to.
    pub is_extended: bool,
}

impl Generation {
    /// The bytes of the value.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// The generation of these bytes.
    ///
    /// # Errors
    /// They are of another version, or none, or mean backends or slots that do not exist.
    pub fn decode(bytes: &[u8]) -> Result<Self, Illegible> {
        let generation: Self = match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| Illegible::Malformed)?,
            Some((&version, _)) => return Err(Illegible::Version(version)),
            None => return Err(Illegible::Malformed),
        };
        if generation.is_sound() { Ok(generation) } else { Err(Illegible::Malformed) }
    }

    /// The places of the slots in transition.
    pub fn slots(&self) -> impl Iterator<Item = (u64, Previous)> {
        self.previous.iter().scan(0, |next, &previous| {
            let place = *next + u64::from(previous.gap);
            *next = place + 1;
            Some((place, previous))
        })
    }

    fn is_sound(&self) -> bool {
        let is_known = |backend: u16| usize::from(backend) < self.backends.len();
        self.configured.iter().all(|&(backend, ..)| is_known(backend))
            && self.members.iter().all(|&(backend, _)| is_known(backend))
            && self.slots().all(|(place, previous)| place < u64::from(RING_SLOTS) && is_known(previous.backend))
    }
}

/// The store of a cluster.
#[derive(Clone, Debug)]
pub struct Generations {
    link: Arc<Link>,
}

impl Generations {
    pub(super) const fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    /// What was last written of these pools. Without a server, a store or a legible value there is nothing, and the
    /// operator hears why.
    pub async fn read(&self, pools: &[String]) -> Vec<(String, Generation)> {
        if timeout(CONNECT_WAIT, self.link.connected()).await.is_err() {
            return Vec::new();
        }
        let mut found = Vec::new();
        let read = async {
            let store = self.store().await?;
            for pool in pools {
                let Some(bytes) = store.get(key(pool)).await.map_err(|error| error.to_string())? else { continue };
                match Generation::decode(&bytes) {
                    Ok(generation) => found.push((pool.clone(), generation)),
                    Err(error) => warn!(pool, "what others have written of the pool's slots is left out: {error}"),
                }
            }
            Ok(())
        };
        if let Err(error) = within(STORE_WAIT, read).await {
            warn!("slots in transition cannot be taken over from others: {}", without_store(&error));
        }
        found
    }

    /// Writes what this member makes of its pools, each time that they have `changed`.
    pub async fn keep(&self, changed: Arc<Notify>, mut take: impl FnMut() -> Vec<(String, Generation)>) -> Infallible {
        let mut waiting: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut fails = false;
        loop {
            if waiting.is_empty() {
                changed.notified().await;
            } else {
                let _ = timeout(RETRY, changed.notified()).await;
            }
            sleep(GATHER).await;
            waiting.extend(take().into_iter().map(|(pool, generation)| (pool, generation.encode())));
            self.link.connected().await;
            match within(STORE_WAIT, self.write(&mut waiting)).await {
                Ok(()) if std::mem::take(&mut fails) => {
                    info!("other balancers can take over slots in transition again");
                }
                Err(error) if !std::mem::replace(&mut fails, true) => {
                    warn!("other balancers cannot take over slots in transition: {}", without_store(&error));
                }
                _ => {}
            }
        }
    }

    /// Writes what waits; what could not be written stays.
    async fn write(&self, waiting: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        let store = self.store().await?;
        while let Some((pool, bytes)) = waiting.first_key_value() {
            store.put(key(pool), bytes.clone().into()).await.map_err(|error| error.to_string())?;
            waiting.pop_first();
        }
        Ok(())
    }

    /// The bucket as somebody has made it, or a new one.
    async fn store(&self) -> Result<Store, String> {
        let bucket = self.link.generations();
        let jetstream = jetstream::new(self.link.client());
        if let Ok(store) = jetstream.get_key_value(bucket.as_str()).await {
            return Ok(store);
        }
        // As `create_key_value` makes it, which asks for what no server before 2.10 tells.
        let stream = stream::Config {
            name: format!("KV_{bucket}"),
            description: Some("Who owns the slots of Weir's pools, and who did before".to_owned()),
            subjects: vec![format!("$KV.{bucket}.>")],
            max_messages_per_subject: 1,
            discard: stream::DiscardPolicy::New,
            allow_rollup: true,
            deny_delete: true,
            allow_direct: true,
            num_replicas: 1,
            ..stream::Config::default()
        };
        jetstream.create_stream(stream).await.map_err(|error| error.to_string())?;
        jetstream.get_key_value(bucket.as_str()).await.map_err(|error| error.to_string())
    }
}

/// A pool's key: a name may have dots where a key may not.
fn key(pool: &str) -> String {
    pool.replace('.', "=")
}

async fn within<T>(time: Duration, work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(time, work).await.unwrap_or_else(|_| Err("no answer".to_owned()))
}

fn without_store(error: &str) -> String {
    format!(
        "{error}; start the NATS servers with JetStream (`jetstream {{}}` in their configuration) and let this member use it; \
         everything else goes on"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation() -> Generation {
        let backend =
            |name: &str| Backend { name: name.to_owned(), address: [10, 0, 0, 1].into(), forward: Forward::Gue };
        let previous = |gap| Previous { gap, backend: 1, keeps_datagrams: gap == 0 };
        Generation {
            from: "lb1".to_owned(),
            key_mark: u64::MAX,
            backends: vec![backend("b1"), backend("b2")],
            configured: vec![(0, 100, BackendState::Up)],
            members: vec![(0, 1000)],
            previous: vec![previous(3), previous(0), previous(RING_SLOTS - 6)],
            window: Window { length_ms: 1, pins_at_ms: 2, ends_at_ms: u64::MAX, ..Window::default() },
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let generation = generation();
        let places: Vec<_> = generation.slots().map(|(place, _)| place).collect();
        assert_eq!(places, [3, 4, u64::from(RING_SLOTS) - 1]);
        assert_eq!(Generation::decode(&generation.encode()), Ok(generation));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        let mut bytes = generation().encode();
        assert_eq!(Generation::decode(&bytes[..bytes.len() - 1]), Err(Illegible::Malformed));
        bytes[0] = 9;
        assert_eq!(Generation::decode(&bytes), Err(Illegible::Version(9)));
        let spoil: [fn(&mut Generation); 4] = [
            |generation| generation.previous[2].gap += 1,
            |generation| generation.previous[0].backend = 2,
            |generation| generation.members[0].0 = 2,
            |generation| generation.configured[0].0 = 2,
        ];
        for spoil in spoil {
            let mut spoilt = generation();
            spoil(&mut spoilt);
            assert_eq!(Generation::decode(&spoilt.encode()), Err(Illegible::Malformed));
        }
    }

    #[test]
    fn the_largest_generation_fits_into_a_message() {
        let backend = Backend { name: "b".repeat(63), address: [0xffff; 8].into(), forward: Forward::Gue };
        let count = 4096;
        let largest = Generation {
            from: "l".repeat(63),
            backends: vec![backend; usize::from(count)],
            configured: (0..count).map(|place| (place, u16::MAX, BackendState::Drain)).collect(),
            members: (0..count).map(|place| (place, u32::MAX)).collect(),
            previous: vec![Previous { gap: 0, backend: count - 1, keeps_datagrams: true }; RING_SLOTS as usize],
            ..generation()
        };
        // What a NATS server takes unless it is told otherwise.
        assert!(largest.encode().len() < 1024 * 1024, "{}", largest.encode().len());
        assert!(Generation::decode(&largest.encode()).is_ok());
    }
}
