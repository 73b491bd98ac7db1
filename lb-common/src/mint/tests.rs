use super::*;
use crate::wire::{ethernet, ipv4, ipv6, tcp};
use etherparse::{
    NetSlice, PacketBuilder, SlicedPacket, TcpHeader, TcpOptionElement, TransportSlice, checksum::Sum16BitWords,
};
use proptest::prelude::*;

const CLIENT4: [u8; 4] = [198, 51, 100, 1];
const VIP4: [u8; 4] = [192, 0, 2, 10];
const VIP6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const CAPABLE: [u8; 4] = [30, 4, 0x01, 0x01];
const TIMESTAMPS: [u8; 10] = [8, 10, 1, 2, 3, 4, 0, 0, 0, 0];
const KEY: Key = [1, 2, 3, 4, 5, 6, 7, 8];
const ALL: u8 = Listener::SACK | Listener::WSCALE | Listener::ECN;

fn listener(flags: u8) -> Listener {
    Listener { until: u64::MAX, mss: 1400, window: 64_400, wscale: 7, flags, zero: 0 }
}

fn syn(is_v6: bool, options: &[u8]) -> Vec<u8> {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = if is_v6 { builder.ipv6([7; 16], VIP6, 61) } else { builder.ipv4(CLIENT4, VIP4, 61) };
    let builder = builder.tcp(40_000, 443, 0xffff_ffff, 512).syn().options_raw(&padded).expect("options");
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).expect("a packet");
    bytes
}

fn offer(options: &[u8]) -> Offer {
    let bytes = syn(false, options);
    let at = ethernet::HEADER_LEN + ipv4::HEADER_LEN + tcp::HEADER_LEN;
    Offer::scan(&bytes.as_slice(), at, bytes.len() - at)
}

/// The answer to a SYN, and its TCP header as etherparse reads it.
fn answer(options: &[u8], flags: u8, says: &Listener, now_ns: u64) -> ([u8; ANSWER_LEN], TcpHeader) {
    let bytes = syn(false, options);
    let mut header: [u8; tcp::HEADER_LEN] = *bytes[34..].first_chunk().expect("a header");
    header[13] |= flags;
    let offer = offer(options);
    assert!(offer.is_mptcp() && offer.is_carried(), "{options:?}");
    let timestamp = *bytes[54 + offer.timestamp_at()..].first_chunk().expect("a timestamp");
    let answer = Syn::new(header, 0, offer, timestamp).answer(says, 0xcafe_f00d, now_ns, KEY);
    let (read, rest) = TcpHeader::from_slice(&answer).expect("a header");
    assert!(rest.is_empty());
    (answer, read)
}

fn ordinary() -> Vec<u8> {
    [&[2, 4, 5, 0xb4, 4, 2][..], &TIMESTAMPS, &[1, 3, 3, 10], &CAPABLE].concat()
}

#[test]
fn an_ordinary_syn_is_answered_as_a_linux_server_does() {
    let (bytes, tcp) = answer(&ordinary(), 0, &listener(ALL), 1_000_000 * 0x1_2345);
    assert_eq!((tcp.source_port, tcp.destination_port), (443, 40_000));
    assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (0xcafe_f00d, 0));
    assert!(tcp.syn && tcp.ack && !(tcp.fin || tcp.rst || tcp.psh || tcp.urg || tcp.ece || tcp.cwr));
    assert_eq!(tcp.window_size, 64_400);
    let options: Vec<_> = tcp.options_iterator().take(4).map(|option| option.expect("in form")).collect();
    // 0x12345 without its low six bits, and there a scale of 10 and SACK.
    let time = 0x1_2345 / 64 * 64 + 0x1a;
    let time = if time > 0x1_2345 { time - 64 } else { time };
    assert_eq!(
        options,
        [
            TcpOptionElement::MaximumSegmentSize(1400),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::Timestamp(time, 0x0102_0304),
            TcpOptionElement::Noop,
        ]
    );
    assert_eq!(&bytes[37..40], [3, 3, 7]);
    assert_eq!(bytes[40..], [&[30, 12, 0x01, 0x01][..], &KEY].concat());
}

#[test]
fn what_either_end_does_not_want_is_not_said() {
    let bits = |bytes: &[u8; ANSWER_LEN]| bytes[31] & 0x3f;
    for (options, flags, sack, wscale) in [
        (ordinary(), ALL & !Listener::SACK, false, Some(10)),
        (ordinary(), ALL & !Listener::WSCALE, true, None),
        ([&TIMESTAMPS[..], &CAPABLE].concat(), ALL, false, None),
        ([&[3, 3, 200][..], &CAPABLE, &TIMESTAMPS].concat(), ALL, false, Some(14)),
    ] {
        let (bytes, _) = answer(&options, 0, &listener(flags), 1 << 50);
        assert_eq!(bytes[24..26], if sack { [4, 2] } else { [1, 1] });
        assert_eq!(bytes[37..40], if wscale.is_some() { [3, 3, 7] } else { [1, 1, 1] });
        assert_eq!(bits(&bytes), wscale.unwrap_or(15) | u8::from(sack) << 4);
    }
}

#[test]
fn congestion_notification_is_agreed_where_both_ask() {
    const ECE_CWR: u8 = 0xc0;
    for (asks, flags, agreed) in
        [(0, ALL, false), (0x40, ALL, false), (ECE_CWR, ALL, true), (ECE_CWR, ALL & !Listener::ECN, false)]
    {
        let (bytes, tcp) = answer(&ordinary(), asks, &listener(flags), 1 << 50);
        assert_eq!((tcp.ece, tcp.cwr, bytes[31] & 0x20 != 0), (agreed, false, agreed), "{asks:02x} {flags}");
    }
    let header: [u8; 20] = *syn(false, &ordinary())[34..].first_chunk().expect("a header");
    let marked = [&header[..13], &[header[13] | ECE_CWR], &header[14..]].concat();
    let marked = Syn::new(*marked.first_chunk().expect("a header"), 2, offer(&ordinary()), [0; 4]);
    assert_eq!(
        marked.answer(&listener(ALL), 1, 1 << 50, KEY)[13],
        0x12,
        "a SYN that is marked already asks for nothing"
    );
}

#[test]
fn flags_of_the_host_are_in_the_option() {
    for (flags, said) in [(0, 0x01), (Listener::CHECKSUM, 0x81), (Listener::NO_JOIN_HERE, 0x21)] {
        assert_eq!(answer(&ordinary(), 0, &listener(flags | ALL), 1 << 50).0[43], said);
    }
}

#[test]
fn only_what_a_cookie_carries_is_answered() {
    let with = |more: &[u8]| offer(&[&ordinary()[..], more].concat());
    for (more, what) in [
        (&[34, 2, 1, 1][..], "fast open"),
        (&[30, 3, 0xf0, 0], "another option of MPTCP's"),
        (&CAPABLE, "the same twice"),
        (&[253, 4, 0, 0], "an experiment"),
        (&[2, 3, 0, 0], "an MSS out of form"),
        (&[99, 0, 0, 0], "an option out of form"),
    ] {
        assert!(with(more).is_mptcp() && !with(more).is_carried(), "{what}");
    }
    assert!(with(&[1, 1, 0, 30]).is_carried(), "what stands behind the end is nothing");
    assert!(!offer(&CAPABLE).is_carried(), "without a timestamp");
    let join = [&TIMESTAMPS[..], &[30, 12, 0x10, 1, 0xde, 0xad, 0xbe, 0xef, 1, 2, 3, 4]].concat();
    let v0 = [&TIMESTAMPS[..], &[30, 12, 0x00, 0x81], &[9; 8]].concat();
    for (options, what) in
        [(join, "a join"), (v0, "version 0"), ([&TIMESTAMPS[..], &[30, 4, 1, 0x41]].concat(), "bit B")]
    {
        assert!(!offer(&options).is_mptcp(), "{what}");
    }
}

#[test]
fn only_a_plain_syn_is_one() {
    for flags in 0..=0xff {
        let mut header = [0; tcp::HEADER_LEN];
        header[13] = flags;
        assert_eq!(Syn::is(&header), flags & 0x3f == 2, "{flags:02x}");
    }
}

proptest! {
    #[test]
    fn any_options_are_walked_and_packed(options in proptest::collection::vec(any::<u8>(), 0..=40)) {
        let offer = offer(&options);
        prop_assert_eq!(Offer::unpack(offer.pack()), offer);
        prop_assert!(!offer.is_carried() || offer.timestamp_at() + 8 <= options.len());
    }

    /// `cookie_init_timestamp`: never ahead, at most two steps of 64 ms behind, and the low bits are the offer's.
    #[test]
    fn a_timestamp_is_just_behind_the_time(ms in 200u64..u64::from(u32::MAX)) {
        let (bytes, _) = answer(&ordinary(), 0, &listener(ALL), ms * 1_000_000);
        let time = u64::from(u32::from_be_bytes(*bytes[28..].first_chunk().expect("four bytes")));
        prop_assert!(time <= ms && ms - time < 128 && time & 0x3f == 0x1a);
    }

    #[test]
    fn ip_headers_are_turned(is_v6: bool) {
        let bytes = syn(is_v6, &ordinary());
        let ip = if is_v6 {
            let mut header: [u8; ipv6::HEADER_LEN] = *bytes[14..].first_chunk().expect("a header");
            Syn::turn_ipv6(&mut header);
            header.to_vec()
        } else {
            Syn::ipv4(bytes[14..].first_chunk().expect("a header")).to_vec()
        };
        let tcp = answer(&ordinary(), 0, &listener(ALL), 1 << 50).0;
        let ethertype: &[u8] = if is_v6 { &[0x86, 0xdd] } else { &[8, 0] };
        let frame = [&[0; 12][..], ethertype, &ip, &tcp].concat();
        let packet = SlicedPacket::from_ethernet(&frame).expect("a packet");
        let Some(TransportSlice::Tcp(_)) = packet.transport else { panic!("TCP") };
        match packet.net.expect("IP") {
            NetSlice::Ipv4(ip) => {
                let header = ip.header().to_header();
                prop_assert_eq!((header.source, header.destination), (VIP4, CLIENT4));
                prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
                prop_assert!(header.dont_fragment && usize::from(header.total_len) == frame.len() - 14);
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header().to_header();
                prop_assert_eq!((header.source, header.destination), (VIP6, [7; 16]));
                prop_assert_eq!(usize::from(header.payload_length), ANSWER_LEN);
            }
            NetSlice::Arp(_) => panic!("IP"),
        }
    }

    /// The option is found wherever it stands, and with NOPs in its place the checksum is right.
    #[test]
    fn an_option_becomes_nops(is_v6: bool, before in 0usize..16, key: [u8; 8], version in 0u8..2) {
        let options = [&vec![1; before][..], &[30, 12, version, 0x81], &key, &TIMESTAMPS].concat();
        let mut bytes = syn_ack(is_v6, 443, &options);
        let found = judge(&bytes.as_slice(), rule).expect("it is found");
        prop_assert_eq!(found.key, key);
        bytes[found.at..][..12].copy_from_slice(&Capable::NOPS);
        let sum = |bytes: [u8; 2]| u32::from(u16::from_be_bytes(bytes));
        let was = sum([bytes[found.checksum], bytes[found.checksum + 1]]);
        let mut mended = (!was & 0xffff) + (!sum(found.sum) & 0xffff) + sum(Capable::NOPS_SUM);
        while mended >> 16 != 0 {
            mended = (mended & 0xffff) + (mended >> 16);
        }
        bytes[found.checksum..][..2].copy_from_slice(&(!u16::try_from(mended).expect("folded")).to_be_bytes());
        prop_assert!(checksum_is_right(&bytes, is_v6));
        prop_assert_eq!(judge(&bytes.as_slice(), rule), None);
    }
}

fn rule(address: &Address) -> Option<&'static crate::clamp::Rule> {
    static RULE: std::sync::LazyLock<crate::clamp::Rule> =
        std::sync::LazyLock::new(|| crate::clamp::Rule::new(u16::MAX, &[[443, 443]]).expect("one range"));
    [Address::v4(VIP4), Address::v6(VIP6)].contains(address).then_some(&RULE)
}

fn syn_ack(is_v6: bool, port: u16, options: &[u8]) -> Vec<u8> {
    let mut padded = options.to_vec();
    padded.resize(options.len().next_multiple_of(4), 0);
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = if is_v6 { builder.ipv6(VIP6, [7; 16], 64) } else { builder.ipv4(VIP4, CLIENT4, 64) };
    let builder = builder.tcp(port, 40_000, 77, 512).syn().ack(9).options_raw(&padded).expect("options");
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &[]).expect("a packet");
    bytes
}

fn checksum_is_right(bytes: &[u8], is_v6: bool) -> bool {
    let at = if is_v6 { 54 } else { 34 };
    let addresses = if is_v6 { &bytes[22..54] } else { &bytes[26..34] };
    let len = u16::try_from(bytes.len() - at).expect("short").to_be_bytes();
    let sum = Sum16BitWords::new().add_slice(addresses).add_2bytes([0, 6]).add_2bytes(len).add_slice(&bytes[at..]);
    sum.ones_complement() == 0
}

#[test]
fn other_packets_that_leave_keep_their_options() {
    let options = [&[30, 12, 0x01, 0x81][..], &KEY].concat();
    assert!(judge(&syn_ack(false, 443, &options).as_slice(), rule).is_some());
    assert_eq!(judge(&syn_ack(false, 80, &options).as_slice(), rule), None, "another port");
    let join = [&[30, 16, 0x11, 2][..], &[7; 12]].concat();
    assert_eq!(judge(&syn_ack(true, 443, &join).as_slice(), rule), None, "the answer to a join");
    let mut ack = syn_ack(false, 443, &options);
    ack[47] = 0x10;
    assert_eq!(judge(&ack.as_slice(), rule), None, "no SYN");
    let mut tagged = syn_ack(false, 443, &options);
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    assert_eq!(judge(&tagged.as_slice(), rule).map(|found| found.at), Some(14 + 4 + 20 + 20), "behind a tag");
}
