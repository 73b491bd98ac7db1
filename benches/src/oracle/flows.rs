//! The TCP flows that one end has established, by `ss -tni`, subflows of MPTCP among them: which joined, which connection
//! they belong to, what was sent again, and when the other end was last heard.

use std::{net::SocketAddr, time::Duration};

use super::Token;
use crate::{LabError, namespace::Namespace, traffic::canonical};

/// An established flow, as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flow {
    /// This end.
    pub local: SocketAddr,
    /// The other.
    pub peer: SocketAddr,
    /// The connection that it belongs to, as this end names it; none for plain TCP.
    pub token: Option<Token>,
    /// Whether it joined a connection that was there before it.
    pub joined: bool,
    /// Segments that this end has sent again, its SYN included.
    pub sent_again: u64,
    /// How long ago the other end acknowledged something.
    pub silence: Duration,
}

impl Flow {
    /// Every established flow in `namespace`.
    ///
    /// # Errors
    ///
    /// If `ss` fails or prints what cannot be read.
    pub fn read(namespace: &Namespace) -> Result<Vec<Self>, LabError> {
        let printed = namespace.output("ss", &["-tniHO", "state", "established"])?;
        printed
            .lines()
            .map(|line| Self::parse(line).ok_or_else(|| LabError::Output { program: "ss", line: line.to_owned() }))
            .collect()
    }

    /// Columns as in [`super::Subflow`]; a subflow's flags have a J for a join (either case, by who began it).
    /// `retrans:NOW/TOTAL` is only there if there were any.
    fn parse(line: &str) -> Option<Self> {
        let mut columns = line.split_whitespace().skip(2);
        let (local, peer) = (end(columns.next()?)?, end(columns.next()?)?);
        let words: Vec<&str> = columns.collect();
        let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
        let token = match value("token:") {
            None => None,
            Some(tokens) => Some(Token::parse(tokens.split_once('/')?.1.split_once("(id:")?.0)?),
        };
        let sent_again = match value("retrans:") {
            None => 0,
            Some(counts) => counts.split_once('/')?.1.parse().ok()?,
        };
        Some(Self {
            local,
            peer,
            token,
            joined: value("flags:").is_some_and(|flags| flags.contains(['J', 'j'])),
            sent_again,
            silence: Duration::from_millis(value("lastack:").unwrap_or("0").parse().ok()?),
        })
    }
}

/// An address and port; a socket that is bound to an interface has its name between: `10.71.2.1%eth1:56619`,
/// `[fd71:2::1]%eth1:56619`.
pub(super) fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let (address, bracket) = match address.split_once('%') {
        Some((address, interface)) if interface.ends_with(']') => (address, "]"),
        Some((address, _)) => (address, ""),
        None => (address, ""),
    };
    format!("{address}{bracket}:{port}").parse().ok().map(canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "0 0 10.71.2.1%eth1:51234 192.0.2.10:8000 cubic wscale:7,7 rto:201 lastsnd:9 lastrcv:8 \
        lastack:712 retrans:0/2 tcp-ulp-mptcp flags:Jjec token:0000(id:0)/3c614612(id:0) seq:0 sfseq:0 ssnoff:0";

    #[test]
    fn a_joined_flow_is_read() {
        let flow = Flow::parse(LINE).expect("a good line");
        assert_eq!([flow.local, flow.peer].map(|end| end.to_string()), ["10.71.2.1:51234", "192.0.2.10:8000"]);
        assert_eq!((flow.joined, flow.sent_again, flow.silence), (true, 2, Duration::from_millis(712)));
        assert_eq!(flow.token, Token::parse("3c614612"));
    }

    #[test]
    fn plain_tcp_has_no_token_and_a_first_subflow_has_not_joined() {
        let (plain, _) = LINE.split_once(" tcp-ulp").expect("it is there");
        let plain = Flow::parse(&plain.replace("retrans:0/2", "")).expect("a good line");
        assert_eq!((plain.token, plain.joined, plain.sent_again), (None, false, 0));
        assert!(!Flow::parse(&LINE.replace("Jjec", "Mmec")).expect("a good line").joined);
    }

    #[test]
    fn a_bad_line_is_refused() {
        for (right, wrong) in [("token:0000(id:0)/", "token:"), ("lastack:712", "lastack:x"), ("0/2", "2")] {
            assert_eq!(Flow::parse(&LINE.replace(right, wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn an_end_may_name_an_interface() {
        for text in ["[fd71:2::1]%eth1:50605", "[fd71:2::1%eth1]:50605", "[fd71:2::1]:50605"] {
            assert_eq!(end(text), "[fd71:2::1]:50605".parse().ok(), "{text}");
        }
    }
}
