//! Stateless tokens: MPTCP tokens that name the backend, for whoever has the secret (as QUIC-LB's connection ids do,
//! draft-ietf-quic-load-balancers). An agent searches for keys whose tokens read so; a balancer reads a token by one hash.
//!
//! The top two bits of a token are its *epoch*, in clear: they say which secret it was made under. The backend's *id* is the
//! low bits of SipHash-1-3, under the secret of that epoch, of the token's four wire bytes; how many bits, a pool's largest
//! number of backends says. Nothing is encrypted, and nothing else is in a token: it stays the digest of a random key.
//!
//! What others can learn and do:
//!
//! - An observer sees epochs, so he knows when secrets are rotated. Without the secret he can tell neither a token's
//!   backend, nor whether two tokens have the same one, nor a token of this kind from any other.
//! - A client knows its own tokens. It can send joins to the one backend that has its connection, as in any way to steer
//!   joins; what it makes up lands on backends by chance, and is reset there. A token proves nothing: HMACs of `MP_JOIN` do.
//! - Who has the secret reads the backend of every token that he sees, and can aim at one. He does not learn keys of
//!   connections; but a key that he has to guess has lost as many of its 64 bits as epoch and id have: 14 at most.
//! - A secret that is gone leaves its tokens unreadable. Four rotations later its number comes again, and then they would
//!   read as somebody else's: a secret must live as long as the connections that it has made.
//!
//! It must never hold a token that was not minted to be true: every token of a live epoch reads as some id, so a pool whose
//! backends choose keys by chance is steered by chance.

use crate::{
    hash::{SipKey, sip::sip13},
    ids::{BackendId, PoolId, Token},
    limits::{POOLS_MAX, TOKEN_BACKENDS, TOKENS_PER_CONNECTION, TOKENS_PER_KEY},
    tables::Tables,
};
use core::ops::Range;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Epochs that a token can name.
pub const EPOCHS: usize = 4;

/// Bits of a token behind the epoch's.
const FREE_BITS: u32 = u32::BITS - EPOCHS.ilog2();

/// Which secret a token was made under: 0 to 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u8);

impl Epoch {
    /// Where a new secret begins.
    pub const FIRST: Self = Self(0);

    /// The epoch of this number, if there is one.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < EPOCHS { Some(Self(number)) } else { None }
    }

    /// The epoch that a token names.
    #[inline(always)]
    pub const fn of(token: Token) -> Self {
        Self((token.number() >> FREE_BITS) as u8)
    }

    /// The one after it: 0 comes after 3.
    #[must_use]
    pub const fn next(self) -> Self {
        Self((self.0 + 1) & 3)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// What tokens name a backend by; its meaning is the pool's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenId(pub u16);

/// How many bits of the hash are the id: 1 to 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdBits(u32);

impl IdBits {
    /// As many as ids below `backends` need; none where it is beyond [`TOKEN_BACKENDS`].
    pub const fn for_backends(backends: u32) -> Option<Self> {
        if backends < TOKEN_BACKENDS.min || backends > TOKEN_BACKENDS.max {
            return None;
        }
        let bits = backends.next_power_of_two().ilog2();
        Some(Self(if bits == 0 { 1 } else { bits }))
    }

    /// Their number.
    pub const fn count(self) -> u32 {
        self.0
    }

    /// Ids that they can tell apart.
    pub const fn ids(self) -> u32 {
        1 << self.0
    }

    /// Tokens that name one backend in one epoch, as an expectation.
    pub const fn tokens(self) -> u32 {
        1 << (FREE_BITS - self.0)
    }

    /// Connections of one backend for which that is enough: there must be [`TOKENS_PER_CONNECTION`] for each.
    pub const fn connections_max(self) -> u32 {
        self.tokens() / TOKENS_PER_CONNECTION
    }

    /// Keys that one backend may have ready: there must be [`TOKENS_PER_KEY`] for each.
    pub const fn keys_max(self) -> u32 {
        self.tokens() / TOKENS_PER_KEY
    }

    const fn mask(self) -> u32 {
        self.ids() - 1
    }
}

/// The id that a token has under a key.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
fn id_under(key: &SipKey, token: Token, mask: u32) -> TokenId {
    let wire = u32::from_le_bytes(token.to_wire());
    TokenId((sip13(key, [], wire.into(), 4) as u32 & mask) as u16)
}

/// What a backend's tokens of one epoch have in common: what its agent searches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Whose they are.
    pub id: TokenId,
    /// The epoch.
    pub epoch: Epoch,
    /// Its secret.
    pub key: SipKey,
    /// How many bits the id has.
    pub bits: IdBits,
}

impl Mark {
    /// Whether a token has it: one in `EPOCHS * bits.ids()` does.
    pub fn is_on(&self, token: Token) -> bool {
        Epoch::of(token) == self.epoch && id_under(&self.key, token, self.bits.mask()) == self.id
    }
}

/// What reads the tokens of a pool, as the kernel holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Codec {
    keys: [SipKey; EPOCHS],
    /// A bit for each epoch that has a key.
    live: u32,
    id_mask: u32,
}

const _: () = assert!(size_of::<Codec>() == 72);

impl Codec {
    /// One that reads nothing.
    pub const NONE: Self = Self { keys: [SipKey::from_bytes([0; 16]); EPOCHS], live: 0, id_mask: 0 };

    /// One that has no epoch yet.
    pub const fn new(bits: IdBits) -> Self {
        Self { id_mask: bits.mask(), ..Self::NONE }
    }

    /// The same, which also reads the tokens of an epoch.
    #[must_use]
    pub const fn with(mut self, epoch: Epoch, key: SipKey) -> Self {
        self.keys[epoch.0 as usize] = key;
        self.live |= 1 << epoch.0;
        self
    }

    /// The steps by which what is read follows from one to the other, while tokens are being read: without what is read
    /// otherwise or no more; with the new keys, which are not used yet; and all of it.
    pub fn steps_to(self, wanted: Self) -> [Self; 3] {
        let is_kept = |epoch: &usize| self.keys[*epoch] == wanted.keys[*epoch] && self.id_mask == wanted.id_mask;
        let alike = (0..EPOCHS).filter(is_kept).fold(0, |alike, epoch| alike | 1 << epoch);
        let live = self.live & wanted.live & alike;
        [Self { live, ..self }, Self { live, ..wanted }, wanted]
    }

    /// The id that a token names, unless its epoch has no secret.
    #[inline(always)]
    pub fn decode(&self, token: Token) -> Option<TokenId> {
        let epoch = Epoch::of(token).0;
        if self.live >> epoch & 1 == 0 {
            return None;
        }
        let key = self.keys.get(usize::from(epoch))?;
        Some(id_under(key, token, self.id_mask))
    }
}

/// Who has an id in the tokens of a pool: a backend, or one of the constants below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Bearer(u16);

impl Bearer {
    /// No backend has, or ever had under a secret that is live.
    pub const NOBODY: Self = Self(0);
    /// A backend that is not there any more; its connections may not have noticed.
    pub const GONE: Self = Self(u16::MAX);

    /// This backend.
    pub const fn of(backend: BackendId) -> Self {
        Self(backend.0)
    }

    /// The backend, if it is one.
    #[inline(always)]
    pub const fn backend(self) -> Option<BackendId> {
        match self {
            Self::NOBODY | Self::GONE => None,
            Self(id) => Some(BackendId(id)),
        }
    }

    /// As a function in the kernel returns it.
    #[inline(always)]
    pub const fn to_word(self) -> u32 {
        self.0 as u32
    }

    /// The inverse of [`Self::to_word`].
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "sixteen bits")]
    pub const fn from_word(word: u32) -> Self {
        Self(word as u16)
    }
}

/// Bearers of neighbouring ids, which lie together in a map: a cache line.
pub type Bearers = [Bearer; BEARERS_PER_CHUNK as usize];

const BEARERS_PER_CHUNK: u32 = 32;
const CHUNKS_PER_POOL: u32 = TOKEN_BACKENDS.max / BEARERS_PER_CHUNK;

/// Chunks of the bearers of all pools.
pub const BEARER_CHUNKS: u32 = POOLS_MAX * CHUNKS_PER_POOL;

/// The chunk of an id in a pool's tokens, and the place in it.
#[inline(always)]
pub const fn bearer_place(pool: PoolId, TokenId(id): TokenId) -> (u32, usize) {
    let chunk = id as u32 / BEARERS_PER_CHUNK % CHUNKS_PER_POOL;
    (pool.0 as u32 * CHUNKS_PER_POOL + chunk, (id as u32 % BEARERS_PER_CHUNK) as usize)
}

/// The chunks of a pool's ids.
pub const fn bearer_chunks(pool: PoolId) -> Range<u32> {
    let first = pool.0 as u32 * CHUNKS_PER_POOL;
    first..first + CHUNKS_PER_POOL
}

/// Whom a token of a pool names.
#[inline(always)]
pub fn named_by<T: Tables + ?Sized>(tables: &T, pool: PoolId, token: Token) -> Bearer {
    match tables.codec(pool).and_then(|codec| codec.decode(token)) {
        Some(id) => tables.bearer(pool, id),
        None => Bearer::NOBODY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    /// The id as another implementation of the hash has it.
    fn judged(key: [u8; 16], wire: [u8; 4], bits: u32) -> u64 {
        SipHasher13::new_with_key(&key).hash(&wire) % (1 << bits)
    }

    fn bits() -> impl Strategy<Value = (u32, IdBits)> {
        (1u32..=12).prop_map(|count| (count, IdBits::for_backends(1 << count).expect("within the limit")))
    }

    proptest! {
        #[test]
        fn decodes_as_siphasher_says(keys: [[u8; 16]; EPOCHS], live in 0u8..16, wire: [u8; 4], (count, bits) in bits()) {
            let mut codec = Codec::new(bits);
            for (number, key) in (0..).zip(keys).filter(|(number, _)| live >> number & 1 != 0) {
                codec = codec.with(Epoch::new(number).expect("below 4"), SipKey::from_bytes(key));
            }
            let epoch = wire[0] >> 6;
            let expected = judged(keys[usize::from(epoch)], wire, count);
            let decoded = codec.decode(Token::from_wire(wire)).map(|id| u64::from(id.0));
            prop_assert_eq!(decoded, (live >> epoch & 1 != 0).then_some(expected));
        }

        /// Whoever reads a token meanwhile reads what one of the two says, or nothing; and no key that is in use changes.
        #[test]
        fn a_codec_is_changed_in_steps(
            keys in prop::array::uniform4(0u8..3), wanted_keys in prop::array::uniform4(0u8..3),
            live in 0u8..16, wanted_live in 0u8..16, same_bits: bool, wire: [u8; 4],
        ) {
            let of = |backends, keys: [u8; EPOCHS], live: u8| {
                let live = (0..4).zip(keys).filter(|(number, _)| live >> number & 1 != 0);
                live.fold(Codec::new(IdBits::for_backends(backends).expect("few")), |codec, (number, key)| {
                    codec.with(Epoch::new(number).expect("below 4"), SipKey::from_bytes([key; 16]))
                })
            };
            let (from, to) = (of(16, keys, live), of(if same_bits { 16 } else { 32 }, wanted_keys, wanted_live));
            let steps = from.steps_to(to);
            prop_assert_eq!(steps[2], to);
            let token = Token::from_wire(wire);
            let [kept, prepared, _] = steps.map(|step| step.decode(token));
            prop_assert_eq!(kept, prepared);
            prop_assert!(kept.is_none() || (kept == from.decode(token) && kept == to.decode(token)));
            let before = [from, steps[0], steps[1]];
            for (before, after) in before.into_iter().zip(steps) {
                let changed = (0..EPOCHS).filter(|&epoch| before.keys[epoch] != after.keys[epoch]);
                prop_assert!(changed.into_iter().all(|epoch| (before.live | after.live) >> epoch & 1 == 0));
            }
            if same_bits && live == wanted_live && keys == wanted_keys {
                prop_assert_eq!(steps, [from; 3]);
            }
        }

        #[test]
        fn a_mark_is_what_the_codec_reads(key: [u8; 16], other: [u8; 16], epoch in 0u8..4, wire: [u8; 4], (_, bits) in bits()) {
            let (key, epoch) = (SipKey::from_bytes(key), Epoch::new(epoch).expect("below 4"));
            let token = Token::from_wire(wire);
            // The other epochs are live too: a mark is of one alone.
            let others = (0..4).filter_map(Epoch::new).fold(Codec::new(bits), |codec, epoch| codec.with(epoch, SipKey::from_bytes(other)));
            let read = others.with(epoch, key).decode(token).expect("all epochs are live");
            for id in [read, TokenId(read.0 ^ 1)] {
                let mark = Mark { id, epoch, key, bits };
                prop_assert_eq!(mark.is_on(token), id == read && Epoch::of(token) == epoch);
            }
        }

        #[test]
        fn ids_are_in_range_and_fit(backends in 1u32..=4096) {
            let bits = IdBits::for_backends(backends).expect("within the limit");
            prop_assert!(bits.ids() >= backends && (1..=12).contains(&bits.count()));
            prop_assert!(bits.count() == 1 || bits.ids() / 2 < backends, "one bit fewer would do");
            // 2^(30 - bits) tokens, 100 of them for each connection.
            prop_assert_eq!(u64::from(bits.tokens()) * u64::from(bits.ids()), 1 << 30);
            prop_assert!(u64::from(bits.connections_max()) * 100 <= u64::from(bits.tokens()));
            prop_assert!(u64::from(bits.connections_max() + 1) * 100 > u64::from(bits.tokens()));
        }
    }

    #[test]
    fn every_backend_gets_its_share_of_all_tokens() {
        let bits = IdBits::for_backends(16).expect("within the limit");
        let epoch = Epoch::new(2).expect("below 4");
        let codec = Codec::new(bits).with(epoch, SipKey::from_bytes([7; 16]));
        let mut counts = [0u32; 16];
        for number in 0..1u32 << 16 {
            if let Some(id) = codec.decode(Token::from_wire((number << 16).to_be_bytes())) {
                counts[usize::from(id.0)] += 1;
            }
        }
        assert_eq!(counts.iter().sum::<u32>(), 1 << 14, "a quarter of the tokens is of one epoch");
        // 1,024 for each, and six standard deviations of about 31.
        assert!(counts.iter().all(|count| count.abs_diff(1024) < 186), "{counts:?}");
    }

    #[test]
    fn limits_of_backends() {
        for refused in [0, 4097, u32::MAX] {
            assert_eq!(IdBits::for_backends(refused), None, "{refused}");
        }
        for (backends, bits, connections) in
            [(1, 1, 5_368_709), (2, 1, 5_368_709), (256, 8, 41_943), (257, 9, 20_971), (4096, 12, 2621)]
        {
            let found = IdBits::for_backends(backends).expect("within the limit");
            assert_eq!((found.count(), found.connections_max()), (bits, connections), "{backends}");
        }
    }

    #[test]
    fn every_id_of_every_pool_has_a_place_of_its_own() {
        let places: std::collections::HashSet<_> = (0..64)
            .flat_map(|pool| (0..4096).map(move |id| bearer_place(PoolId(pool), TokenId(id))))
            .inspect(|&(chunk, place)| assert!(chunk < BEARER_CHUNKS && place < size_of::<Bearers>() / 2))
            .collect();
        assert_eq!(places.len(), 64 * 4096);
    }

    #[test]
    fn a_bearer_is_a_backend_or_none() {
        for bearer in [Bearer::NOBODY, Bearer::GONE, Bearer::of(BackendId(1)), Bearer::of(BackendId(4096))] {
            assert_eq!(Bearer::from_word(bearer.to_word()), bearer);
        }
        assert_eq!(Bearer::of(BackendId(4096)).backend(), Some(BackendId(4096)));
        assert_eq!((Bearer::NOBODY.backend(), Bearer::GONE.backend()), (None, None));
        assert_eq!(Bearer::of(BackendId::NONE), Bearer::NOBODY);
    }

    #[test]
    fn epochs_come_again() {
        assert_eq!(Epoch::new(4), None);
        let numbers = core::iter::successors(Epoch::new(2), |epoch| Some(epoch.next())).map(Epoch::number);
        assert_eq!(numbers.take(5).collect::<Vec<_>>(), [2, 3, 0, 1, 2]);
    }

    #[test]
    fn a_codec_without_epochs_reads_nothing_and_none_shows_its_keys() {
        let bits = IdBits::for_backends(2).expect("within the limit");
        for codec in [Codec::NONE, Codec::new(bits)] {
            assert_eq!(codec.decode(Token::from_wire([0; 4])), None);
        }
        let shown = format!("{:?}", Codec::new(bits).with(Epoch(0), SipKey::from_bytes([0xa5; 16])));
        assert!(!shown.contains("a5") && !shown.contains("165"), "{shown}");
    }
}
