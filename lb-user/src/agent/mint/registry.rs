//! Which tokens are taken, and by what. A second connection with a token that is in use hangs, so a key is given out only
//! if its token is free: not ready, not out, not of a live connection, and not of one that has ended just now.

use lb_common::{ids::Token, mint::Key};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// For how long the kernel may take a cookie: less than two minutes, and then some (`MAX_SYNCOOKIE_AGE`).
pub(super) const COOKIE_LIFE: Duration = Duration::from_secs(150);

/// What is known of tokens.
#[derive(Default)]
pub(super) struct Registry {
    /// Keys that the kernel has to give out.
    ready: HashMap<Token, Key>,
    /// Keys that were given out.
    out: HashMap<Token, Key>,
    /// Connections that live, whoever chose their keys.
    live: HashSet<Token>,
    /// Tokens that rest, and until when by the kernel's clock: a cookie may come twice.
    resting: HashMap<Token, Duration>,
}

/// What a connection that was created means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Created {
    /// A key that was given out has come back.
    CameBack(Key),
    /// A key that is, or may be, still to be given out has its token.
    Clash(Key),
    /// Nothing: the kernel has chosen.
    Foreign,
}

impl Registry {
    /// Whether a key with this token may be given out.
    pub(super) fn is_free(&self, token: Token, now: Duration) -> bool {
        !self.ready.contains_key(&token)
            && !self.out.contains_key(&token)
            && !self.live.contains(&token)
            && self.resting.get(&token).is_none_or(|&until| until <= now)
    }

    /// A key is ready.
    pub(super) fn make_ready(&mut self, token: Token, key: Key) {
        self.ready.insert(token, key);
    }

    /// It is no more, and was not given out.
    pub(super) fn withdraw(&mut self, token: Token) {
        self.ready.remove(&token);
    }

    /// It was given out.
    pub(super) fn give_out(&mut self, token: Token, key: Key) {
        self.ready.remove(&token);
        self.out.insert(token, key);
    }

    /// It was given out, and its cookie has expired.
    pub(super) fn expire(&mut self, token: Token) {
        self.out.remove(&token);
    }

    /// A connection was created; `is_out` is whether the kernel's table says that a key was given out.
    pub(super) fn create(&mut self, token: Token, is_out: impl FnOnce(Key) -> bool) -> Created {
        self.live.insert(token);
        if let Some(key) = self.out.remove(&token) {
            return Created::CameBack(key);
        }
        match self.ready.remove(&token) {
            Some(key) if is_out(key) => Created::CameBack(key),
            Some(key) => Created::Clash(key),
            None => Created::Foreign,
        }
    }

    /// A connection has ended.
    pub(super) fn close(&mut self, token: Token, now: Duration) {
        if self.live.remove(&token) {
            self.resting.insert(token, now + COOKIE_LIFE);
        }
    }

    /// These are all connections that there are.
    pub(super) fn replace(&mut self, live: HashSet<Token>, now: Duration) -> Vec<Token> {
        let ended: Vec<_> = self.live.difference(&live).copied().collect();
        self.resting.extend(ended.into_iter().map(|token| (token, now + COOKIE_LIFE)));
        let created = live.difference(&self.live).copied().collect();
        self.live = live;
        created
    }

    /// Forgets who has rested.
    pub(super) fn wake(&mut self, now: Duration) {
        self.resting.retain(|_, until| *until > now);
    }

    /// How many keys are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many keys are out.
    pub(super) fn out(&self) -> usize {
        self.out.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Duration = Duration::from_hours(1);

    fn token(number: u32) -> Token {
        Token::from_wire(number.to_be_bytes())
    }

    #[test]
    fn a_token_is_free_only_when_nobody_has_it_any_more() {
        let (mut registry, now, one) = (Registry::default(), NOW, token(1));
        assert!(registry.is_free(one, now));
        registry.make_ready(one, [1; 8]);
        assert!(!registry.is_free(one, now), "ready");
        registry.give_out(one, [1; 8]);
        assert!(!registry.is_free(one, now) && registry.ready() == 0, "out");
        assert_eq!(registry.create(one, |_| panic!("it is known to be out")), Created::CameBack([1; 8]));
        assert!(!registry.is_free(one, now) && registry.out() == 0, "live");
        registry.close(one, now);
        assert!(!registry.is_free(one, now), "its cookie may come twice");
        let later = now + COOKIE_LIFE;
        assert!(registry.is_free(one, later));
        registry.wake(later);
        assert!(registry.is_free(one, later) && registry.resting.is_empty());
    }

    #[test]
    fn whose_a_connection_is() {
        let (mut registry, now) = (Registry::default(), NOW);
        for number in [1_u8, 2] {
            registry.make_ready(token(number.into()), [number; 8]);
        }
        assert_eq!(registry.create(token(1), |key| key == [1; 8]), Created::CameBack([1; 8]), "nobody had told yet");
        assert_eq!(registry.create(token(2), |_| false), Created::Clash([2; 8]));
        assert_eq!(registry.create(token(3), |_| panic!("no key has it")), Created::Foreign);
        assert!((1..=3).all(|number| !registry.is_free(token(number), now)) && registry.ready() == 0);
    }

    #[test]
    fn a_list_of_all_tells_what_events_did_not() {
        let (mut registry, now) = (Registry::default(), NOW);
        registry.create(token(1), |_| false);
        registry.create(token(2), |_| false);
        let created = registry.replace([token(2), token(3)].into(), now);
        assert_eq!(created, [token(3)]);
        assert!((1..=3).all(|number| !registry.is_free(token(number), now)));
        assert!(registry.is_free(token(1), now + COOKIE_LIFE) && !registry.is_free(token(2), now + COOKIE_LIFE));
    }

    proptest! {
        /// Whatever happens in whatever order, no two keys with one token are ready, out or in use.
        #[test]
        fn no_token_is_given_twice(steps in proptest::collection::vec((0u8..5, 0u32..6), 0..200)) {
            let (mut registry, now) = (Registry::default(), NOW);
            let mut holders = HashMap::<u32, u32>::new();
            for (step, number) in steps {
                let one = token(number);
                match step {
                    0 if registry.is_free(one, now) => {
                        registry.make_ready(one, [0; 8]);
                        *holders.entry(number).or_default() += 1;
                    }
                    1 if registry.ready.contains_key(&one) => registry.give_out(one, [0; 8]),
                    2 if registry.out.contains_key(&one) => drop(registry.create(one, |_| true)),
                    3 if registry.out.contains_key(&one) => {
                        registry.expire(one);
                        holders.insert(number, 0);
                    }
                    4 if registry.live.contains(&one) => {
                        registry.close(one, now.saturating_sub(COOKIE_LIFE));
                        holders.insert(number, u32::from(!registry.is_free(one, now)));
                    }
                    _ => {}
                }
                prop_assert!(holders.values().all(|&count| count <= 1));
            }
        }
    }
}
