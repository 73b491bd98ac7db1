//! What travels on the bus: a version, and behind it the entries of one member, compactly. Pools and backends are named,
//! once for each message, for each balancer numbers them for itself.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The version of what follows it, as the first byte of each message.
const VERSION: u8 = 1;

/// What one member tells the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Who tells it.
    pub from: String,
    /// Whether this is all that was asked for.
    pub is_last: bool,
    /// The pools and backends that entries name by their place here.
    pub places: Vec<(String, String)>,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// An entry of a table of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where its connection lives: the place of its pool and backend in the message.
    pub place: u16,
    /// What has become of it.
    pub op: Op,
    /// The token as the number that `ss -M` prints, or the initial sequence number of a joined flow.
    pub value: u32,
    /// The hash of the first subflow, 0 from an agent; or of the joined flow.
    pub flow: u64,
}

/// What has become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// A connection holds a token.
    Hold,
    /// The same, told again.
    Recall,
    /// The first subflow of the connection has closed; from an agent, the connection has ended.
    Close,
    /// A flow has joined.
    Join,
    /// A joined flow has ended.
    End,
}

impl Op {
    /// Whether it is told of a token, not of a flow.
    pub const fn is_of_token(self) -> bool {
        matches!(self, Self::Hold | Self::Recall | Self::Close)
    }
}

/// An entry with its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The pool.
    pub pool: String,
    /// The backend.
    pub backend: String,
    /// See [`Entry`].
    pub op: Op,
    /// Likewise.
    pub value: u32,
    /// Likewise.
    pub flow: u64,
}

impl Notice {
    /// The flow of a token that an agent tells of: it knows connections, not flows.
    pub const BY_AGENT: u64 = 0;
}

/// Why a message says nothing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegible {
    /// A member of another version.
    #[error("it is of version {0}, this is version {VERSION}")]
    Version(u8),
    /// Something else.
    #[error("it is malformed")]
    Malformed,
}

impl Batch {
    /// A message of these entries.
    pub fn of(from: &str, notices: &[Notice]) -> Self {
        let mut places = Vec::new();
        let mut known: HashMap<(&str, &str), u16> = HashMap::new();
        let mut entries = Vec::with_capacity(notices.len());
        for Notice { pool, backend, op, value, flow } in notices {
            let place = *known.entry((pool, backend)).or_insert_with(|| {
                places.push((pool.clone(), backend.clone()));
                u16::try_from(places.len() - 1).unwrap_or(u16::MAX)
            });
            entries.push(Entry { place, op: *op, value: *value, flow: *flow });
        }
        Self { from: from.to_owned(), is_last: false, places, entries }
    }

    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).unwrap_or_default()
    }

    /// The message of these bytes.
    ///
    /// # Errors
    /// They are of another version, or no message.
    pub fn decode(bytes: &[u8]) -> Result<Self, Illegible> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| Illegible::Malformed),
            Some((&version, _)) => Err(Illegible::Version(version)),
            None => Err(Illegible::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(backend: &str, value: u32) -> Notice {
        Notice { pool: "web".to_owned(), backend: backend.to_owned(), op: Op::Hold, value, flow: u64::MAX }
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        let notices = [notice("b1", 1), notice("b2", u32::MAX), notice("b1", 2)];
        let batch = Batch::of("lb1", &notices);
        assert_eq!(batch.places.len(), 2);
        assert_eq!(batch.entries.iter().map(|entry| entry.place).collect::<Vec<_>>(), [0, 1, 0]);
        assert_eq!(Batch::decode(&batch.encode()), Ok(batch));
    }

    #[test]
    fn other_versions_and_noise_say_nothing() {
        let mut bytes = Batch::of("lb1", &[notice("b1", 1)]).encode();
        assert_eq!(Batch::decode(&bytes[..bytes.len() - 1]), Err(Illegible::Malformed));
        bytes[0] = 9;
        assert_eq!(Batch::decode(&bytes), Err(Illegible::Version(9)));
        assert_eq!(Batch::decode(&[]), Err(Illegible::Malformed));
    }
}
