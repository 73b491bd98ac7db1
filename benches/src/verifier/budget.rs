//! The budget: a file with one line a program, how many instructions the verifier may walk and why so many.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;

use super::{KERNEL_LIMIT, Verified, VerifierError};

/// A new budget leaves this much room, in percent: compilers and kernels differ a little.
const ROOM_PERCENT: u32 = 15;

const HEADER: &str = "\
# How many instructions the kernel's verifier may walk for each program; its own limit is 1,000,000.
# `cargo xtask verifier` compares, `cargo xtask verifier --update` sets the numbers anew and keeps the reasons.

";

/// What a program may cost.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    /// Instructions that the verifier may walk.
    pub instructions: u32,
    /// Why so many.
    pub reason: String,
}

/// The allowances by program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Budget(BTreeMap<String, Allowance>);

impl Budget {
    /// Where the repository has it.
    pub const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../lb-ebpf/verifier-budget.toml");

    /// Reads a budget.
    ///
    /// # Errors
    /// There is no such file, or it is no budget.
    pub fn read(path: &Path) -> Result<Self, VerifierError> {
        let name = || path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|source| VerifierError::File { action: "read", path: name(), source })?;
        toml::from_str(&text).map_err(|error| VerifierError::Budget { path: name(), reason: error.to_string() })
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), VerifierError> {
        let name = || path.display().to_string();
        fs::write(path, self.text()).map_err(|source| VerifierError::File { action: "write", path: name(), source })
    }

    /// What a program may cost.
    pub fn allowance(&self, program: &str) -> Option<&Allowance> {
        self.0.get(program)
    }

    /// What is wrong, a sentence each; nothing where every program is within its budget.
    pub fn objections(&self, verified: &[Verified]) -> Vec<String> {
        let of_program = |program: &Verified| {
            let Verified { name, instructions, .. } = program;
            match self.allowance(name) {
                None => Some(format!("{name} has no budget: `cargo xtask verifier --update` gives it one")),
                Some(allowance) if *instructions > allowance.instructions => Some(format!(
                    "{name} costs the verifier {instructions} instructions, {} are allowed: make it simpler, or raise \
                     its budget in lb-ebpf/verifier-budget.toml and say why",
                    allowance.instructions
                )),
                Some(_) => None,
            }
        };
        let gone = self.0.keys().filter(|&name| verified.iter().all(|program| program.name != *name));
        let gone = gone.map(|name| format!("{name} has a budget and is no program of Weir's: remove its line"));
        verified.iter().filter_map(of_program).chain(gone).collect()
    }

    /// The budget for these programs: what each costs now and some room. Reasons stay.
    #[must_use]
    pub fn updated(&self, verified: &[Verified]) -> Self {
        let allow = |program: &Verified| {
            let reason = self.allowance(&program.name).map_or("new", |allowance| &allowance.reason);
            (
                program.name.clone(),
                Allowance { instructions: with_room(program.instructions), reason: reason.to_owned() },
            )
        };
        Self(verified.iter().map(allow).collect())
    }

    fn text(&self) -> String {
        let line = |(name, allowance): (&String, &Allowance)| {
            let reason = toml::Value::String(allowance.reason.clone());
            format!("{name} = {{ instructions = {}, reason = {reason} }}\n", allowance.instructions)
        };
        HEADER.to_owned() + &self.0.iter().map(line).collect::<String>()
    }
}

/// The next number of two leading digits above the count and its room, within the kernel's limit.
fn with_room(instructions: u32) -> u32 {
    let wanted = u64::from(instructions) * u64::from(100 + ROOM_PERCENT) / 100;
    let step = 10_u64.pow(wanted.max(1).ilog10().saturating_sub(1));
    u32::try_from(wanted.div_ceil(step) * step).map_or(KERNEL_LIMIT, |allowed| allowed.clamp(10, KERNEL_LIMIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, instructions: u32) -> Verified {
        Verified { name: name.to_owned(), instructions, translated: 0 }
    }

    fn budget(lines: &[(&str, u32)]) -> Budget {
        let allow = |&(name, instructions): &(&str, u32)| {
            (name.to_owned(), Allowance { instructions, reason: "a \"reason\"".to_owned() })
        };
        Budget(lines.iter().map(allow).collect())
    }

    #[test]
    fn only_a_program_within_its_budget_is_not_objected_to() {
        let budget = budget(&[("within", 100), ("above", 100), ("gone", 1)]);
        let objections = budget.objections(&[program("within", 100), program("above", 101), program("new", 1)]);
        let subjects: Vec<_> = objections.iter().filter_map(|objection| objection.split(' ').next()).collect();
        assert_eq!(subjects, ["above", "new", "gone"]);
    }

    #[test]
    fn an_update_allows_what_there_is_and_keeps_reasons() {
        let before = budget(&[("known", 5), ("gone", 5)]);
        let verified = [program("known", 123_456), program("new", 0)];
        let after = before.updated(&verified);
        assert_eq!(after.objections(&verified), Vec::<String>::new());
        assert_eq!(
            after.allowance("known").map(|a| (a.instructions, a.reason.as_str())),
            Some((150_000, "a \"reason\""))
        );
        assert_eq!(toml::from_str::<Budget>(&after.text()).expect("a budget"), after);
    }

    #[test]
    fn room_stays_within_the_kernels_limit() {
        assert_eq!([0, 2, 100, 169_220, 999_999].map(with_room), [10, 10, 120, 200_000, KERNEL_LIMIT]);
    }
}
