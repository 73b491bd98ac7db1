//! `MP_CAPABLE` in a SYN/ACK that leaves from a VIP, and its end: NOPs in its place make the connection plain TCP at both
//! ends.

use super::Key;
use crate::{
    clamp::Rule,
    packet::Packet,
    wire::{
        checksum, ethernet,
        ip::{self, Address, Header, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
        tcp::Tcp,
    },
};

/// Bytes of the option in a SYN/ACK, in both versions.
const LEN: usize = 12;
const NOP: u8 = 1;
const _: () = assert!(LEN == 2 * 6);
/// Where the checksum stands in a TCP header.
const CHECKSUM_AT: usize = 16;

/// The option in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capable {
    /// Where it stands, in bytes from the start of the frame.
    pub at: usize,
    /// Where TCP's checksum stands.
    pub checksum: usize,
    /// The server's key.
    pub key: Key,
    /// What its bytes are to the checksum.
    pub sum: [u8; 2],
}

impl Capable {
    /// What is to stand in its place.
    pub const NOPS: [u8; LEN] = [NOP; LEN];

    /// What that is to the checksum, wherever it begins.
    pub const NOPS_SUM: [u8; 2] = [NOP * 6; 2];
}

/// The option in a packet that leaves, if it is a SYN/ACK of a VIP's; `rule` is asked for what holds for its source address.
#[inline(always)]
pub fn judge<'t, P: Packet>(packet: &P, rule: impl Fn(&Address) -> Option<&'t Rule>) -> Option<Capable> {
    let ethernet = ethernet::parse(packet).ok()?;
    let (source, ip) = match ethernet.ethertype {
        ethernet::IPV4 => of::<Ipv4, P>(packet, ethernet.payload)?,
        ethernet::IPV6 => of::<Ipv6, P>(packet, ethernet.payload)?,
        _ => return None,
    };
    let ip = Ip { payload: P::in_headers(ip.payload), ..ip };
    let tcp = Tcp::parse(packet, &ip).ok()?;
    if !tcp.is_syn() || !tcp.is_ack() || !rule(&source)?.holds_for(tcp.source_port) {
        return None;
    }
    let (at, len) = packet.mptcp_options(&tcp).capable?.place();
    if len != LEN {
        return None;
    }
    let at = P::in_headers(tcp.options) + P::below_64(at);
    let bytes: [u8; LEN] = packet.load(at)?;
    let [a, b] = checksum::fold(checksum::sum::<{ LEN / 2 }>(&bytes, 0)).to_be_bytes();
    let sum = if (at - ip.payload).is_multiple_of(2) { [a, b] } else { [b, a] };
    let [_, _, _, _, k0, k1, k2, k3, k4, k5, k6, k7] = bytes;
    Some(Capable { at, checksum: ip.payload + CHECKSUM_AT, key: [k0, k1, k2, k3, k4, k5, k6, k7], sum })
}

/// The source of a TCP packet. A client's options of IP come back in the SYN/ACK.
#[inline(always)]
fn of<H: Header, P: Packet>(packet: &P, at: usize) -> Option<(Address, Ip)> {
    use crate::flow::WireAddress as _;
    let header = H::load(packet, at).ok()?;
    let ip = header.outline(packet).ok()?;
    (ip.protocol == ip::TCP).then(|| (header.source().key(), ip))
}
