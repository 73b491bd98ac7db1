//! What differs between the IP versions in an answer.

use super::{Scratch, route::Route, socket};
use crate::skb::SkbFrame;
use aya_ebpf::helpers::generated::{bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6};
use lb_common::{
    mint::Syn,
    wire::{
        ethernet,
        ip::Header,
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        tcp,
    },
};

/// The IP header of a SYN, in memory that has room for both versions.
type IpHeader = [u8; ipv6::HEADER_LEN];

pub(super) trait Version: Header {
    /// Bytes of a header without options.
    const LEN: usize;
    /// Where it says what follows.
    const PROTOCOL_AT: usize;

    fn traffic_class(header: &IpHeader) -> u8;

    /// The kernel's cookie for the SYN of so many bytes; negative for none.
    fn cookie(scratch: &mut Scratch, syn_len: usize) -> i64;

    /// Whether the kernel has a socket for the SYN that is no listener.
    fn has_socket(header: &IpHeader, tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> bool;

    /// The way to the sender of a SYN.
    fn route(header: &IpHeader, tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> Option<Route>;

    /// Writes the answer's IP header; that of the SYN may be lost.
    fn write(frame: &mut SkbFrame, header: &mut IpHeader) -> Option<()>;
}

impl Version for Ipv4 {
    const LEN: usize = ipv4::HEADER_LEN;
    const PROTOCOL_AT: usize = 9;

    #[inline(always)]
    fn traffic_class(header: &IpHeader) -> u8 {
        header[1]
    }

    #[inline(always)]
    fn cookie(scratch: &mut Scratch, syn_len: usize) -> i64 {
        let (ip, syn) = (scratch.ip.as_mut_ptr(), scratch.syn.as_mut_ptr());
        // SAFETY: both lie in `scratch` as a whole, the latter with room for 63 bytes.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv4(ip.cast(), syn.cast(), syn_len as u32) }
    }

    #[inline(always)]
    fn has_socket(header: &IpHeader, tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> bool {
        socket::is_kept_v4(word(header, 12), word(header, 16), tcp, frame)
    }

    #[inline(always)]
    fn route(h: &IpHeader, tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> Option<Route> {
        Route::to_v4([h[12], h[13], h[14], h[15]], [h[16], h[17], h[18], h[19]], tcp, frame)
    }

    #[inline(always)]
    fn write(frame: &mut SkbFrame, header: &mut IpHeader) -> Option<()> {
        frame.store(ethernet::HEADER_LEN, &Syn::ipv4(header.first_chunk()?))
    }
}

impl Version for Ipv6 {
    const LEN: usize = ipv6::HEADER_LEN;
    const PROTOCOL_AT: usize = 6;

    #[inline(always)]
    fn traffic_class(header: &IpHeader) -> u8 {
        header[0] << 4 | header[1] >> 4
    }

    #[inline(always)]
    fn cookie(scratch: &mut Scratch, syn_len: usize) -> i64 {
        let (ip, syn) = (scratch.ip.as_mut_ptr(), scratch.syn.as_mut_ptr());
        // SAFETY: as above.
        unsafe { bpf_tcp_raw_gen_syncookie_ipv6(ip.cast(), syn.cast(), syn_len as u32) }
    }

    #[inline(always)]
    fn has_socket(header: &IpHeader, tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> bool {
        socket::is_kept_v6(words(header, 8), words(header, 24), tcp, frame)
    }

    #[inline(always)]
    fn route(header: &IpHeader, tcp: &[u8; tcp::HEADER_LEN], frame: &SkbFrame) -> Option<Route> {
        Route::to_v6(words(header, 8), words(header, 24), tcp, frame)
    }

    #[inline(always)]
    fn write(frame: &mut SkbFrame, header: &mut IpHeader) -> Option<()> {
        Syn::turn_ipv6(header);
        frame.store(ethernet::HEADER_LEN, header)
    }
}

/// An address as the kernel's structures hold it.
#[inline(always)]
fn words(header: &IpHeader, at: usize) -> [u32; 4] {
    [word(header, at), word(header, at + 4), word(header, at + 8), word(header, at + 12)]
}

#[inline(always)]
fn word(h: &IpHeader, at: usize) -> u32 {
    u32::from_ne_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]])
}
