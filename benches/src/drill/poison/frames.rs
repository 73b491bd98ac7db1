//! Frames of MPTCP handshakes (RFC 8684, 3.1), as a client makes them who does not keep to what he was told; and what
//! such a client reads on the wire.

use std::net::SocketAddrV4;

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};

/// A server's or client's key.
pub(super) type Key = [u8; 8];

const MPTCP: u8 = 30;
/// Of an MP_CAPABLE with both keys.
const BOTH_KEYS: usize = 20;
/// MP_CAPABLE of version 1 with HMAC-SHA256.
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
    /// The SYN.
    pub(super) fn syn(&self) -> Vec<u8> {
        let mut tcp = self.tcp(self.isn, &[MPTCP, 4, CAPABLE_V1[0], CAPABLE_V1[1]]);
        tcp.syn = true;
        self.frame(tcp)
    }

    /// The third packet, which echoes a key; it acknowledges up to `acknowledged`.
    pub(super) fn third(&self, echoed: Key, acknowledged: u32) -> Vec<u8> {
        let head = [MPTCP, u8::try_from(BOTH_KEYS).expect("20"), CAPABLE_V1[0], CAPABLE_V1[1]];
        let mut tcp = self.tcp(self.isn.wrapping_add(1), &[head.as_slice(), &CLIENT_KEY, &echoed].concat());
        tcp.ack = true;
        tcp.acknowledgment_number = acknowledged;
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

/// The port that a SYN/ACK is for, and its sequence number.
pub(super) fn answer(frame: &[u8]) -> Option<(u16, u32)> {
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).ok()?.transport else { return None };
    (tcp.syn() && tcp.ack()).then(|| (tcp.destination_port(), tcp.sequence_number()))
}

/// The server's key in a third packet.
pub(super) fn echoed_key(frame: &[u8]) -> Option<Key> {
    let Some(TransportSlice::Tcp(tcp)) = SlicedPacket::from_ethernet(frame).ok()?.transport else { return None };
    let mut rest = tcp.options();
    while let [kind, tail @ ..] = rest {
        let length = match (kind, tail.first()) {
            (0, _) | (2.., None) => return None,
            (1, _) => 1,
            (_, Some(length)) => usize::from(*length).max(2),
        };
        let option = rest.get(..length)?;
        // The subtype is 0.
        if *kind == MPTCP && length >= BOTH_KEYS && option[2] >> 4 == 0 {
            return option[12..BOTH_KEYS].try_into().ok();
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
        assert_eq!(echoed_key(&forged.third(*b"echoed 1", 9)), Some(*b"echoed 1"));
        assert_eq!(echoed_key(&forged.syn()), None);
        assert_eq!(answer(&forged.syn()), None);
    }
}
