//! Whether a backend is well, by its checks: so many good ones in a row bring it back, so many failed ones take it out.
//! Nothing here reads a clock or asks anybody.

use crate::seldom::Seldom;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// What a good check has found out about tokens that name backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minting {
    /// The server gives such tokens.
    Tokens,
    /// The server speaks plain TCP: nothing is wrong, but its connections have one path.
    PlainTcp,
}

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What a good one has found out about tokens, where it was asked.
    pub minting: Option<Minting>,
    /// Why it failed, in an operator's words; nothing if it was good.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// What the checks say of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing yet, and it is believed: weir has only just started.
    Believed,
    /// Nothing yet, and it has to show itself first: it has come to a running balancer.
    Unproven,
    /// It is well.
    Up,
    /// It is not.
    Down,
}

impl Verdict {
    /// Whether it may take connections.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Believed | Self::Up)
    }

    /// Its word on screens and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Believed | Self::Unproven => "unchecked",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A backend's checks so far.
#[derive(Debug)]
pub struct Health {
    /// What they say.
    pub verdict: Verdict,
    /// Checks in a row that said otherwise.
    pub against: u32,
    /// Good ones.
    pub passed: u64,
    /// Failed ones.
    pub failed: u64,
    /// Those that this machine could not make.
    pub unmade: u64,
    /// How long all of them took together.
    pub took: Duration,
    /// How long the last took.
    pub last_took: Duration,
    /// Why the last failed; nothing if it was good.
    pub last_error: Option<String>,
    /// What the last good one has found out about tokens, where they are asked.
    pub minting: Option<Minting>,
    /// How many good ones have found plain TCP where there should be tokens.
    pub plain: u64,
    /// Whether nobody has been told yet why this machine could not make the last one.
    untold: bool,
    /// When somebody was last told that this machine could not make one.
    told: Seldom,
}

impl Health {
    /// Before the first check.
    pub fn new(verdict: Verdict) -> Self {
        Self {
            verdict,
            against: 0,
            passed: 0,
            failed: 0,
            unmade: 0,
            took: Duration::ZERO,
            last_took: Duration::ZERO,
            last_error: None,
            minting: None,
            plain: 0,
            untold: false,
            told: Seldom::default(),
        }
    }

    /// Takes in a check. True if the verdict is another now. The first check alone decides; from then on it takes `rise`
    /// or `fall` of them in a row.
    pub fn note(&mut self, outcome: Outcome, rise: u32, fall: u32) -> bool {
        let before = self.verdict;
        let is_good = outcome.error.is_none();
        (self.took, self.last_took) = (self.took + outcome.took, outcome.took);
        self.last_error = outcome.error;
        if is_good {
            self.passed += 1;
            self.minting = outcome.minting;
            self.plain += u64::from(outcome.minting == Some(Minting::PlainTcp));
        } else {
            self.failed += 1;
        }
        let (agrees, needed) = match before {
            Verdict::Believed | Verdict::Unproven => (false, 1),
            Verdict::Up => (is_good, fall),
            Verdict::Down => (!is_good, rise),
        };
        self.against = if agrees { 0 } else { self.against + 1 };
        if self.against >= needed {
            self.verdict = if is_good { Verdict::Up } else { Verdict::Down };
            self.against = 0;
        }
        self.verdict != before
    }

    /// Takes in that this machine could not make a check, which leaves the verdict as it is. True if somebody is to be told
    /// why: it was not so at the check before, or for another reason, and nobody was told for a while.
    pub fn note_unmade(&mut self, why: String, now: Instant) -> bool {
        self.unmade += 1;
        if self.last_error.as_ref() != Some(&why) {
            self.last_error = Some(why);
            self.untold = true;
        }
        let tell = self.untold && self.told.may_tell(now);
        self.untold &= !tell;
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RISE: u32 = 2;
    const FALL: u32 = 3;

    fn outcome(is_good: bool) -> Outcome {
        let error = (!is_good).then(|| "connection refused".to_owned());
        Outcome { error, minting: None, took: Duration::from_millis(1) }
    }

    /// The verdicts after each of these checks: `+` is a good one.
    fn verdicts(begin: Verdict, checks: &str) -> Vec<Verdict> {
        let mut health = Health::new(begin);
        let note = |check| {
            let before = health.verdict;
            assert_eq!(health.note(outcome(check == '+'), RISE, FALL), health.verdict != before);
            health.verdict
        };
        checks.chars().map(note).collect()
    }

    #[test]
    fn rise_and_fall_are_counted_in_a_row() {
        use Verdict::{Down, Up};
        assert_eq!(verdicts(Up, "--+--+---"), [Up, Up, Up, Up, Up, Up, Up, Up, Down]);
        assert_eq!(verdicts(Down, "+-+-++-"), [Down, Down, Down, Down, Down, Up, Up]);
    }

    #[test]
    fn the_first_check_alone_decides() {
        for begin in [Verdict::Believed, Verdict::Unproven] {
            assert_eq!(verdicts(begin, "+--"), [Verdict::Up; 3]);
            assert_eq!(verdicts(begin, "-+"), [Verdict::Down; 2]);
        }
        assert!(Verdict::Believed.is_up() && !Verdict::Unproven.is_up());
    }

    /// Checks that cannot be made and such that can, in turn, have one line in the log a minute; a reason that stays has one.
    #[test]
    fn checks_that_cannot_be_made_are_counted_and_told_of_seldom() {
        let (mut health, begin) = (Health::new(Verdict::Up), Instant::now());
        let mut told = Vec::new();
        for second in 0..150 {
            let why = if second < 100 { "no files" } else { "no ports" };
            if health.note_unmade(why.to_owned(), begin + Duration::from_secs(second)) {
                told.push(second);
            }
            if second < 70 {
                health.note(outcome(true), RISE, FALL);
            }
        }
        assert_eq!(told, [0, 60, 120]);
        assert_eq!((health.unmade, health.passed, health.failed, health.verdict), (150, 70, 0, Verdict::Up));
        assert_eq!(health.last_error.as_deref(), Some("no ports"));
    }

    #[test]
    fn plain_tcp_is_good_and_counted() {
        let mut health = Health::new(Verdict::Up);
        let found = |minting| Outcome { minting: Some(minting), ..outcome(true) };
        for minting in [Minting::PlainTcp, Minting::PlainTcp, Minting::Tokens] {
            health.note(found(minting), RISE, FALL);
        }
        health.note(outcome(false), RISE, FALL);
        assert_eq!((health.minting, health.plain, health.passed), (Some(Minting::Tokens), 2, 3));
    }

    #[test]
    fn the_last_error_stays_until_a_check_is_good() {
        let mut health = Health::new(Verdict::Up);
        health.note(outcome(false), RISE, FALL);
        assert_eq!((health.last_error.as_deref(), health.failed), (Some("connection refused"), 1));
        health.note(outcome(true), RISE, FALL);
        assert_eq!((health.last_error, health.passed, health.took), (None, 1, Duration::from_millis(2)));
    }
}
