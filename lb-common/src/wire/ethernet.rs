//! Ethernet II with 802.1Q and 802.1ad tags.

use super::WireError;
use crate::{limits::VLAN_TAGS_MAX, packet::Packet};

/// Bytes of an untagged Ethernet header.
pub const HEADER_LEN: usize = 14;
/// Bytes of one VLAN tag.
pub const TAG_LEN: usize = 4;

/// `EtherType` of IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// `EtherType` of IPv6 (RFC 2464).
pub const IPV6: u16 = 0x86dd;
/// `EtherType` of an 802.1Q tag.
pub const DOT1Q: u16 = 0x8100;
/// `EtherType` of an 802.1ad service tag (QinQ).
pub const DOT1AD: u16 = 0x88a8;

/// What an Ethernet header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ethernet {
    /// The type of what follows the last tag that was read.
    pub ethertype: u16,
    /// Where that starts, in bytes from the start of the frame.
    pub payload: usize,
}

impl Ethernet {
    /// How many tags stand before the payload.
    pub const fn tags(&self) -> usize {
        (self.payload - HEADER_LEN) / TAG_LEN
    }
}

/// Reads the header and up to [`VLAN_TAGS_MAX`] tags; a further tag stays in `ethertype`.
///
/// # Errors
/// `Truncated` where the frame ends within the header or a tag.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Result<Ethernet, WireError> {
    let ethertype = packet.load(12).ok_or(WireError::Truncated)?;
    let mut ethernet = Ethernet { ethertype: u16::from_be_bytes(ethertype), payload: HEADER_LEN };
    for _ in 0..VLAN_TAGS_MAX {
        if !matches!(ethernet.ethertype, DOT1Q | DOT1AD) {
            break;
        }
        let inner = packet.load(ethernet.payload + 2).ok_or(WireError::Truncated)?;
        ethernet = Ethernet { ethertype: u16::from_be_bytes(inner), payload: ethernet.payload + TAG_LEN };
    }
    Ok(ethernet)
}

#[cfg(test)]
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
mod tests {
    use super::*;

    fn frame(types: &[u16]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        for (i, ethertype) in types.iter().enumerate() {
            if i > 0 {
                frame.extend([0x20, i as u8]);
            }
            frame.extend(ethertype.to_be_bytes());
        }
        frame
    }

    #[test]
    fn deconstruct() {
        for (types, ethertype, payload) in [
            (&[IPV4][..], IPV4, 14),
            (&[DOT1Q, IPV6], IPV6, 18),
            (&[DOT1AD, DOT1Q, IPV4], IPV4, 22),
            (&[DOT1Q, DOT1Q, DOT1Q, IPV4], DOT1Q, 22),
        ] {
            let bytes = frame(types);
            assert_eq!(parse(&bytes.as_slice()), Ok(Ethernet { ethertype, payload }));
        }
    }

    #[test]
    fn truncated() {
        let bytes = frame(&[DOT1AD, DOT1Q, IPV4]);
        for len in 0..bytes.len() {
            assert_eq!(parse(&&bytes[..len]), Err(WireError::Truncated), "{len} bytes");
        }
    }
}
