//! MPTCP options as they stand on the wire (RFC 8684 and RFC 6824, 3), and tokens by independent digests.

use sha2::Digest as _;

/// A key, as its eight wire bytes.
pub(crate) type Key = [u8; 8];

pub(crate) const CLIENT_KEY: Key = *b"client's";
/// The key of a server in a capture, and the token that the client's `MP_JOIN` there names.
pub(crate) const SERVER_KEY: Key = 0xac47_5c49_cfd7_f249_u64.to_be_bytes();
pub(crate) const TOKEN: u32 = 0x3c61_4612;

pub(crate) const V0: u8 = 0;
pub(crate) const V1: u8 = 1;
/// HMAC algorithm H: the one flag that must be set.
pub(crate) const H: u8 = 0x01;
/// Backup, in the low nibble of an `MP_JOIN`'s subtype byte.
pub(crate) const BACKUP: u8 = 0x01;

pub(crate) const TIMESTAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 0, 9];
/// MSS, SACK permitted, timestamps, window scale: what stands before MPTCP's option in Linux's SYN.
pub(crate) const SYN_OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 1, 0, 0, 0, 0, 0, 1, 3, 3, 7];
/// A data acknowledgment of four bytes.
pub(crate) const DSS: [u8; 8] = [30, 8, 0x20, 0x01, 0, 0, 0, 1];

/// The token of a key.
pub(crate) fn token(version: u8, key: Key) -> u32 {
    let first_word = |digest: &[u8]| u32::from_be_bytes(*digest.first_chunk().expect("20 bytes or more"));
    match version {
        V0 => first_word(&sha1::Sha1::digest(key)),
        _ => first_word(&sha2::Sha256::digest(key)),
    }
}

/// `MP_CAPABLE` of a SYN of version 1.
pub(crate) const fn capable_syn() -> [u8; 4] {
    [30, 4, V1, H]
}

/// `MP_CAPABLE` with one key: a SYN of version 0, a SYN/ACK of either.
pub(crate) fn capable_one_key(version: u8, key: Key) -> Vec<u8> {
    [&[30, 12, version, H][..], &key].concat()
}

/// `MP_CAPABLE` with both keys, as the third packet carries it.
pub(crate) fn capable_ack(version: u8, client: Key, server: Key) -> Vec<u8> {
    [&[30, 20, version, H][..], &client, &server].concat()
}

/// `MP_CAPABLE` of the first data of version 1: both keys and the data's length.
pub(crate) fn capable_data(client: Key, server: Key) -> Vec<u8> {
    [&[30, 22, V1, H][..], &client, &server, &[0, 100]].concat()
}

/// The same with a checksum.
pub(crate) fn capable_data_checksum(client: Key, server: Key) -> Vec<u8> {
    [&[30, 24, V1, 0x80 | H][..], &client, &server, &[0, 100, 0xbe, 0xef]].concat()
}

/// `MP_JOIN` of a SYN.
pub(crate) fn join_syn(token: u32) -> [u8; 12] {
    join_syn_of(token, 0, 2)
}

/// The same with flags in the subtype's byte and an address id.
pub(crate) fn join_syn_of(token: u32, flags: u8, address_id: u8) -> [u8; 12] {
    let [a, b, c, d] = token.to_be_bytes();
    [30, 12, 0x10 | flags, address_id, a, b, c, d, 0x11, 0x22, 0x33, 0x44]
}

/// `MP_JOIN` of the ACK that confirms a join, with an HMAC that begins with `hmac`.
pub(crate) fn join_ack_with(hmac: [u8; 4]) -> Vec<u8> {
    [&[30, 24, 0x10, 0][..], &hmac, &[0xab; 16]].concat()
}

/// The same with any HMAC.
pub(crate) fn join_ack() -> Vec<u8> {
    join_ack_with([0xab; 4])
}

/// `MP_FASTCLOSE` and `MP_TCPRST`, as a Linux client sends them together.
pub(crate) fn fastclose(server: Key) -> Vec<u8> {
    [&[30, 12, 0x70, 0][..], &server, &TCPRST].concat()
}

/// `MP_TCPRST`, reason 0.
pub(crate) const TCPRST: [u8; 4] = [30, 4, 0x80, 0];
