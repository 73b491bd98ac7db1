//! Connections of stock Linux kernels, replayed from client to server as a balancer sees them. tshark, which sees both
//! directions, judges what lb-common reads in the packets and where the subflows go.

mod capture;

use crate::worlds::{
    Worlds,
    mptcp::{V1, token},
    setup::Setup,
};
use capture::{NAMES, Seen, frames, from_client, seen_by_tshark};
use lb_common::{
    ids::{BackendId, Token},
    mptcp::{Options, Version},
    packet::Packet as _,
    reason::Reason,
    wire::{ethernet, ip::Header as _, ipv4::Ipv4, ipv6::Ipv6, tcp::Tcp},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

const MP_CAPABLE: u8 = 0;
const MP_JOIN: u8 = 1;

/// The farm with the addresses of the captures' server.
fn setup() -> Setup {
    let mut setup = Setup::farm();
    for vip in &mut setup.vips {
        vip.address = match vip.address {
            IpAddr::V4(_) => [10, 61, 9, 9].into(),
            IpAddr::V6(_) => [0xfd61, 9, 0, 0, 0, 0, 0, 9].into(),
        };
    }
    setup
}

/// A client's packet, and what was decided for it.
struct Decision {
    seen: &'static Seen,
    reason: Reason,
    backend: BackendId,
    /// Whom the ring names.
    owner: BackendId,
}

/// Replays what the client sends. Each packet moves one counter by one, that of its reason.
fn replay(name: &str) -> Vec<Decision> {
    let mut worlds = Worlds::new(setup());
    let mut decisions = Vec::new();
    for (frame, seen) in frames(name).iter().zip(seen_by_tshark(name)) {
        if let Some(flow) = from_client(frame) {
            let outcome = worlds.send(frame);
            let backend = outcome.backend.unwrap_or_else(|| panic!("{name}: {:?} of {seen:?}", outcome.reason));
            decisions.push(Decision { seen, reason: outcome.reason, backend, owner: flow.owner() });
        }
    }
    worlds.end();
    decisions
}

/// The reasons in a row, repeated ones counted.
fn summary(reasons: impl IntoIterator<Item = Reason>) -> String {
    let mut runs: Vec<(Reason, usize)> = Vec::new();
    for reason in reasons {
        match runs.last_mut() {
            Some((last, count)) if *last == reason => *count += 1,
            _ => runs.push((reason, 1)),
        }
    }
    let word = |(reason, count): &(Reason, usize)| match count {
        1 => reason.as_str().to_owned(),
        _ => format!("{}*{count}", reason.as_str()),
    };
    runs.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// What tshark says must become of a client's packet, for whoever knows whom the ring names.
#[derive(Default)]
struct Judge {
    homes: BTreeMap<u32, BackendId>,
    taught: BTreeSet<u32>,
}

impl Judge {
    fn expect(&mut self, seen: &Seen, owner: BackendId) -> (Reason, BackendId) {
        let opens = seen.is_syn && !seen.is_ack;
        let home = *self.homes.entry(seen.connection).or_insert(owner);
        let reason = match (opens, seen.option(MP_CAPABLE), seen.option(MP_JOIN)) {
            (true, Some(_), None) => Reason::RingNew,
            (true, None, Some(_)) => Reason::JoinToken,
            (false, Some(_), None) if self.taught.insert(seen.connection) => Reason::Learned,
            (false, Some(_), None) => Reason::LearnRepeated,
            (false, None, _) if owner == home => Reason::Ring,
            (false, None, Some(_)) => Reason::Joined,
            (false, None, None) => Reason::Flow,
            _ => panic!("{seen:?} is none of MPTCP's packets"),
        };
        (reason, home)
    }
}

#[test]
fn every_packet_goes_where_its_connection_lives_by_tsharks_word() {
    for name in NAMES {
        let mut judge = Judge::default();
        for Decision { seen, reason, backend, owner } in replay(name) {
            assert_eq!(judge.expect(seen, owner), (reason, backend), "{name}: {seen:?}");
        }
        assert!(!judge.taught.is_empty(), "{name} has a connection");
    }
}

/// Why each of the client's packets goes where it goes. A join without `joined` is one that the ring answers.
const DECISIONS: [(&str, &str); NAMES.len()] = [
    ("lab_cflag_addaddr_port_defaultlimits", "ring_new learned ring join_token ring*15"),
    ("lab_csum_backup", "ring_new learned learn_repeated join_token ring*6"),
    ("lab_fastclose_2subflows", "ring_new learned learn_repeated ring join_token joined ring*5 flow"),
    ("lab_rmaddr", "ring_new learned learn_repeated join_token joined ring*6 flow*3 ring*14"),
    ("lab_syncookies2_kernelclient", "ring_new learned learn_repeated join_token joined ring*5"),
    (
        "lab_tfo",
        "ring_new learned ring join_token ring*11 ring_new learned ring join_token joined ring*3 flow ring flow ring flow ring flow",
    ),
    ("lab_v1_join_2paths", "ring_new learned learn_repeated join_token ring*16"),
    ("lab_v4conn_v6join_addaddr6", "ring_new learned ring join_token joined ring*6"),
];

#[test]
fn each_packet_has_its_reason() {
    for (name, expected) in DECISIONS {
        assert_eq!(summary(replay(name).into_iter().map(|decision| decision.reason)), expected, "{name}");
    }
}

#[test]
fn case_89_a_server_that_answers_with_syn_cookies_makes_no_difference() {
    let begin = |name| replay(name).into_iter().map(|decision| decision.reason).take(4).collect::<Vec<_>>();
    let handshakes = [Reason::RingNew, Reason::Learned, Reason::LearnRepeated, Reason::JoinToken];
    assert_eq!(begin("lab_syncookies2_kernelclient"), handshakes);
    assert_eq!(begin("lab_v1_join_2paths"), handshakes);
}

/// A frame's TCP header, and the MPTCP options in it.
fn options_of(frame: &[u8]) -> (Tcp, Options) {
    let link = ethernet::parse(&frame).expect("an Ethernet header");
    let ip = match link.ethertype {
        ethernet::IPV4 => Ipv4::load(&frame, link.payload).and_then(|header| header.check(&frame)),
        _ => Ipv6::load(&frame, link.payload).and_then(|header| header.check(&frame)),
    };
    let tcp = Tcp::parse(&frame, &ip.expect("an IP header")).expect("a TCP header");
    (tcp, frame.mptcp_options(&tcp))
}

#[test]
fn the_options_are_what_tshark_reads() {
    let mut capables = BTreeSet::new();
    for name in NAMES {
        for (number, (frame, seen)) in (1..).zip(frames(name).iter().zip(seen_by_tshark(name))) {
            let place = format!("{name}, frame {number}: {seen:?}");
            let (tcp, options) = options_of(frame);
            assert_eq!(tcp.payload_len, seen.payload_len, "{place}");
            assert_eq!(options.capable.is_some(), seen.option(MP_CAPABLE).is_some(), "{place}");
            assert_eq!(options.join.is_some(), seen.option(MP_JOIN).is_some(), "{place}");
            if let (Some(capable), Some(len)) = (options.capable, seen.option(MP_CAPABLE)) {
                capables.insert(len);
                assert_eq!(seen.version, Some(V1), "{place}");
                let v1_if = |is_so: bool| is_so.then_some(Version::V1);
                assert_eq!(capable.offered(), v1_if(len == 4), "{place}");
                let accepted = capable.accepted(tcp.payload_len);
                assert_eq!(accepted, v1_if(matches!(len, 20 | 22 | 24)), "{place}");
                if accepted.is_some() {
                    let keys = capable.keys(&frame.as_slice(), &tcp);
                    let keys = keys.map(|(client, server)| (u64::from_be_bytes(client), u64::from_be_bytes(server)));
                    assert_eq!(keys, seen.keys, "{place}");
                }
            }
            if let (Some(join), Some(len)) = (options.join, seen.option(MP_JOIN)) {
                let named = join.token(&frame.as_slice(), &tcp).map(Token::number);
                assert_eq!(named, seen.token, "{place}");
                assert_eq!((named.is_some(), join.confirms()), (len == 12, len == 24), "{place}");
            }
        }
    }
    assert_eq!(Vec::from_iter(capables), [4, 12, 20, 22, 24], "the captures have every length");
}

/// The tokens that joins name are the digests of the keys that third packets carry: what learning rests on.
#[test]
fn joins_name_the_tokens_of_the_servers_keys() {
    for name in NAMES {
        let seen = seen_by_tshark(name);
        let tokens = seen.iter().filter_map(|seen| seen.keys).map(|(_, server)| token(V1, server.to_be_bytes()));
        let tokens: BTreeSet<_> = tokens.collect();
        let named: BTreeSet<_> = seen.iter().filter_map(|seen| seen.token).collect();
        assert_eq!(named, tokens, "{name}");
    }
}
