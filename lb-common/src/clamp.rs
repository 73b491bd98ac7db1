//! The MSS clamp of a backend: whether a SYN that leaves for a client invites segments that do not fit into the tunnel
//! that they come in. It only ever lowers the number, and looks at nothing but SYNs of VIPs.

use crate::{
    flow::WireAddress as _,
    limits::{CLAMP_RANGES_MAX, TCP_OPTIONS_BYTES},
    packet::Packet,
    wire::{
        ethernet,
        ip::{self, Address, Header},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        tcp,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const END: u8 = 0;
const NOP: u8 = 1;
const MSS: u8 = 2;
const MSS_LEN: u8 = 4;

/// Where the flags and the checksum stand in a TCP header.
const FLAGS_AT: usize = 13;
const CHECKSUM_AT: usize = 16;
const SYN: u8 = 0x02;

/// What holds for the addresses of a VIP, or of a prefix of VIPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Rule {
    /// The most that a SYN may say.
    mss: u16,
    /// How many of the ranges hold.
    count: u16,
    /// The first and the last port of each.
    ranges: [[u16; 2]; CLAMP_RANGES_MAX],
}
const _: () = assert!(size_of::<Rule>() == 36);

impl Rule {
    /// A rule for these ports, each a first and a last; nothing for more ranges than [`CLAMP_RANGES_MAX`].
    pub fn new(mss: u16, ports: &[[u16; 2]]) -> Option<Self> {
        let mut ranges = [[0; 2]; CLAMP_RANGES_MAX];
        ranges.get_mut(..ports.len())?.copy_from_slice(ports);
        Some(Self { mss, count: u16::try_from(ports.len()).ok()?, ranges })
    }

    /// Whether it holds for a port.
    #[inline(always)]
    pub fn holds_for(&self, port: u16) -> bool {
        let mut held = false;
        for (index, [first, last]) in self.ranges.iter().enumerate() {
            held |= index < self.count as usize && *first <= port && port <= *last;
        }
        held
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Clamp {
    /// Its MSS was lowered.
    Lowered,
    /// Its MSS fits.
    Fits,
    /// It says no MSS, or the kernel would not have it changed.
    Kept,
}

impl Clamp {
    /// How many outcomes there are.
    pub const COUNT: usize = 3;
    /// All of them, in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [Self::Lowered, Self::Fits, Self::Kept];

    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lowered => "lowered",
            Self::Fits => "fits",
            Self::Kept => "kept",
        }
    }
}

/// A change of two bytes and of the checksum over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where the MSS stands, in bytes from the start of the frame.
    pub at: usize,
    /// Where TCP's checksum stands.
    pub checksum: usize,
    /// The MSS that is there.
    pub from: [u8; 2],
    /// The MSS that is to be there.
    pub to: [u8; 2],
}

impl Change {
    /// The former and the new bytes as the checksum counts them: what stands across two of its words counts swapped.
    #[inline(always)]
    pub const fn summands(&self) -> ([u8; 2], [u8; 2]) {
        let ([a, b], [c, d]) = (self.from, self.to);
        if (self.at - self.checksum).is_multiple_of(2) { (self.from, self.to) } else { ([b, a], [d, c]) }
    }
}

/// What is to be changed in a packet that leaves; `rule` is asked for what holds for its source address. Nothing for what
/// is no SYN of a VIP's.
#[inline(always)]
pub fn judge<'t, P: Packet>(packet: &P, rule: impl Fn(&Address) -> Option<&'t Rule>) -> Option<Result<Change, Clamp>> {
    let ethertype: [u8; 2] = packet.load(ethernet::HEADER_LEN - 2)?;
    let (source, ip_len) = match u16::from_be_bytes(ethertype) {
        ethernet::IPV4 => (source::<Ipv4, P>(packet, 9)?, ipv4::HEADER_LEN),
        ethernet::IPV6 => (source::<Ipv6, P>(packet, 6)?, ipv6::HEADER_LEN),
        _ => return None,
    };
    let tcp_at = ethernet::HEADER_LEN + ip_len;
    let tcp: [u8; tcp::HEADER_LEN] = packet.load(tcp_at)?;
    if tcp[FLAGS_AT] & SYN == 0 {
        return None;
    }
    let rule = rule(&source)?;
    if !rule.holds_for(u16::from_be_bytes([tcp[0], tcp[1]])) {
        return None;
    }
    let options_len = (usize::from(tcp[FLAGS_AT - 1] >> 4) * 4).saturating_sub(tcp::HEADER_LEN);
    let Some(at) = packet.mss(tcp_at + tcp::HEADER_LEN, options_len) else { return Some(Err(Clamp::Kept)) };
    let from: [u8; 2] = packet.load(at)?;
    if u16::from_be_bytes(from) <= rule.mss {
        return Some(Err(Clamp::Fits));
    }
    Some(Ok(Change { at, checksum: tcp_at + CHECKSUM_AT, from, to: rule.mss.to_be_bytes() }))
}

/// The source address of a TCP packet; `protocol_at` is where its header names what follows. The host's own SYNs have no
/// options of IP's in front.
#[inline(always)]
fn source<H: Header, P: Packet>(packet: &P, protocol_at: usize) -> Option<Address> {
    let header = H::load(packet, ethernet::HEADER_LEN).ok()?;
    let [protocol] = packet.load(ethernet::HEADER_LEN + protocol_at)?;
    (protocol == ip::TCP && header.is_plain()).then(|| header.source().key())
}

/// Where the number of the first MSS option stands among the `len` bytes of options that start at `options`.
#[inline(always)]
pub fn find_mss<P: Packet>(packet: &P, options: usize, len: usize) -> Option<usize> {
    let (mut offset, mut len) = (0, len);
    for _ in 0..TCP_OPTIONS_BYTES {
        // What the kernel's verifier has found out of the length by one step would set the next one apart from others.
        (offset, len) = (P::below_64(offset), P::below_64(len));
        if offset >= len {
            return None;
        }
        let [kind] = packet.load(options + offset)?;
        if kind == NOP {
            offset += 1;
            continue;
        }
        let [option_len] = packet.load(options + offset + 1)?;
        if kind == END || option_len < 2 || offset + usize::from(option_len) > len {
            return None;
        }
        if kind == MSS && option_len == MSS_LEN {
            return Some(options + offset + 2);
        }
        offset += usize::from(option_len);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
    use std::sync::LazyLock;

    const VIP4: [u8; 4] = [192, 0, 2, 10];
    const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];

    fn rule(address: &Address) -> Option<&'static Rule> {
        static RULES: LazyLock<[Rule; 2]> =
            LazyLock::new(|| [1440, 1400].map(|mss| Rule::new(mss, &[[80, 80], [443, 450]]).expect("few ranges")));
        match *address {
            address if address == Address::v4(VIP4) => Some(&RULES[0]),
            address if address == Address::v6(VIP6) => Some(&RULES[1]),
            _ => None,
        }
    }

    fn syn(is_v6: bool, port: u16, options: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = if is_v6 { builder.ipv6(VIP6, [7; 16], 64) } else { builder.ipv4(VIP4, [198, 51, 100, 1], 64) };
        let builder = builder.tcp(port, 40000, 77, 512).syn().ack(1).options_raw(options).expect("options");
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[]).expect("a packet");
        bytes
    }

    /// The packet after the change, with the checksum by RFC 1624 as the kernel's helper does it.
    fn changed(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let change = judge(&bytes.as_slice(), rule)?.ok()?;
        bytes[change.at..][..2].copy_from_slice(&change.to);
        let (from, to) = change.summands();
        let sum = u16::from_be_bytes([bytes[change.checksum], bytes[change.checksum + 1]]);
        let mut sum = u32::from(!sum) + u32::from(!u16::from_be_bytes(from)) + u32::from(u16::from_be_bytes(to));
        while sum >> 16 != 0 {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes[change.checksum..][..2].copy_from_slice(&(!u16::try_from(sum).expect("folded")).to_be_bytes());
        Some(bytes)
    }

    #[test]
    fn an_mss_is_lowered_wherever_it_stands_and_the_checksum_is_right() {
        for is_v6 in [false, true] {
            for before in [&[][..], &[1], &[1, 1], &[4, 2], &[3, 3, 7], &[8, 10, 1, 2, 3, 4, 5, 6, 7, 8]] {
                let options = [before, &[2, 4, 5, 0xb4]].concat();
                let padded = [&options[..], &vec![0; options.len().next_multiple_of(4) - options.len()]].concat();
                let bytes = changed(syn(is_v6, 443, &padded)).expect("it is lowered");
                let packet = SlicedPacket::from_ethernet(&bytes).expect("a packet");
                let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("TCP") };
                let mss = if is_v6 { 1400 } else { 1440 };
                assert!(
                    tcp.options_iterator()
                        .any(|option| option == Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)))
                );
                let header = tcp.to_header();
                let sum = match packet.net.expect("IP") {
                    etherparse::NetSlice::Ipv4(ip) => header.calc_checksum_ipv4(&ip.header().to_header(), &[]),
                    etherparse::NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), &[]),
                    etherparse::NetSlice::Arp(_) => panic!("IP"),
                };
                assert_eq!(sum, Ok(tcp.checksum()), "IPv6: {is_v6}, behind {before:?}");
            }
        }
    }

    #[test]
    fn what_fits_is_kept_and_never_raised() {
        for mss in [0_u16, 536, 1439, 1440] {
            let [a, b] = mss.to_be_bytes();
            assert_eq!(judge(&syn(false, 80, &[2, 4, a, b]).as_slice(), rule), Some(Err(Clamp::Fits)), "{mss}");
        }
    }

    #[test]
    fn a_syn_without_a_readable_mss_is_kept() {
        for options in [&[][..], &[1; 40], &[0, 2, 4, 5], &[2, 3, 5, 0], &[4, 0, 2, 4], &[1, 1, 1, 2], &[2, 6, 5, 0xb4]]
        {
            assert_eq!(judge(&syn(false, 80, options).as_slice(), rule), Some(Err(Clamp::Kept)), "{options:?}");
        }
    }

    #[test]
    fn only_syns_of_the_vips_ports_are_looked_at() {
        let mss = [2, 4, 5, 0xb4];
        for (port, is_theirs) in
            [(80, true), (443, true), (450, true), (79, false), (442, false), (451, false), (0, false)]
        {
            assert_eq!(judge(&syn(false, port, &mss).as_slice(), rule).is_some(), is_theirs, "{port}");
        }
        let mut other = syn(false, 80, &mss);
        other[ethernet::HEADER_LEN + 15] = 11;
        assert_eq!(judge(&other.as_slice(), rule), None);
        let mut no_syn = syn(true, 80, &mss);
        no_syn[ethernet::HEADER_LEN + ipv6::HEADER_LEN + FLAGS_AT] = 0x10;
        assert_eq!(judge(&no_syn.as_slice(), rule), None);
        let mut udp = syn(false, 80, &mss);
        udp[ethernet::HEADER_LEN + 9] = ip::UDP;
        assert_eq!(judge(&udp.as_slice(), rule), None);
    }

    #[test]
    fn no_more_ranges_than_there_is_room_for() {
        assert!(Rule::new(1400, &[[1, 2]; CLAMP_RANGES_MAX]).is_some());
        assert_eq!(Rule::new(1400, &[[1, 2]; CLAMP_RANGES_MAX + 1]), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_walked(options in proptest::collection::vec(proptest::num::u8::ANY, 0..=40)) {
            let padded = [&options[..], &vec![0; options.len().next_multiple_of(4) - options.len()]].concat();
            let bytes = syn(false, 80, &padded);
            if let Some(Ok(change)) = judge(&bytes.as_slice(), rule) {
                proptest::prop_assert!(change.at + 2 <= bytes.len() && change.from > change.to);
            }
        }
    }
}
