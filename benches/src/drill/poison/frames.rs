//! Frames of MPTCP handshakes (RFC 8684, 3.1), as a client makes them who does not keep to what he was told; and what
//! such a client reads on the wire.

use std::net::SocketAddrV4;

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice};

/// A server's or client's key.
pub(in crate::drill) type Key = [u8; 8];

const MPTCP: u8 = 30;
/// Bytes of an `MP_CAPABLE` with the server's key, as a SYN/ACK has it.
const ONE_KEY: usize = 12;
/// With both.
const BOTH_KEYS: usize = 20;
/// `MP_CAPABLE` of version 1 with HMAC-SHA256.
const CAPABLE_V1: [u8; 2] = [0x01, 0x01];
const CLIENT_KEY: Key = *b"forger\0\0";
const WINDOW: u16 = 65_000;
const TTL: u8 = 64;

/// A forged flow: its ends, and the Ethernet addresses on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forged {
    pub(super) ethernet: [[u8; 6]; 2],
    pub(super) client: SocketAddrV4,
    pub(super) vip: SocketAddrV4,
    pub(super) isn: u32,
}

impl Forged {
    /// The SYN. Stateless tokens are for clients with timestamps.
    pub(super) fn syn(&self) -> Vec<u8> {
        let capable = [MPTCP, 4, CAPABLE_V1[0], CAPABLE_V1[1]];
        let mut tcp = self.tcp(self.isn, &[capable.as_slice(), &timestamps(0)].concat());
        tcp.syn = true;
        self.frame(tcp)
    }

    /// The third packet, which echoes a key; it acknowledges an answer.
    pub(super) fn third(&self, echoed: Key, answer: &Answer) -> Vec<u8> {
        let head = [MPTCP, u8::try_from(BOTH_KEYS).expect("20"), CAPABLE_V1[0], CAPABLE_V1[1]];
        let options = [head.as_slice(), &CLIENT_KEY, &echoed, &timestamps(answer.timestamp)].concat();
        let mut tcp = self.tcp(self.isn.wrapping_add(1), &options);
        tcp.ack = true;
        tcp.acknowledgment_number = answer.sequence.wrapping_add(1);
        self.frame(tcp)
    }

    /// A SYN that joins the connection of a token (RFC 8684, 3.2).
    pub(super) fn join(&self, token: u32) -> Vec<u8> {
        let head = [MPTCP, 12, 0x10, 1];
        let mut tcp = self.tcp(self.isn, &[head, token.to_be_bytes(), *b"once"].concat());
        tcp.syn = true;
        self.frame(tcp)
    }

    fn tcp(&self, sequence: u32, options: &[u8]) -> TcpHeader {
        let mut tcp = TcpHeader::new(self.client.port(), self.vip.port(), sequence, WINDOW);
        tcp.set_options_raw(options).expect("at most 40 bytes of options");
        tcp
    }

    fn frame(&self, tcp: TcpHeader) -> Vec<u8> {
        let [from, to] = self.ethernet;
        let packet = PacketBuilder::ethernet2(from, to).ipv4(self.client.ip().octets(), self.vip.ip().octets(), TTL);
        let mut bytes = Vec::new();
        packet.tcp_header(tcp).write(&mut bytes, &[]).expect("a vector takes all");
        bytes
    }
}

/// The option of timestamps that echoes one (RFC 7323, 3.2).
fn timestamps(echoed: u32) -> [u8; 12] {
    let [value, echoed] = [1_u32, echoed].map(u32::to_be_bytes);
    let mut option = [1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0];
    option[4..8].copy_from_slice(&value);
    option[8..].copy_from_slice(&echoed);
    option
}

/// A SYN/ACK, as far as it matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// The port that it is for.
    pub(super) port: u16,
    pub(super) sequence: u32,
    pub(super) timestamp: u32,
    /// The server's, unless it speaks plain TCP.
    pub(super) key: Option<Key>,
}

/// Reads a SYN/ACK.
pub(super) fn answer(frame: &[u8]) -> Option<Answer> {
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).ok()?.transport else { return None };
    let timestamp = tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::Timestamp(value, _)) => Some(value),
        _ => None,
    });
    (tcp.syn() && tcp.ack()).then(|| Answer {
        port: tcp.destination_port(),
        sequence: tcp.sequence_number(),
        timestamp: timestamp.unwrap_or_default(),
        key: last_key(tcp.options(), ONE_KEY),
    })
}

/// The server's key in a third packet.
pub(super) fn echoed_key(frame: &[u8]) -> Option<Key> {
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).ok()?.transport else { return None };
    last_key(tcp.options(), BOTH_KEYS)
}

/// The last key of an `MP_CAPABLE` that has so many bytes at least.
fn last_key(options: &[u8], bytes: usize) -> Option<Key> {
    let mut rest = options;
    while let [kind, tail @ ..] = rest {
        let length = match (kind, tail.first()) {
            (0, _) | (2.., None) => return None,
            (1, _) => 1,
            (_, Some(length)) => usize::from(*length).max(2),
        };
        let option = rest.get(..length)?;
        // The subtype is 0.
        if *kind == MPTCP && length >= bytes && option[2] >> 4 == 0 {
            return option[bytes - size_of::<Key>()..bytes].try_into().ok();
        }
        rest = &rest[length..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_key_is_read() {
        let ends = |port| SocketAddrV4::new([10, 0, 0, 1].into(), port);
        let forged = Forged { ethernet: [[2; 6], [4; 6]], client: ends(1000), vip: ends(80), isn: 7 };
        assert_eq!(echoed_key(&forged.third(*b"echoed 1", &Answer::default())), Some(*b"echoed 1"));
        assert_eq!(echoed_key(&forged.syn()), None);
        assert_eq!(answer(&forged.syn()), None);
    }
}
