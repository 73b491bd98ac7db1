//! `weir doctor`: looks at a machine as it is, finds what keeps Weir from forwarding or makes it slow, and says what to
//! type. It changes nothing: no program is attached, no setting written, and a running balancer is only asked for its status.

mod backend;
mod balancer;
mod endpoint;
mod links;
mod machine;
mod mint;
mod offload;
mod pools;
mod sysctl;

pub use backend::{BackendQuestions, examine_backend};
pub use balancer::examine_balancer;
pub use endpoint::JoinEndpoint;
pub use links::{DoctorError, Links};

use serde::Serialize;
use std::fmt;

/// What was found about one thing.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Finding {
    /// Which question it answers: one word.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What is so.
    pub what: String,
    /// A line of shell that mends it, or shows more.
    pub command: Option<String>,
    /// What else to do, in words.
    pub advice: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, but slower than it could, or not for every packet.
    Warning,
    /// Packets are lost, or Weir does not start.
    Fault,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        }
    }
}

impl Finding {
    fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, what: what.into(), command: None, advice: None }
    }

    fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, ..Self::good(check, what) }
    }

    fn fault(check: &'static str, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fault, ..Self::good(check, what) }
    }

    fn mend(self, command: impl Into<String>) -> Self {
        Self { command: Some(command.into()), ..self }
    }

    fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What the machine is to Weir: `balancer` or `backend`.
    pub role: &'static str,
    /// How many findings are faults.
    pub faults: usize,
    /// How many are warnings.
    pub warnings: usize,
    /// Every finding, the good ones too, in the order of the questions.
    pub findings: Vec<Finding>,
}

impl Report {
    fn new(role: &'static str, findings: Vec<Finding>) -> Self {
        let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
        Self { role, faults: count(Verdict::Fault), warnings: count(Verdict::Warning), findings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, verdict, what, command, advice } in &self.findings {
            writeln!(f, "{:<8} {check:<10} {what}", verdict.as_str())?;
            if let Some(command) = command {
                writeln!(f, "{:19} type: {command}", "")?;
            }
            if let Some(advice) = advice {
                writeln!(f, "{:19} {advice}", "")?;
            }
        }
        let Self { role, faults, warnings, .. } = self;
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        writeln!(f, "\nas a {role}: {faults} fault{}, {warnings} warning{}", plural(*faults), plural(*warnings))
    }
}
