//! How much work each program gives the kernel's verifier, held against a budget in the repository.
//!
//! The kernel refuses a program above [`KERNEL_LIMIT`] instructions, and another kernel's verifier may need more than this
//! one's. So a program must stay far below, and growth is a decision that somebody writes down.

mod budget;

use std::io;

use aya::{
    EbpfError,
    programs::{Program, ProgramError, ProgramInfo},
};
use comfy_table::Table;
use lb_common::{
    programs::{ENTRY, Program as Stage},
    trace::PROGRAM,
};
use lb_user::{
    bpf::verified,
    object::{OBJECT, TRACE_OBJECT},
};

use crate::{
    screen::{table, thousands},
    xdp,
};

pub use budget::{Allowance, Budget};

/// The most instructions that the verifier walks (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub const KERNEL_LIMIT: u32 = 1_000_000;

/// Why a program could not be held against the budget.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// The object cannot be loaded.
    #[error("the kernel did not take Weir's maps: {0}")]
    Object(#[from] EbpfError),
    /// There is no object.
    #[error("this build has no eBPF object; build without WEIR_SKIP_EBPF")]
    NoObject,
    /// The kernel refuses a program.
    #[error("the kernel did not take the program {name}: {error}")]
    Program {
        /// Its name.
        name: String,
        /// What the kernel said.
        #[source]
        error: ProgramError,
    },
    /// A program of a type that nobody has thought of here.
    #[error("cannot load the program {name}: the verifier's budget knows only XDP and TC programs")]
    Type {
        /// Its name.
        name: String,
    },
    /// The kernel does not say how much it verified.
    #[error("the kernel does not say how many instructions it verified: it is older than 5.16")]
    NoCount,
    /// The budget cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The budget is not what it should be.
    #[error("{path}: {reason}")]
    Budget {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// What the kernel says of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its name.
    pub name: String,
    /// Instructions that the verifier walked.
    pub instructions: u32,
    /// Bytes of the program as the kernel translated it.
    pub translated: u32,
}

/// Loads every program that Weir ships, with tables as small as can be. Those that tell what they decide, for
/// `weir trace`, have names that begin with `trace-`.
///
/// # Errors
/// The kernel refuses one, or does not count.
pub fn verify() -> Result<Vec<Verified>, VerifierError> {
    let mut verified = programs_of(OBJECT, |_| true)?;
    let told = programs_of(TRACE_OBJECT, |name| {
        name == PROGRAM || name == ENTRY || Stage::ALL.iter().any(|stage| stage.name() == name)
    })?;
    verified.extend(told.into_iter().map(|program| Verified { name: format!("trace-{}", program.name), ..program }));
    verified.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(verified)
}

fn programs_of(object: &[u8], is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Verified>, VerifierError> {
    let mut object = xdp::small_object(object)?;
    let wanted = object.programs_mut().filter(|(name, _)| is_wanted(name));
    let verify = |(name, program): (&str, &mut Program)| {
        let info = load(name, program)?;
        let instructions = info.verified_instruction_count().ok_or(VerifierError::NoCount)?;
        let translated = info.size_translated().unwrap_or_default();
        Ok(Verified { name: name.to_owned(), instructions, translated })
    };
    wanted.map(verify).collect()
}

fn load(name: &str, program: &mut Program) -> Result<ProgramInfo, VerifierError> {
    let loaded = match program {
        Program::Xdp(program) => verified(|| program.load()).and_then(|()| program.info()),
        Program::SchedClassifier(program) => verified(|| program.load()).and_then(|()| program.info()),
        _ => return Err(VerifierError::Type { name: name.to_owned() }),
    };
    loaded.map_err(|error| VerifierError::Program { name: name.to_owned(), error })
}

/// The programs beside their budget.
pub fn comparison(verified: &[Verified], budget: &Budget) -> Table {
    let mut table = table(&["program", "verified instructions", "budget", "translated, bytes"]);
    for program in verified {
        let allowed = budget.allowance(&program.name).map(|allowance| thousands(allowance.instructions.into()));
        table.add_row([
            program.name.clone(),
            thousands(program.instructions.into()),
            allowed.unwrap_or_else(|| "none".to_owned()),
            thousands(program.translated.into()),
        ]);
    }
    table
}
