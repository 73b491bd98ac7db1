//! ICMP (RFC 792) and `ICMPv6` (RFC 4443): what kind of message, and the packet that an error quotes.

use super::{WireError, ip::Family};
use crate::packet::Packet;

/// Bytes of a message's header; an error's quotation follows it.
pub const HEADER_LEN: usize = 8;

/// ICMP's echo reply and echo request.
pub const ECHO_REPLY: u8 = 0;
/// See [`ECHO_REPLY`].
pub const ECHO_REQUEST: u8 = 8;
/// `ICMPv6`'s echo request and reply.
pub const ECHO_REQUEST_V6: u8 = 128;
/// See [`ECHO_REQUEST_V6`].
pub const ECHO_REPLY_V6: u8 = 129;

/// ICMP's "destination unreachable", and its code "fragmentation needed" (RFC 1191).
pub const UNREACHABLE: u8 = 3;
/// See [`UNREACHABLE`].
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// `ICMPv6`'s "packet too big".
pub const PACKET_TOO_BIG_V6: u8 = 2;

const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const LAST_ERROR_V6: u8 = 4;

/// What a message is to a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request for an echo.
    EchoRequest,
    /// An error, which quotes the packet that it is about.
    Error,
    /// Anything else.
    Other,
}

/// Reads what kind of message begins at `at`.
///
/// # Errors
/// `Truncated` where the frame ends within the message's header.
#[inline(always)]
pub fn kind<P: Packet>(packet: &P, family: Family, at: usize) -> Result<Kind, WireError> {
    let [kind, ..] = packet.load::<HEADER_LEN>(at).ok_or(WireError::Truncated)?;
    Ok(match (family, kind) {
        (Family::V4, ECHO_REQUEST) | (Family::V6, ECHO_REQUEST_V6) => Kind::EchoRequest,
        (Family::V4, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM) | (Family::V6, 1..=LAST_ERROR_V6) => Kind::Error,
        _ => Kind::Other,
    })
}
