//! A sequence of frames and of what a controller does between them, in memory and as the lines of a fixture.

use std::{fmt, str::FromStr};

/// What happens to a balancer, one thing after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sequence {
    /// The things.
    pub steps: Vec<Step>,
}

/// One thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A frame comes.
    Frame(Vec<u8>),
    /// The controller changes the tables.
    Change(Change),
}

/// What a controller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A backend is taken out.
    Gone(u16),
    /// It is there again.
    Back(u16),
    /// A slot has another state: pool, slot, owner, previous owner, and what else is true of it.
    Slot {
        /// Whose ring.
        pool: u16,
        /// Which slot.
        slot: u32,
        /// Who takes new connections.
        owner: u16,
        /// Who took them before; 0 where the slot is settled.
        previous: u16,
        /// Its transition is about to end.
        pins: bool,
        /// Its datagrams stay.
        keeps: bool,
    },
    /// Another of the two cluster keys holds, and the rotation to it is so far.
    Key {
        /// Which of the two holds.
        second: bool,
        /// Flows of the other one are still about.
        under_way: bool,
        /// That is about to end.
        pins: bool,
        /// Its datagrams stay.
        keeps: bool,
    },
    /// All learned tokens are removed.
    ForgetTokens,
    /// All entries of flows are removed.
    ForgetFlows,
    /// What is remembered of datagrams and of flows with an entry is so many ticks older.
    Age(u32),
}

impl Sequence {
    /// How many frames it has.
    pub fn frames(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Frame(_))).count()
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            match step {
                Step::Frame(bytes) => {
                    f.write_str("frame ")?;
                    for byte in bytes {
                        write!(f, "{byte:02x}")?;
                    }
                    writeln!(f)?;
                }
                Step::Change(change) => writeln!(f, "{change}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Gone(id) => write!(f, "gone {id}"),
            Self::Back(id) => write!(f, "back {id}"),
            Self::Slot { pool, slot, owner, previous, pins, keeps } => {
                write!(f, "slot {pool} {slot} {owner} {previous} {} {}", u8::from(pins), u8::from(keeps))
            }
            Self::Key { second, under_way, pins, keeps } => {
                let [second, under_way, pins, keeps] = [second, under_way, pins, keeps].map(u8::from);
                write!(f, "key {second} {under_way} {pins} {keeps}")
            }
            Self::ForgetTokens => f.write_str("forget-tokens"),
            Self::ForgetFlows => f.write_str("forget-flows"),
            Self::Age(ticks) => write!(f, "age {ticks}"),
        }
    }
}

/// A line that is no step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a step: {0:?}")]
pub struct NoStep(String);

impl FromStr for Sequence {
    type Err = NoStep;

    fn from_str(text: &str) -> Result<Self, NoStep> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let steps = lines.map(|line| step(line).ok_or_else(|| NoStep(line.to_owned()))).collect::<Result<_, _>>()?;
        Ok(Self { steps })
    }
}

fn step(line: &str) -> Option<Step> {
    if let Some(hex) = line.strip_prefix("frame ") {
        let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        return (0..hex.len()).step_by(2).map(byte).collect::<Option<_>>().map(Step::Frame);
    }
    let mut words = line.split_whitespace();
    let name = words.next()?;
    let numbers = words.map(|word| word.parse::<u32>().ok()).collect::<Option<Vec<_>>>()?;
    let small = |number: u32| u16::try_from(number).ok();
    let change = match (name, &numbers[..]) {
        ("gone", &[id]) => Change::Gone(small(id)?),
        ("back", &[id]) => Change::Back(small(id)?),
        ("slot", &[pool, slot, owner, previous, pins, keeps]) => Change::Slot {
            pool: small(pool)?,
            slot,
            owner: small(owner)?,
            previous: small(previous)?,
            pins: pins != 0,
            keeps: keeps != 0,
        },
        ("key", &[second, under_way, pins, keeps]) => {
            Change::Key { second: second != 0, under_way: under_way != 0, pins: pins != 0, keeps: keeps != 0 }
        }
        ("forget-tokens", []) => Change::ForgetTokens,
        ("forget-flows", []) => Change::ForgetFlows,
        ("age", &[ticks]) => Change::Age(ticks),
        _ => return None,
    };
    Some(Step::Change(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixture_says_what_the_sequence_was() {
        let changes = [
            Change::Gone(3),
            Change::Back(3),
            Change::Slot { pool: 1, slot: 65_536, owner: 2, previous: 4, pins: true, keeps: false },
            Change::Key { second: true, under_way: true, pins: false, keeps: true },
            Change::ForgetTokens,
            Change::ForgetFlows,
            Change::Age(200),
        ];
        let frame = Step::Frame(vec![0, 0x7f, 0xff]);
        let steps = changes.into_iter().map(Step::Change).chain([frame]).collect();
        let sequence = Sequence { steps };
        assert_eq!(format!("# a comment\n\n{sequence}").parse(), Ok(sequence));
        assert!("frame 0g".parse::<Sequence>().is_err() && "gone".parse::<Sequence>().is_err());
    }
}
