//! What is said of a frame: the JSON object of `weir explain --output json`, and the story for people. The words here are a
//! contract with scripts; a client's key is in none of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Sent out by the interface that it came by: to a backend, or back to the client.
    Tx,
    /// Sent to a backend by another interface.
    Redirect,
    /// Left to the host's own network stack.
    Pass,
    /// Dropped.
    Drop,
}

/// A frame and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// The frame's number, from 1 on.
    pub frame: u64,
    /// What became of it; nothing where it could not be explained.
    pub action: Option<Action>,
    /// Why: the word of a reason.
    pub reason: Option<String>,
    /// The VIP that it was for.
    pub vip: Option<String>,
    /// The pool that serves the VIP.
    pub pool: Option<String>,
    /// The backend that it was sent to.
    pub backend: Option<String>,
    /// The MPTCP token that a joining SYN names, or that a third packet teaches, in hexadecimal.
    pub token: Option<String>,
    /// The frame that was sent, in hexadecimal.
    pub out: Option<String>,
    /// Why the frame could not be explained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Line {
    /// A frame that could not be explained.
    pub fn unfit(frame: u64, error: String) -> Self {
        Self {
            frame,
            action: None,
            reason: None,
            vip: None,
            pool: None,
            backend: None,
            token: None,
            out: None,
            error: Some(error),
        }
    }
}

/// A frame, what became of it, and how, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// For scripts.
    pub line: Line,
    /// For people, a line each.
    pub story: Vec<String>,
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal digits, between which spaces and colons may stand.
///
/// # Errors
/// In words: what is no digit, or that one is missing.
pub fn unhex(text: &str) -> Result<Vec<u8>, String> {
    let is_filler = |c: &char| c.is_ascii_whitespace() || *c == ':';
    let digit = |c: char| c.to_digit(16).ok_or_else(|| format!("`{c}` is no hexadecimal digit"));
    let digits = text.chars().filter(|c| !is_filler(c)).map(digit).collect::<Result<Vec<_>, _>>()?;
    if digits.len() % 2 == 1 {
        return Err(format!("{} hexadecimal digits are no whole bytes", digits.len()));
    }
    Ok(digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn hexadecimal_there_and_back(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(unhex(&hex(&bytes)), Ok(bytes));
        }
    }

    #[test]
    fn digits_may_stand_apart_but_must_be_digits() {
        assert_eq!(unhex("02:00 00\nfF"), Ok(vec![2, 0, 0, 255]));
        assert_eq!(unhex("0g"), Err("`g` is no hexadecimal digit".to_owned()));
        assert_eq!(unhex("020"), Err("3 hexadecimal digits are no whole bytes".to_owned()));
    }
}
