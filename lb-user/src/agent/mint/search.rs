//! The search for keys whose tokens have a mark: a thread of its own that gives way to all others, and rests while there
//! are enough. Keys are secrets of connections, so candidates come from a generator that nobody can foresee.

use chacha20::{
    ChaCha12Rng,
    rand_core::{Rng as _, SeedableRng as _},
};
use lb_common::{ids::Token, mint::Key, stateless::Mark};
use sha2::block_api::compress256;
use std::{
    io,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

/// Candidates that are looked at between two words with anybody else: a millisecond's worth.
const BATCH: usize = 8192;
/// Keys that wait to be fetched.
const WAITING: usize = 4096;
/// How little the thread asks for (`nice`).
const NICE: i32 = 19;

/// A search that goes on while it lives.
pub(super) struct Search(Receiver<Key>);

impl Search {
    /// Begins.
    ///
    /// # Errors
    /// There is no thread to be had, or no randomness.
    pub(super) fn start(mark: Mark) -> io::Result<Self> {
        let (found, keys) = sync_channel(WAITING);
        let mut candidates = Candidates::new()?;
        thread::Builder::new().name("keys".to_owned()).spawn(move || {
            // To this call a thread is a process.
            let _ = rustix::process::nice(NICE);
            run(&mark, &mut candidates, &found);
        })?;
        Ok(Self(keys))
    }

    /// A key that was found, if one is there.
    pub(super) fn next(&self) -> Option<Key> {
        self.0.try_recv().ok()
    }
}

/// Until nobody wants to know.
fn run(mark: &Mark, candidates: &mut Candidates, found: &SyncSender<Key>) {
    loop {
        for key in candidates.batch(mark) {
            if found.send(key).is_err() {
                return;
            }
        }
    }
}

/// Random keys, a batch at a time.
pub struct Candidates {
    generator: ChaCha12Rng,
    bytes: Vec<u8>,
    left: u32,
}

impl Candidates {
    /// Batches after which the generator begins anew, from the kernel's randomness.
    const SEED_HOLDS: u32 = 1024;

    /// Candidates that nobody can foresee.
    ///
    /// # Errors
    /// The kernel has no randomness.
    pub fn new() -> io::Result<Self> {
        Ok(Self { generator: seeded()?, bytes: vec![0; BATCH * size_of::<Key>()], left: Self::SEED_HOLDS })
    }

    /// How many are in a batch.
    pub const BATCH: usize = BATCH;

    /// Those of the next batch whose tokens have the mark.
    pub fn batch(&mut self, mark: &Mark) -> Vec<Key> {
        self.left -= 1;
        if self.left == 0 {
            self.left = Self::SEED_HOLDS;
            if let Ok(generator) = seeded() {
                self.generator = generator;
            }
        }
        self.generator.fill_bytes(&mut self.bytes);
        let (keys, _) = self.bytes.as_chunks::<8>();
        keys.iter().copied().filter(|&key| mark.is_on(token_of(key))).collect()
    }
}

fn seeded() -> io::Result<ChaCha12Rng> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(io::Error::other)?;
    Ok(ChaCha12Rng::from_seed(seed))
}

/// The token of a key, by the CPU's own instructions where it has them.
pub fn token_of(key: Key) -> Token {
    const INITIAL: [u32; 8] =
        [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
    // The message, a one, and its length in bits.
    let mut block = [0; 64];
    block[..8].copy_from_slice(&key);
    (block[8], block[63]) = (0x80, 64);
    let mut state = INITIAL;
    compress256(&mut state, &[block]);
    Token::from_wire(state[0].to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::{
        hash::SipKey,
        stateless::{Codec, Epoch, IdBits, TokenId},
    };
    use proptest::prelude::*;
    use sha2::Digest as _;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn a_token_is_the_beginning_of_the_digest(key: [u8; 8]) {
            prop_assert_eq!(&token_of(key).to_wire()[..], &sha2::Sha256::digest(key)[..4]);
        }
    }

    #[test]
    fn what_is_found_names_the_backend_and_is_never_the_same() {
        let (epoch, key) = (Epoch::new(2).expect("below 4"), SipKey::from_bytes([3; 16]));
        let bits = IdBits::for_backends(16).expect("within the limit");
        let mark = Mark { id: TokenId(9), epoch, key, bits };
        let codec = Codec::new(bits).with(epoch, key);
        let mut candidates = Candidates::new().expect("randomness");
        let found: Vec<_> = (0..40).flat_map(|_| candidates.batch(&mark)).collect();
        // One in 64 of 327,680: 5,120, and six standard deviations of about 71.
        assert!(found.len().abs_diff(5120) < 430, "{}", found.len());
        assert!(found.iter().all(|&key| codec.decode(token_of(key)) == Some(TokenId(9))));
        assert_eq!(found.iter().collect::<HashSet<_>>().len(), found.len());
    }

    #[test]
    fn a_search_goes_on_until_nobody_wants_to_know() {
        let bits = IdBits::for_backends(2).expect("within the limit");
        let mark = Mark { id: TokenId(0), epoch: Epoch::FIRST, key: SipKey::from_bytes([1; 16]), bits };
        let search = Search::start(mark).expect("a thread");
        let mut found = 0;
        while found < 3 * WAITING {
            found += usize::from(search.next().is_some());
        }
    }
}
