//! The counters of one network namespace, by `nstat`.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{LabError, namespace::Namespace};

/// Every counter of a namespace since it was made, zeros included.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Counters {
    kernel: BTreeMap<String, u64>,
}

impl Counters {
    /// Reads them: `nstat -asz` (absolute values, history untouched, zeros shown).
    ///
    /// # Errors
    ///
    /// If `nstat` is missing or prints something else than its JSON.
    pub fn read(namespace: &Namespace) -> Result<Self, LabError> {
        let printed = namespace.output("nstat", &["-asz", "--json"])?;
        serde_json::from_str(&printed).map_err(|_| LabError::Output {
            program: "nstat",
            line: printed.lines().next().unwrap_or_default().to_owned(),
        })
    }

    /// One counter, by the name that `nstat` prints; 0 if this kernel has none of that name.
    pub fn value(&self, name: &str) -> u64 {
        self.kernel.get(name).copied().unwrap_or(0)
    }
}
