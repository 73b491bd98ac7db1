//! Packets that Weir answers itself, each made from the one that it answers, in its place: the frame goes back to where
//! it came from, with the VLAN tags that it came with.
//!
//! An answer is never longer than what it answers, so that nobody is amplified.

mod echo;
mod reset;
mod too_big;

use crate::{
    encap::push_tags,
    packet::Frame,
    reason::Reason,
    tables::TAGS_MAX,
    wire::ethernet::{self, Ethernet, HEADER_LEN, TAG_LEN},
};

/// Makes a frame into the answer to it. Nothing where there is no room for it, or `reason` asks for none.
#[inline(always)]
pub fn answer<F: Frame>(frame: &mut F, reason: Reason, path_mtu: u16) -> Option<()> {
    let header = ethernet::parse(frame).ok()?;
    let tags = turn_around(frame, &header)?;
    match reason {
        Reason::JoinUnknownReset => reset::write(frame)?,
        Reason::EchoAnswered => echo::write(frame)?,
        Reason::TooBig => too_big::write(frame, path_mtu)?,
        _ => return None,
    }
    match header.tags() {
        0 => Some(()),
        1 => push_tags::<TAG_LEN, F>(frame, &tags),
        _ => push_tags::<TAGS_MAX, F>(frame, &tags),
    }
}

/// Swaps the MAC addresses, and takes the VLAN tags off and hands them out.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "8 at most")]
fn turn_around<F: Frame>(frame: &mut F, header: &Ethernet) -> Option<[u8; TAGS_MAX]> {
    let destination: [u8; 6] = frame.load(0)?;
    let source: [u8; 6] = frame.load(6)?;
    let tags = match header.tags() {
        0 => [0; TAGS_MAX],
        _ => frame.load(12)?,
    };
    if header.tags() > 0 && !frame.move_start((header.payload - HEADER_LEN) as i32) {
        return None;
    }
    let start: &mut [u8; HEADER_LEN] = frame.place(0)?;
    start[..6].copy_from_slice(&source);
    start[6..12].copy_from_slice(&destination);
    start[12..].copy_from_slice(&header.ethertype.to_be_bytes());
    Some(tags)
}
