//! The frames that are to be explained: out of a capture, or as hexadecimal digits. Each is made into the whole Ethernet frame
//! that a driver would have handed to XDP, or there is a sentence why it cannot be.

use super::line::{hex, unhex};
use lb_common::wire::ethernet::{self, HEADER_LEN};
use pcap_file::{
    DataLink, PcapError, TsResolution,
    pcap::{PcapHeader, PcapReader},
    pcapng::{Block, PcapNgReader, blocks::interface_description::InterfaceDescriptionOption},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _},
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest frame that a test run of an XDP program takes with a tunnel in front of it.
const LONGEST: usize = 12_288;
/// The source and destination of frames that were not captured on Ethernet: locally administered.
const PLACEHOLDER_MACS: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];

/// A frame as it is to be explained.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frame {
    /// The whole Ethernet frame, in hexadecimal.
    pub hex: String,
    /// When it came, in nanoseconds of any clock; frames without a time come at once.
    pub time_ns: Option<u64>,
    /// How many of its last bytes the capture does not have: they are taken as zeros.
    #[serde(default)]
    pub missing: usize,
    /// What was made of it before it could be explained.
    #[serde(default)]
    pub note: Option<String>,
}

/// Why there are no frames.
#[derive(Debug, thiserror::Error)]
pub enum FramesError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing in the file.
    #[error("{}: the file is empty; `tcpdump -w FILE` writes what is read here", .0.display())]
    Empty(PathBuf),
    /// The file is a capture of nothing.
    #[error(
        "{}: the capture holds no packet, so there is nothing to explain; capture where packets come by: `tcpdump -i INTERFACE -w FILE`",
        .0.display()
    )]
    NoPacket(PathBuf),
    /// The file is no capture.
    #[error("{}: neither pcap nor pcapng ({source}); `tcpdump -w FILE` writes what is read here", path.display())]
    NoCapture {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PcapError,
    },
    /// A packet on the command line is no hexadecimal number.
    #[error("--packet {number}: {problem}; give the Ethernet frame in hexadecimal")]
    NoHex {
        /// Which.
        number: usize,
        /// What is wrong.
        problem: String,
    },
}

/// A frame, or why it cannot be explained.
pub type Fitted = Result<Frame, String>;

/// The frames on the command line.
///
/// # Errors
/// One is not hexadecimal.
pub fn of_packets(packets: &[String]) -> Result<Vec<Fitted>, FramesError> {
    let frame = |(number, text): (usize, &String)| match unhex(text) {
        Ok(bytes) => Ok(fit(DataLink::ETHERNET, &bytes, bytes.len(), None)),
        Err(problem) => Err(FramesError::NoHex { number, problem }),
    };
    (1..).zip(packets).map(frame).collect()
}

/// A frame around an IP packet that nobody has sent, and what it stands for.
pub(super) fn made_up(packet: &[u8], what: &str) -> Fitted {
    let frame = fit(DataLink::RAW, packet, packet.len(), None)?;
    Ok(Frame { note: Some(what.to_owned()), ..frame })
}

/// The frames of a capture, in order.
///
/// # Errors
/// The file cannot be read, is no capture, or holds no packet.
pub fn of_capture(path: &Path) -> Result<Vec<Fitted>, FramesError> {
    let unreadable = |source| FramesError::Unreadable { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(unreadable)?;
    if magic.is_empty() {
        return Err(FramesError::Empty(path.to_owned()));
    }
    file.rewind().map_err(unreadable)?;
    let file = BufReader::new(file);
    let frames = if magic == [0x0a, 0x0d, 0x0d, 0x0a] { of_pcapng(path, file) } else { of_pcap(path, file) }?;
    if frames.is_empty() { Err(FramesError::NoPacket(path.to_owned())) } else { Ok(frames) }
}

fn of_pcap(path: &Path, file: BufReader<File>) -> Result<Vec<Fitted>, FramesError> {
    let no_capture = |source| FramesError::NoCapture { path: path.to_owned(), source };
    let mut reader = PcapReader::new(file).map_err(no_capture)?;
    let PcapHeader { datalink: link, ts_resolution, .. } = reader.header();
    let mut frames = Vec::new();
    // The crate's other reader refuses packets that the capture has cut.
    while let Some(packet) = reader.next_raw_packet() {
        let packet = match packet {
            Ok(packet) => packet,
            Err(error) => {
                frames.push(damaged(&error));
                break;
            }
        };
        let fraction = match ts_resolution {
            TsResolution::MicroSecond => Duration::from_micros(packet.ts_frac.into()),
            TsResolution::NanoSecond => Duration::from_nanos(packet.ts_frac.into()),
        };
        let time = Duration::from_secs(packet.ts_sec.into()) + fraction;
        frames.push(fit(link, &packet.data, packet.orig_len as usize, Some(time)));
    }
    Ok(frames)
}

/// What stands for the rest of a capture that nobody can read.
fn damaged(error: &PcapError) -> Fitted {
    Err(format!("the capture is damaged from here on, or was cut off while it was written ({error})"))
}

/// An interface of a pcapng file: its link type, and how many of its units of time are a second.
#[derive(Clone, Copy)]
struct Captured {
    link: DataLink,
    per_second: u64,
}

fn of_pcapng(path: &Path, file: BufReader<File>) -> Result<Vec<Fitted>, FramesError> {
    let no_capture = |source| FramesError::NoCapture { path: path.to_owned(), source };
    let mut reader = PcapNgReader::new(file).map_err(no_capture)?;
    let (mut frames, mut interfaces): (Vec<Fitted>, Vec<Captured>) = (Vec::new(), Vec::new());
    while let Some(block) = reader.next_block() {
        let block = match block {
            Ok(block) => block,
            Err(error) => {
                frames.push(damaged(&error));
                break;
            }
        };
        let (interface, data, len, units) = match block {
            Block::SectionHeader(_) => {
                interfaces.clear();
                continue;
            }
            Block::InterfaceDescription(interface) => {
                let units = interface.options.iter().find_map(|option| match option {
                    InterfaceDescriptionOption::IfTsResol(resolution) => Some(*resolution),
                    _ => None,
                });
                interfaces.push(Captured { link: interface.linktype, per_second: units.map_or(1_000_000, per_second) });
                continue;
            }
            // The crate takes the units of time for nanoseconds, whatever they are.
            Block::EnhancedPacket(packet) => {
                let units = u64::try_from(packet.timestamp.as_nanos()).unwrap_or(u64::MAX);
                (packet.interface_id, packet.data, packet.original_len, Some(units))
            }
            Block::SimplePacket(packet) => (0, packet.data, packet.original_len, None),
            Block::Packet(packet) => {
                (packet.interface_id.into(), packet.data, packet.original_len, Some(packet.timestamp))
            }
            _ => continue,
        };
        let Some(Captured { link, per_second }) = interfaces.get(interface as usize).copied() else {
            frames.push(Err(format!("the capture does not describe its interface {interface}")));
            continue;
        };
        let time = units.map(|units| nanos(units, per_second));
        frames.push(fit(link, &data, len as usize, time));
    }
    Ok(frames)
}

/// Units of time in a second, by the option `if_tsresol`: a power of 2 or 10.
fn per_second(resolution: u8) -> u64 {
    let base: u64 = if resolution & 0x80 == 0 { 10 } else { 2 };
    base.checked_pow(u32::from(resolution & 0x7f)).unwrap_or(u64::MAX)
}

fn nanos(units: u64, per_second: u64) -> Duration {
    let nanos = u128::from(units) * 1_000_000_000 / u128::from(per_second);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Makes what was captured into a whole Ethernet frame.
fn fit(link: DataLink, data: &[u8], original_len: usize, time: Option<Duration>) -> Fitted {
    let mut notes = Vec::new();
    let (mut bytes, shift) = on_ethernet(link, data)?;
    if shift != 0 {
        notes.push("not captured on Ethernet: its Ethernet header is a placeholder".to_owned());
    }
    let missing = original_len.saturating_sub(data.len());
    if missing > 0 {
        if !has_headers(&bytes) {
            return Err(format!(
                "the capture has {} of {original_len} bytes, not all of its headers; capture with `tcpdump -s 0`",
                data.len()
            ));
        }
        notes.push(format!("the capture has {} of {original_len} bytes; the others are taken as zeros", data.len()));
        bytes.resize(bytes.len() + missing, 0);
    }
    if bytes.len() < HEADER_LEN {
        return Err(format!("{} bytes are no Ethernet frame", bytes.len()));
    }
    if bytes.len() > LONGEST {
        return Err(format!(
            "{} bytes are several packets in one, as offloads make them; capture with `ethtool -K IF gro off lro off`",
            bytes.len()
        ));
    }
    let time_ns = time.map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let note = (!notes.is_empty()).then(|| notes.join("; "));
    Ok(Frame { hex: hex(&bytes), time_ns, missing, note })
}

/// The Ethernet frame of what was captured on a link, and by how much longer that is.
fn on_ethernet(link: DataLink, data: &[u8]) -> Result<(Vec<u8>, isize), String> {
    let (ethertype, payload) = match link {
        DataLink::ETHERNET => return Ok((data.to_vec(), 0)),
        DataLink::LINUX_SLL => (data.get(14..16), data.get(16..)),
        DataLink::LINUX_SLL2 => (data.get(..2), data.get(20..)),
        DataLink::RAW | DataLink::IPV4 | DataLink::IPV6 => {
            let is_v6 = data.first().is_some_and(|first| first >> 4 == 6);
            let ethertype: &[u8] = if is_v6 { &[0x86, 0xdd] } else { &[0x08, 0x00] };
            (Some(ethertype), Some(data))
        }
        _ => return Err(format!("captured on a link of the type {link:?}, which carries no Ethernet")),
    };
    let (Some(ethertype), Some(payload)) = (ethertype, payload) else {
        return Err(format!("{} bytes are less than the header of the link type {link:?}", data.len()));
    };
    Ok(([&PLACEHOLDER_MACS, ethertype, payload].concat(), 1))
}

/// Whether everything that is decided by is there: the headers up to the end of TCP's or UDP's.
fn has_headers(frame: &[u8]) -> bool {
    use lb_common::wire::{ip, tcp, udp};
    let Ok(link) = ethernet::parse(&frame) else { return false };
    let rest = frame.get(link.payload..).unwrap_or_default();
    let (protocol, at) = match (link.ethertype, rest) {
        (ethernet::IPV4, [first, ..]) if rest.len() >= 20 => (rest[9], usize::from(first & 0xf) * 4),
        (ethernet::IPV6, _) if rest.len() >= 40 => (rest[6], 40),
        (ethernet::IPV4 | ethernet::IPV6, _) => return false,
        _ => return true,
    };
    let transport = rest.get(at..).unwrap_or_default();
    match protocol {
        ip::TCP => transport.len() >= tcp::HEADER_LEN && transport.len() >= usize::from(transport[12] >> 4) * 4,
        ip::UDP => transport.len() >= udp::HEADER_LEN,
        // What else there is, extension headers and quoted packets, is decided by more than its first bytes.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn syn() -> Vec<u8> {
        let builder = etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([192, 0, 2, 1], [192, 0, 2, 2], 64)
            .tcp(1234, 80, 77, 512)
            .syn()
            .options_raw(&[1; 8])
            .unwrap();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[7; 100]).unwrap();
        bytes
    }

    fn bytes_of(fitted: &Fitted) -> Vec<u8> {
        unhex(&fitted.as_ref().expect("it fits").hex).expect("digits")
    }

    #[test]
    fn what_is_no_ethernet_gets_a_header() {
        let frame = syn();
        let expected = [&PLACEHOLDER_MACS[..], &frame[12..]].concat();
        let cooked = [&[0; 14][..], &frame[12..]].concat();
        let cooked_2 = [&frame[12..14], &[0; 18], &frame[14..]].concat();
        let packet = &frame[14..];
        for (link, data) in [
            (DataLink::LINUX_SLL, &cooked[..]),
            (DataLink::LINUX_SLL2, &cooked_2),
            (DataLink::RAW, packet),
            (DataLink::IPV4, packet),
        ] {
            let fitted = fit(link, data, data.len(), None);
            assert_eq!(bytes_of(&fitted), expected, "{link:?}");
            assert!(fitted.is_ok_and(|frame| frame.note.is_some()));
        }
        assert_eq!(bytes_of(&fit(DataLink::ETHERNET, &frame, frame.len(), None)), frame);
        for (link, data) in
            [(DataLink::IEEE802_11, &frame[..]), (DataLink::LINUX_SLL, &[0; 15]), (DataLink::ETHERNET, &[0; 13])]
        {
            assert!(fit(link, data, data.len(), None).is_err(), "{link:?}");
        }
    }

    #[test]
    fn a_frame_that_is_cut_is_filled_up_if_its_headers_are_there() {
        let frame = syn();
        let headers = 14 + 20 + 28;
        for len in [headers, headers + 1, frame.len() - 1] {
            let fitted = fit(DataLink::ETHERNET, &frame[..len], frame.len(), None);
            assert_eq!(bytes_of(&fitted), [&frame[..len], &vec![0; frame.len() - len]].concat());
            assert_eq!(fitted.map(|frame| frame.missing), Ok(frame.len() - len));
        }
        for len in [0, 13, 14, 33, 34, 53, headers - 1] {
            let refused = fit(DataLink::ETHERNET, &frame[..len], frame.len(), None).expect_err("headers are missing");
            assert!(refused.contains(&format!("has {len} of {} bytes", frame.len())), "{refused}");
        }
    }

    #[test]
    fn units_of_time_become_nanoseconds() {
        assert_eq!([6, 9, 0, 0x8a].map(per_second), [1_000_000, 1_000_000_000, 1, 1024]);
        assert_eq!(nanos(1_500_000, 1_000_000), Duration::from_millis(1500));
        assert_eq!(nanos(512, 1024), Duration::from_millis(500));
    }
}
