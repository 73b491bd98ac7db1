//! What a balancer can read of QUIC (RFC 8999, RFC 9000, 17): whether a packet begins a connection, and the server id in a
//! connection id of QUIC-LB's plaintext form (draft-ietf-quic-load-balancers-21, 3 and 5.2).

use super::udp::Udp;
use crate::{ids::PoolId, packet::Packet, tables::QuicKey};

const LONG_HEADER: u8 = 0x80;
/// The rotation bits of a connection id that no balancer can route (3.1 of the draft).
const UNROUTABLE: u8 = 7;
const VERSION_2: u32 = 0x6b33_43cf;

/// Whether a packet is an Initial, or a long header of an unknown version: it may begin a connection.
#[inline(always)]
pub fn begins<P: Packet>(packet: &P, udp: &Udp) -> bool {
    let Some([first, v0, v1, v2, v3]) = packet.load(P::in_headers(udp.payload)) else { return false };
    let kind = first >> 4 & 3;
    first & LONG_HEADER != 0
        && match u32::from_be_bytes([v0, v1, v2, v3]) {
            1 => kind == 0,
            VERSION_2 => kind == 1,
            _ => true,
        }
}

/// The server that the destination connection id names, of `id_len` bytes; nothing where it cannot name one.
#[inline(always)]
pub fn server<P: Packet>(packet: &P, udp: &Udp, pool: PoolId, id_len: u8) -> Option<QuicKey> {
    // The shortest packet of QUIC is longer than all that is read here (RFC 9000, 10.3).
    let payload = P::in_headers(udp.payload);
    let [first, _, _, _, _, cid_len] = packet.load(payload)?;
    let is_long = first & LONG_HEADER != 0;
    if is_long && cid_len <= id_len {
        return None;
    }
    let at = if is_long { payload + 6 } else { payload + 1 };
    let [rotation, low @ ..] = packet.load::<9>(at)?;
    let rotation = rotation >> 5;
    if rotation == UNROUTABLE {
        return None;
    }
    let low = u64::from_le_bytes(low) & first_bytes(id_len);
    let high = if id_len > 8 { u64::from_le_bytes(packet.load(at + 9)?) & first_bytes(id_len - 8) } else { 0 };
    Some(QuicKey { pool, rotation, len: id_len, reserved: 0, id: [low, high] })
}

/// A mask of the first `count` bytes of a little-endian word.
#[inline(always)]
const fn first_bytes(count: u8) -> u64 {
    if count >= 8 { u64::MAX } else { !(u64::MAX << (count as u32 * 8)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: Udp = Udp { source_port: 1, destination_port: 443, payload: 0 };
    const POOL: PoolId = PoolId(3);

    fn long(first: u8, version: u32, cid: &[u8]) -> Vec<u8> {
        let len = u8::try_from(cid.len()).expect("20 bytes at most");
        [&[first][..], &version.to_be_bytes(), &[len], cid, &[0; 20]].concat()
    }

    #[test]
    fn initials_begin_a_connection() {
        for (packet, expected) in [
            (long(0xc0, 1, &[1; 8]), true),
            (long(0xe0, 1, &[1; 8]), false),
            (long(0xd0, VERSION_2, &[1; 8]), true),
            (long(0xc0, VERSION_2, &[1; 8]), false),
            (long(0xf0, 0x1a2a_3a4a, &[1; 8]), true),
            ([&[0x40][..], &[1; 30]].concat(), false),
            (vec![0xc0, 0, 0], false),
        ] {
            assert_eq!(begins(&packet.as_slice(), &UDP), expected, "{packet:02x?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_server_id_is_read_from_either_header(id in proptest::collection::vec(0_u8.., 1..=15), rotation in 0..7_u8, nonce: [u8; 4]) {
            let id_len = u8::try_from(id.len()).expect("15 bytes at most");
            let cid = [&[rotation << 5 | 9][..], &id, &nonce].concat();
            let expected = QuicKey::new(POOL, rotation, &id);
            let short = [&[0x40][..], &cid, &[0xee; 20]].concat();
            proptest::prop_assert_eq!(server(&short.as_slice(), &UDP, POOL, id_len), Some(expected));
            let long = long(0xe0, 1, &cid);
            proptest::prop_assert_eq!(server(&long.as_slice(), &UDP, POOL, id_len), Some(expected));
        }
    }

    #[test]
    fn what_cannot_name_a_server_names_none() {
        let unroutable = [&[0x40, 0xe0][..], &[1; 30]].concat();
        assert_eq!(server(&unroutable.as_slice(), &UDP, POOL, 4), None);
        let too_short_an_id = long(0xc0, 1, &[0x20, 1, 2, 3]);
        assert_eq!(server(&too_short_an_id.as_slice(), &UDP, POOL, 4), None);
        let cut = [0x40, 0x20, 1, 2, 3];
        assert_eq!(server(&&cut[..], &UDP, POOL, 4), None);
    }
}
