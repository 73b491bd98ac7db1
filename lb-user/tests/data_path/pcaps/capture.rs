//! The captures, and what tshark says of each of their packets.

use crate::worlds::{oracle, packet::Flow};
use pcap_file::pcap::PcapReader;
use std::{collections::BTreeMap, fs::File, path::PathBuf, process::Command, sync::LazyLock};

/// All there are.
pub(super) const NAMES: [&str; 8] = [
    "lab_cflag_addaddr_port_defaultlimits",
    "lab_csum_backup",
    "lab_fastclose_2subflows",
    "lab_rmaddr",
    "lab_syncookies2_kernelclient",
    "lab_tfo",
    "lab_v1_join_2paths",
    "lab_v4conn_v6join_addaddr6",
];

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data_path/captures/{name}.pcap"))
}

/// Every frame of a capture, in both directions.
pub(super) fn frames(name: &str) -> Vec<Vec<u8>> {
    let file = File::open(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut reader = PcapReader::new(file).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.expect("a whole packet");
        assert_eq!(packet.data.len(), packet.orig_len as usize, "{name} has only the packet's beginning");
        frames.push(packet.data.into_owned());
    }
    frames
}

/// The flow of a frame that goes to the server.
pub(super) fn from_client(frame: &[u8]) -> Option<Flow> {
    oracle::flow_of(frame).filter(|flow| (8000..=8001).contains(&flow.vip.port()))
}

/// A packet as tshark reads it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) is_syn: bool,
    pub(super) is_ack: bool,
    pub(super) payload_len: usize,
    /// The subtype and the length of each MPTCP option.
    pub(super) options: Vec<(u8, u8)>,
    pub(super) version: Option<u8>,
    pub(super) keys: Option<(u64, u64)>,
    pub(super) token: Option<u32>,
    /// The MPTCP connection that the packet's subflow belongs to.
    pub(super) connection: u32,
}

impl Seen {
    /// The length of the first MPTCP option of a subtype.
    pub(super) fn option(&self, subtype: u8) -> Option<u8> {
        self.options.iter().find(|option| option.0 == subtype).map(|option| option.1)
    }
}

const FIELDS: [&str; 12] = [
    "tcp.flags.syn",
    "tcp.flags.ack",
    "tcp.len",
    "tcp.option_kind",
    "tcp.option_len",
    "tcp.options.mptcp.subtype",
    "tcp.options.mptcp.version",
    "tcp.options.mptcp.sendkey",
    "tcp.options.mptcp.recvkey",
    "tcp.options.mptcp.recvtok",
    "tcp.stream",
    "mptcp.stream",
];

/// What tshark says of every frame of a capture.
pub(super) fn seen_by_tshark(name: &str) -> &'static [Seen] {
    static SEEN: LazyLock<BTreeMap<&str, Vec<Seen>>> =
        LazyLock::new(|| NAMES.into_iter().map(|name| (name, ask_tshark(name))).collect());
    &SEEN[name]
}

fn ask_tshark(name: &str) -> Vec<Seen> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path(name)).args(["-T", "fields", "-E", "separator=;"]);
    let output = tshark.args(FIELDS.iter().flat_map(|field| ["-e", field])).output();
    let output = output.expect("tshark is installed: `cargo xtask setup` does it");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split(';').collect()).collect();
    let connections = connections(&rows);
    rows.iter().map(|row| seen(row, &connections)).collect()
}

/// The MPTCP connection of each TCP stream; tshark knows it once it has seen the keys.
fn connections(rows: &[Vec<&str>]) -> BTreeMap<String, u32> {
    let known = rows.iter().filter(|row| !row[11].is_empty()).rev();
    known.map(|row| (row[10].to_owned(), number(row[11]).try_into().expect("few"))).collect()
}

fn seen(row: &[&str], connections: &BTreeMap<String, u32>) -> Seen {
    let list = |field: &str| field.split(',').filter(|word| !word.is_empty()).map(number).collect::<Vec<_>>();
    // NOPs and the end of options have no length.
    let kinds = list(row[3]).into_iter().filter(|&kind| kind > 1);
    let mptcp = kinds.zip(list(row[4])).filter(|&(kind, _)| kind == 30).map(|(_, len)| len);
    let byte = |n: u64| u8::try_from(n).expect("a byte");
    let options: Vec<_> = list(row[5]).into_iter().map(byte).zip(mptcp.map(byte)).collect();
    assert_eq!(options.len(), list(row[5]).len(), "every MPTCP option has a length: {row:?}");
    let one = |field: &str| (!field.is_empty()).then(|| number(field));
    Seen {
        is_syn: number(row[0]) == 1,
        is_ack: number(row[1]) == 1,
        payload_len: number(row[2]).try_into().expect("a length"),
        options,
        version: one(row[6]).map(byte),
        keys: one(row[7]).zip(one(row[8])),
        token: one(row[9]).map(|token| token.try_into().expect("32 bits")),
        connection: connections.get(row[10]).copied().unwrap_or(u32::MAX),
    }
}

fn number(word: &str) -> u64 {
    let parsed = match word {
        "True" => Ok(1),
        "False" => Ok(0),
        _ => word.strip_prefix("0x").map_or_else(|| word.parse(), |hex| u64::from_str_radix(hex, 16)),
    };
    parsed.unwrap_or_else(|error| panic!("tshark printed {word:?}: {error}"))
}
