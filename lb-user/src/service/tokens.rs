//! The tokens that name backends, as the data path reads them, and the memory of whom each id has meant.
//!
//! An id is never given to another backend while tokens of it may be about: those of any epoch whose secret is still read.
//! No token is ever read by half of a key: what reads an epoch's is taken away before the key is changed, and given back
//! after that. The memory has fingerprints of secrets, never a key.

use super::State;
use crate::{
    config::{Config, EpochSecret, Fingerprint, Pool, TokenWay},
    health::TokenCheck,
    layout::BackendRow,
    numbering::BackendName,
};
use aya::maps::MapError;
use lb_common::{
    hash::{SipKey, sip::sip13_bytes},
    ids::{BackendId, PoolId},
    limits::{POOLS_MAX, TOKEN_IDS_KNOWN_MAX},
    stateless::{Bearer, Codec, TokenId},
    tables::{TokenKey, Ways},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::Duration,
};

/// Longer than any packet is under way in the data path.
const PACKET: Duration = Duration::from_millis(20);

/// Why the ids of a configuration cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenConflict {
    /// An id has meant another backend.
    #[error(
        "pool {pool:?}: backend {backend:?} has token_id {id}, which means another backend in epoch {epoch} of the secret, \
         whose connections may be open: give it an id that none has had, or rotate the secret until that epoch is gone"
    )]
    Id {
        /// The pool.
        pool: String,
        /// Who is to have the id.
        backend: String,
        /// The id.
        id: u16,
        /// The epoch that knows it.
        epoch: u8,
    },
    /// Ids have had another number of bits.
    #[error(
        "pool {pool:?}: with this max_backends ids have {bits} bits, but in epoch {epoch} of the secret they have {known}: \
         put it back, or begin a new secret (joins of the connections that are open will be unknown)"
    )]
    Bits {
        /// The pool.
        pool: String,
        /// How many the configuration asks for.
        bits: u32,
        /// How many there are.
        known: u32,
        /// In which epoch.
        epoch: u8,
    },
    /// More ids than can be remembered.
    #[error(
        "more than {TOKEN_IDS_KNOWN_MAX} token_ids have been in use in the epochs that are live: rotate the secrets until the \
         oldest are gone"
    )]
    TooMany,
}

/// Whom the ids of each pool have meant under the secrets that are live.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct TokenMemory(BTreeMap<String, Vec<EpochMemory>>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EpochMemory {
    fingerprint: Fingerprint,
    bits: u32,
    /// What identifies the backend of each id.
    ids: BTreeMap<u16, u64>,
}

impl TokenMemory {
    /// The memory with what a configuration adds to it, and without the epochs that it no longer has.
    pub(super) fn next(&self, config: &Config) -> Result<Self, TokenConflict> {
        let mut next = self.clone();
        for pool in &config.pools {
            let Some(way) = &pool.token else { continue };
            let before = next.0.remove(pool.name.as_str()).unwrap_or_default();
            let epochs = way.secret.epochs().iter().map(|epoch| remembered(&before, epoch, pool, way));
            let epochs = epochs.collect::<Result<_, _>>()?;
            next.0.insert(pool.name.to_string(), epochs);
        }
        let ids: usize = next.0.values().flatten().map(|epoch| epoch.ids.len()).sum();
        if ids > TOKEN_IDS_KNOWN_MAX { Err(TokenConflict::TooMany) } else { Ok(next) }
    }

    /// Forgets the pools that do not exist any more.
    pub(super) fn forget_pools(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|pool, _| exists(pool));
    }

    /// Who has each id that has meant a backend of a pool, by what it is known as.
    fn bearers(&self, pool: &str, known: &BTreeMap<u64, BackendId>) -> BTreeMap<TokenId, Bearer> {
        let ids = self.0.get(pool).into_iter().flatten().flat_map(|epoch| &epoch.ids);
        ids.map(|(&id, backend)| (TokenId(id), known.get(backend).map_or(Bearer::GONE, |&id| Bearer::of(id)))).collect()
    }
}

/// An epoch of a pool, as it was known before, with the ids that its backends have now.
fn remembered(
    before: &[EpochMemory],
    epoch: &EpochSecret,
    pool: &Pool,
    way: &TokenWay,
) -> Result<EpochMemory, TokenConflict> {
    let (fingerprint, bits) = (epoch.fingerprint(), way.bits.count());
    let known = before.iter().find(|known| known.fingerprint == fingerprint).cloned();
    let mut memory = known.unwrap_or_else(|| EpochMemory { fingerprint, bits, ids: BTreeMap::new() });
    let (name, epoch) = (|| pool.name.to_string(), epoch.epoch.number());
    if memory.bits != bits {
        return Err(TokenConflict::Bits { pool: name(), bits, known: memory.bits, epoch });
    }
    for backend in &pool.backends {
        let Some(TokenId(id)) = backend.token_id else { continue };
        let identity = identity(&BackendName::of(pool, backend));
        if *memory.ids.entry(id).or_insert(identity) != identity {
            return Err(TokenConflict::Id { pool: name(), backend: backend.name.to_string(), id, epoch });
        }
    }
    Ok(memory)
}

/// What identifies a backend within its pool.
fn identity(name: &BackendName) -> u64 {
    let BackendName { name, address, .. } = name;
    sip13_bytes(&SipKey::from_bytes([0; 16]), format!("{name} {address}").as_bytes())
}

impl State {
    /// Has the data path read the tokens of the configuration. The pools that name no backend by them any more are left
    /// alone.
    pub(super) fn write_tokens(&mut self) -> Result<(), MapError> {
        for (pool, wanted) in self.codecs() {
            let index = u32::from(pool.0);
            let current = self.balancer.codecs.read(index)?;
            let [kept, prepared, wanted] = current.steps_to(wanted);
            self.write_codec(pool, kept)?;
            self.write_bearers(pool)?;
            if kept != current {
                thread::sleep(PACKET);
            }
            self.write_codec(pool, prepared)?;
            self.write_codec(pool, wanted)?;
        }
        Ok(())
    }

    /// Has the data path read no tokens of the other pools.
    pub(super) fn remove_tokens(&mut self) -> Result<(), MapError> {
        let codecs = self.codecs();
        for pool in (0..POOLS_MAX).filter_map(|pool| u16::try_from(pool).ok()).map(PoolId) {
            if !codecs.contains_key(&pool) {
                self.write_codec(pool, Codec::NONE)?;
            }
        }
        Ok(())
    }

    /// Has the data path look at the tokens that are known of a pool that no longer learns any, as long as one of them would
    /// name another backend than its own: those of connections that are older than the pool's secret.
    pub(super) fn note_known_tokens(&mut self) -> Result<(), MapError> {
        let codecs = self.codecs();
        let names_all = |ways: Ways| ways.has(Ways::TOKEN) && !ways.has(Ways::LEARN) && !ways.has(Ways::REPORT);
        let named_alone = self.layout.services.iter().filter(|service| names_all(service.ways));
        let pools: BTreeMap<PoolId, _> = named_alone
            .filter_map(|service| Some((service.pool, (codecs.get(&service.pool)?, self.bearers(service.pool)))))
            .collect();
        let mut known = BTreeSet::new();
        if !pools.is_empty() {
            for entry in self.balancer.tokens.entries() {
                let (TokenKey { pool, token, .. }, entry) = entry?;
                let Some((codec, bearers)) = pools.get(&pool) else { continue };
                let named = codec.decode(token).and_then(|id| bearers.get(&id)?.backend());
                if named != entry.backend() {
                    known.insert(pool);
                }
            }
        }
        for service in self.layout.services.iter_mut().filter(|service| known.contains(&service.pool)) {
            service.ways = service.ways.and(Ways::KNOWN);
        }
        Ok(())
    }

    /// Has the data path know who is gone.
    pub(super) fn write_all_bearers(&mut self) -> Result<(), MapError> {
        self.codecs().into_keys().try_for_each(|pool| self.write_bearers(pool))
    }

    /// What reads the tokens of each pool.
    pub(super) fn codecs(&self) -> BTreeMap<PoolId, Codec> {
        let pools = self.config.pools.iter();
        let codec = |pool: &Pool| Some((self.numbers.pool(pool.name.as_str()), pool.token.as_ref()?.codec()));
        pools.filter_map(codec).collect()
    }

    /// Who has the ids of a pool.
    pub(super) fn bearers(&self, pool: PoolId) -> BTreeMap<TokenId, Bearer> {
        let Some(pool) = self.layout.pools.iter().find(|row| row.id == pool) else { return BTreeMap::new() };
        let backends = self.backends.iter().filter(|(_, known)| known.row.name.pool == pool.name);
        let known = backends.map(|(&id, known)| (identity(&known.row.name), id)).collect();
        self.tokens.bearers(&pool.name, &known)
    }

    /// What the tokens of a backend are to say, where they name it.
    pub(super) fn token_check(&self, row: &BackendRow) -> Option<TokenCheck> {
        let pool = self.config.pools.iter().find(|pool| pool.name.as_str() == row.name.pool)?;
        let backend = pool.backends.iter().find(|backend| BackendName::of(pool, backend) == row.name)?;
        Some(TokenCheck { codec: pool.token.as_ref()?.codec(), id: backend.token_id? })
    }

    fn write_bearers(&mut self, pool: PoolId) -> Result<(), MapError> {
        let bearers = self.bearers(pool);
        self.balancer.bearers.write_pool(pool, &bearers)
    }

    fn write_codec(&mut self, pool: PoolId, codec: Codec) -> Result<(), MapError> {
        let index = u32::from(pool.0);
        if self.balancer.codecs.read(index)? == codec {
            return Ok(());
        }
        self.balancer.codecs.write(index, codec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::limits::BACKENDS_MAX;
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};
    use tempfile::TempDir;

    const FIRST: &str =
        "[[epoch]]\nnumber = 1\nminted_from = 2026-01-02T03:04:05Z\nkey = \"11111111111111111111111111111111\"\n";
    const SECOND: &str =
        "[[epoch]]\nnumber = 2\nminted_from = 2026-01-02T04:04:05Z\nkey = \"22222222222222222222222222222222\"\n";

    impl TokenMemory {
        /// As much as there may be.
        pub(in crate::service) fn largest() -> Self {
            let fingerprint: Fingerprint = serde_json::from_str(&u64::MAX.to_string()).expect("a number");
            let ids = (0..u16::try_from(BACKENDS_MAX).expect("13 bits")).map(|id| (id, u64::MAX));
            let epoch = EpochMemory { fingerprint, bits: 12, ids: ids.collect() };
            let pool = |number| (format!("{number:0>63}"), vec![epoch.clone(); 2]);
            Self((0..TOKEN_IDS_KNOWN_MAX / BACKENDS_MAX as usize / 2).map(pool).collect())
        }
    }

    struct Stage(TempDir);

    impl Stage {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        /// A configuration whose pool has these backends, by name, last byte of the address and id.
        fn config(&self, secret: &str, max_backends: u32, backends: &[(&str, u8, u16)]) -> Config {
            let path = self.0.path().join("secret");
            fs::write(&path, secret).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("rights");
            Config::parse(&text(&path, max_backends, backends), "weir.toml").expect("a good configuration")
        }
    }

    fn text(secret: &Path, max_backends: u32, backends: &[(&str, u8, u16)]) -> String {
        let backend = |(name, byte, id): &(&str, u8, u16)| {
            format!("[[pool.backend]]\nname = \"{name}\"\naddress = \"10.0.0.{byte}\"\ntoken_id = {id}\n")
        };
        format!(
            "[balancer]\ninterface = \"eth0\"\n[[pool]]\nname = \"web\"\njoin = [\"token\"]\n\
             [pool.token]\nsecret = {secret:?}\nmax_backends = {max_backends}\n{}",
            backends.iter().map(backend).collect::<String>()
        )
    }

    const BOTH: &[(&str, u8, u16)] = &[("b1", 1, 7), ("b2", 2, 9)];

    #[test]
    fn an_id_means_one_backend_as_long_as_an_epoch_lives_that_knows_it() {
        let stage = Stage::new();
        let memory = TokenMemory::default().next(&stage.config(FIRST, 16, BOTH)).expect("new");
        assert_eq!(memory.next(&stage.config(FIRST, 16, BOTH)).as_ref(), Ok(&memory));

        // Gone, and its id given to another name, another address, or the backend that stays.
        let alone = memory.next(&stage.config(FIRST, 16, &BOTH[..1])).expect("one has left");
        for other in [("b3", 2, 9), ("b2", 3, 9)] {
            let refused = alone.next(&stage.config(FIRST, 16, &[BOTH[0], other])).expect_err("another backend");
            assert!(matches!(&refused, TokenConflict::Id { id: 9, epoch: 1, .. }), "{refused}");
        }
        let swapped = alone.next(&stage.config(FIRST, 16, &[("b1", 1, 9)]));
        assert!(matches!(swapped, Err(TokenConflict::Id { id: 9, .. })));
        assert!(alone.next(&stage.config(FIRST, 16, BOTH)).is_ok(), "it comes back");
        assert!(alone.next(&stage.config(FIRST, 16, &[BOTH[0], ("b3", 3, 10)])).is_ok(), "an id that none has had");

        // Not before the last epoch that knows it is gone.
        let both_epochs = format!("{FIRST}{SECOND}");
        let rotated = alone.next(&stage.config(&both_epochs, 16, &BOTH[..1])).expect("rotated");
        let other = [BOTH[0], ("b3", 3, 9)];
        assert!(rotated.next(&stage.config(&both_epochs, 16, &other)).is_err());
        assert!(rotated.next(&stage.config(SECOND, 16, &other)).is_ok());
    }

    #[test]
    fn ids_keep_their_bits_as_long_as_an_epoch_lives() {
        let stage = Stage::new();
        let memory = TokenMemory::default().next(&stage.config(FIRST, 16, BOTH)).expect("new");
        assert!(memory.next(&stage.config(FIRST, 12, BOTH)).is_ok(), "four bits all the same");
        for (max_backends, bits) in [(17, "5 bits"), (8, "3 bits")] {
            let refused = memory.next(&stage.config(FIRST, max_backends, &BOTH[..1])).expect_err(bits).to_string();
            assert!(refused.contains(bits) && refused.contains("have 4"), "{refused}");
        }
        assert!(memory.next(&stage.config(SECOND, 32, BOTH)).is_ok(), "another secret");
    }

    #[test]
    fn bearers_are_those_that_are_known_and_the_rest_are_gone() {
        let stage = Stage::new();
        let memory = TokenMemory::default().next(&stage.config(FIRST, 16, BOTH)).expect("new");
        let memory = memory.next(&stage.config(FIRST, 16, &[BOTH[0], ("b3", 3, 10)])).expect("one for another");
        let name = |name: &str, byte: u8| {
            identity(&BackendName { pool: "web".into(), name: name.into(), address: [10, 0, 0, byte].into() })
        };
        let known = BTreeMap::from([(name("b1", 1), BackendId(4)), (name("b3", 3), BackendId(5))]);
        let expected = [(7, Bearer::of(BackendId(4))), (9, Bearer::GONE), (10, Bearer::of(BackendId(5)))];
        assert_eq!(memory.bearers("web", &known), expected.map(|(id, bearer)| (TokenId(id), bearer)).into());
        assert!(memory.bearers("mail", &known).is_empty());
    }

    #[test]
    fn a_pool_that_is_gone_is_forgotten_with_its_number() {
        let stage = Stage::new();
        let mut memory = TokenMemory::default().next(&stage.config(FIRST, 16, BOTH)).expect("new");
        let other = stage.config(FIRST, 16, BOTH);
        memory.forget_pools(|pool| pool == "web");
        assert_eq!(memory.next(&other).as_ref(), Ok(&memory));
        memory.forget_pools(|_| false);
        assert_eq!(memory, TokenMemory::default());
    }
}
