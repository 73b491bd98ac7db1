//! The backend's side of a tunnel: whether a frame is one from a balancer, and what is inside.

use crate::{
    encap::{GUE_LEN, push_tags},
    flow::WireAddress as _,
    packet::{Frame, Packet},
    tables::TAGS_MAX,
    wire::{
        ethernet::{self, HEADER_LEN, TAG_LEN},
        ip::{self, Address, Family, Fragment, Header},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        udp::Udp,
    },
};

/// A tunnel in front of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where the inner packet starts, in bytes from the start of the frame.
    inner_at: usize,
    inner: Family,
    /// Bytes of VLAN tags that the frame came with.
    tags_len: usize,
}

/// What became of a frame at the end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Decap {
    /// The tunnel was taken off.
    Taken,
    /// Not a tunnel; passed to the host.
    NoTunnel,
    /// A tunnel, but not from a balancer; passed to the host, which drops what it has no tunnel for.
    Stranger,
    /// A tunnel from a balancer that holds no IP packet of its kind; dropped.
    Malformed,
}

impl Decap {
    /// How many outcomes there are.
    pub const COUNT: usize = 4;
    /// All of them, in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [Self::Taken, Self::NoTunnel, Self::Stranger, Self::Malformed];

    /// Whether the frame ends here.
    #[inline(always)]
    pub const fn is_dropped(self) -> bool {
        matches!(self, Self::Malformed)
    }

    /// The word for it in metrics and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::NoTunnel => "no_tunnel",
            Self::Stranger => "stranger",
            Self::Malformed => "malformed",
        }
    }
}

/// Reads the tunnel of a frame, if it is one from a balancer. `balancer` tells whether an address is a balancer's, and the
/// UDP port of its GUE tunnels, 0 for none.
///
/// # Errors
/// Why the frame is left as it is, or dropped.
#[inline(always)]
pub fn find_tunnel<P: Packet>(packet: &P, balancer: impl Fn(&Address) -> Option<u16>) -> Result<Tunnel, Decap> {
    let frame = ethernet::parse(packet).map_err(|_| Decap::NoTunnel)?;
    match frame.ethertype {
        ethernet::IPV4 => {
            let header = Ipv4::load(packet, frame.payload).map_err(|_| Decap::NoTunnel)?;
            inside(packet, &header, ipv4::HEADER_LEN, balancer)
        }
        ethernet::IPV6 => {
            let header = Ipv6::load(packet, frame.payload).map_err(|_| Decap::NoTunnel)?;
            inside(packet, &header, ipv6::HEADER_LEN, balancer)
        }
        _ => Err(Decap::NoTunnel),
    }
}

#[inline(always)]
fn inside<P: Packet, H: Header>(
    packet: &P,
    header: &H,
    header_len: usize,
    balancer: impl Fn(&Address) -> Option<u16>,
) -> Result<Tunnel, Decap> {
    let outer = header.check(packet).map_err(|_| Decap::NoTunnel)?;
    if !matches!(outer.protocol, ip::IPIP | ip::IPV6_IN_IP | ip::UDP) {
        return Err(Decap::NoTunnel);
    }
    let gue_port = balancer(&header.source().key());
    let (protocol, inner_at) = if outer.protocol == ip::UDP {
        let udp = Udp::parse(packet, &outer).map_err(|_| Decap::NoTunnel)?;
        match gue_port {
            Some(port) if port == udp.destination_port && port != 0 => gue_protocol(packet, udp.payload)?,
            _ => return Err(Decap::NoTunnel),
        }
    } else {
        (outer.protocol, outer.payload)
    };
    if gue_port.is_none() {
        return Err(Decap::Stranger);
    }
    // Weir sends no outer options and no fragments.
    if outer.payload - outer.header != header_len || outer.fragment != Fragment::Whole {
        return Err(Decap::Malformed);
    }
    let [version] = packet.load(inner_at).ok_or(Decap::Malformed)?;
    let inner = match (protocol, version >> 4) {
        (ip::IPIP, 4) => Family::V4,
        (ip::IPV6_IN_IP, 6) => Family::V6,
        _ => return Err(Decap::Malformed),
    };
    Ok(Tunnel { inner_at, inner, tags_len: outer.header - HEADER_LEN })
}

/// The protocol that a GUE header names, and where it ends. Weir sends variant 0, no control message, no options.
#[inline(always)]
fn gue_protocol<P: Packet>(packet: &P, at: usize) -> Result<(u8, usize), Decap> {
    match packet.load::<GUE_LEN>(at) {
        Some([0, protocol, 0, 0]) => Ok((protocol, at + GUE_LEN)),
        _ => Err(Decap::Malformed),
    }
}

/// Takes the tunnel off a frame; MAC addresses and VLAN tags stay. Nothing where the frame cannot be changed.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "headers are short")]
pub fn unwrap<F: Frame>(frame: &mut F, tunnel: &Tunnel) -> Option<()> {
    let macs: [u8; 12] = frame.load(0)?;
    let tags: [u8; TAGS_MAX] = frame.load(macs.len())?;
    if !frame.move_start((tunnel.inner_at - HEADER_LEN) as i32) {
        return None;
    }
    let ethertype = match tunnel.inner {
        Family::V4 => ethernet::IPV4,
        Family::V6 => ethernet::IPV6,
    };
    let header: &mut [u8; HEADER_LEN] = frame.place(0)?;
    header[..12].copy_from_slice(&macs);
    header[12..].copy_from_slice(&ethertype.to_be_bytes());
    match tunnel.tags_len {
        0 => Some(()),
        TAG_LEN => push_tags::<TAG_LEN, F>(frame, &tags),
        _ => push_tags::<TAGS_MAX, F>(frame, &tags),
    }
}
