//! The TCP sockets under MPTCP connections, by `ss -tni`: which subflow belongs to which connection.

use std::net::SocketAddr;

use crate::{LabError, addresses::SERVICE_PORT, namespace::Namespace, traffic::canonical};

/// A connection's name at one end (RFC 8684, section 3.2). It tells connections apart, so it is
/// compared and never shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(u32);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// Reads the hexadecimal form that `ss` and `ip mptcp monitor` print.
    pub fn parse(digits: &str) -> Option<Self> {
        u32::from_str_radix(digits, 16).ok().map(Self)
    }

    /// Its number, for who reads a backend in it.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// An established subflow at a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subflow {
    /// The backend's end.
    pub local: SocketAddr,
    /// The client's end.
    pub peer: SocketAddr,
    /// The connection that it belongs to, as this end names it.
    pub token: Token,
}

impl Subflow {
    /// Every established subflow of the service in `namespace`. Plain TCP connections, which have
    /// no token, are not among them.
    ///
    /// # Errors
    ///
    /// If `ss` fails or prints what cannot be read.
    pub fn read(namespace: &Namespace) -> Result<Vec<Self>, LabError> {
        let port = format!(":{SERVICE_PORT}");
        let args = ["-tniHO", "state", "established", "sport", "=", &port];
        let printed = namespace.output("ss", &args)?;
        printed
            .lines()
            .filter(|line| line.contains("tcp-ulp-mptcp"))
            .map(|line| Self::parse(line).ok_or_else(|| LabError::Output { program: "ss", line: line.to_owned() }))
            .collect()
    }

    /// Columns: receive queue, send queue, local, peer; then words, one of them
    /// `token:REMOTE(id:N)/LOCAL(id:N)`.
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split_whitespace().skip(2);
        let local = columns.next()?.parse().ok()?;
        let peer = columns.next()?.parse().ok()?;
        let tokens = columns.find_map(|word| word.strip_prefix("token:"))?;
        let (_, own) = tokens.split_once('/')?;
        let (digits, _) = own.split_once("(id:")?;
        Some(Self { local: canonical(local), peer: canonical(peer), token: Token::parse(digits)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "0 0 [::ffff:192.0.2.10]:8000 [::ffff:10.71.2.1]:51234 cubic wscale:7,7 \
        rto:201 tcp-ulp-mptcp flags:Jjec token:0000(id:0)/3c614612(id:0) seq:0 sfseq:0 ssnoff:0";

    #[test]
    fn a_subflow_has_ends_and_a_token() {
        let subflow = Subflow::parse(LINE).expect("a good line");
        assert_eq!(subflow.local.to_string(), "192.0.2.10:8000");
        assert_eq!(subflow.peer.to_string(), "10.71.2.1:51234");
        assert_eq!(subflow.token, Token(0x3c61_4612));
    }

    #[test]
    fn a_line_without_a_token_is_refused() {
        assert_eq!(Subflow::parse(&LINE.replace("token:", "tok:")), None);
        assert_eq!(Subflow::parse("0 0 192.0.2.10:8000"), None);
    }
}
