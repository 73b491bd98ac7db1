//! The counters of one network namespace, by `nstat`.

use std::{collections::BTreeMap, fs};

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

    /// The same out of the file that `nstat` reads: cheap enough to be read several times a second.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn glance(namespace: &Namespace) -> Result<Self, LabError> {
        let files = ["/proc/thread-self/net/snmp", "/proc/thread-self/net/netstat"];
        let read = || files.map(|file| fs::read_to_string(file).map_err(LabError::file("read", file)));
        let mut kernel = BTreeMap::new();
        for text in namespace.run(read)? {
            kernel.extend(pairs(&text?));
        }
        Ok(Self { kernel })
    }

    /// One counter, by the name that `nstat` prints; 0 if this kernel has none of that name.
    pub fn value(&self, name: &str) -> u64 {
        self.kernel.get(name).copied().unwrap_or(0)
    }
}

/// Each two lines are `Group: name name` and `Group: value value`; `nstat` prints a group and a name as one word.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let lines: Vec<&str> = text.lines().collect();
    let groups = lines.chunks_exact(2).filter_map(|lines| {
        let (group, names) = lines[0].split_once(": ")?;
        let (_, values) = lines[1].split_once(": ")?;
        let counters = names.split(' ').zip(values.split(' '));
        Some(counters.filter_map(move |(name, value)| Some((format!("{group}{name}"), value.parse().ok()?))))
    });
    groups.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_group_and_values_their_name() {
        let counters = pairs("Tcp: RtoMax MaxConn InSegs\nTcp: 120 -1 7\nMPTcpExt: MPJoinSynTx\nMPTcpExt: 3\n");
        assert_eq!(
            counters,
            BTreeMap::from(
                [("TcpRtoMax", 120), ("TcpInSegs", 7), ("MPTcpExtMPJoinSynTx", 3)]
                    .map(|(name, value)| (name.to_owned(), value))
            )
        );
    }
}
