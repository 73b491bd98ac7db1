//! What is announced, by the answers so far. A clear "no" counts at once; silence only when it lasts, for a controller that is
//! restarted says nothing for a second while packets are steered all the same; and a "yes" only when it is repeated.

use crate::config::Prefix;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// What a balancer has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It steers packets to these.
    Fit(BTreeSet<Prefix>),
    /// It is not to be announced, for this reason.
    Unfit(String),
    /// Nothing that can be relied on: why.
    Silent(String),
}

/// How much is believed.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Good answers in a row that it takes to be announced.
    pub rise: u32,
    /// How long no answer may come, until it is withdrawn.
    pub silence: Duration,
}

/// What follows from the answers so far.
#[derive(Debug)]
pub struct Verdict {
    patience: Patience,
    good: u32,
    /// When it last answered, while it is announced.
    answered: Instant,
    announced: BTreeSet<Prefix>,
    /// Why it is not announced, or may soon be no more; empty where there is nothing to say.
    why: String,
}

impl Verdict {
    /// Before any answer nothing is announced.
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            good: 0,
            answered: Instant::now(),
            announced: BTreeSet::new(),
            why: "the balancer has not answered yet".to_owned(),
        }
    }

    /// Takes an answer in that came at this time.
    pub fn hear(&mut self, answer: Answer, now: Instant) {
        match answer {
            Answer::Fit(prefixes) => {
                self.good = self.good.saturating_add(1);
                self.answered = now;
                if self.good >= self.patience.rise {
                    self.announced = prefixes;
                    self.why.clear();
                } else if self.announced.is_empty() {
                    self.why = format!("well, but not yet {} times in a row", self.patience.rise);
                }
            }
            Answer::Unfit(why) => self.withdraw(why),
            Answer::Silent(why) if now.duration_since(self.answered) >= self.patience.silence => self.withdraw(why),
            Answer::Silent(why) => self.why = why,
        }
    }

    /// What is to be announced.
    pub fn announced(&self) -> &BTreeSet<Prefix> {
        &self.announced
    }

    /// Why nothing is, or may soon be no more: empty where the last answer was good and is followed.
    pub fn why(&self) -> &str {
        &self.why
    }

    fn withdraw(&mut self, why: String) {
        self.good = 0;
        self.announced.clear();
        self.why = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { rise: 3, silence: Duration::from_secs(5) };

    fn fit() -> Answer {
        Answer::Fit(BTreeSet::from(["192.0.2.1".parse().expect("an address")]))
    }

    fn silent() -> Answer {
        Answer::Silent("refused".to_owned())
    }

    /// A verdict that hears an answer each second, from `second` on; when it last announced something.
    fn hear(verdict: &mut Verdict, start: Instant, second: u64, answers: &[Answer]) -> Vec<bool> {
        let times = (second..).map(|second| start + Duration::from_secs(second));
        let mut announced = Vec::new();
        for (answer, time) in answers.iter().zip(times) {
            verdict.hear(answer.clone(), time);
            announced.push(!verdict.announced().is_empty());
        }
        announced
    }

    #[test]
    fn good_answers_in_a_row_announce() {
        let mut verdict = Verdict::new(PATIENCE);
        let start = Instant::now();
        assert_eq!(hear(&mut verdict, start, 0, &[fit(), fit(), fit(), fit()]), [false, false, true, true]);
        let no = Answer::Unfit("withdrawn".to_owned());
        assert_eq!(hear(&mut verdict, start, 4, &[no, fit(), fit(), fit()]), [false, false, false, true]);
    }

    #[test]
    fn silence_is_borne_for_a_while() {
        let mut verdict = Verdict::new(PATIENCE);
        let start = Instant::now();
        hear(&mut verdict, start, 0, &[fit(), fit(), fit()]);
        let answers = [silent(), silent(), fit(), silent(), silent(), silent(), silent(), silent(), fit()];
        let announced = [true, true, true, true, true, true, true, false, false];
        assert_eq!(hear(&mut verdict, start, 3, &answers), announced);
        assert_eq!(verdict.why(), "well, but not yet 3 times in a row");
    }

    #[test]
    fn what_is_no_longer_steered_is_withdrawn_at_once() {
        let mut verdict = Verdict::new(PATIENCE);
        let start = Instant::now();
        hear(&mut verdict, start, 0, &[fit(), fit(), fit()]);
        let other = BTreeSet::from(["192.0.2.0/24".parse().expect("a prefix")]);
        hear(&mut verdict, start, 3, &[Answer::Fit(other.clone())]);
        assert_eq!(*verdict.announced(), other);
    }
}
